"""The daemon's life: start → serve → drain → stop, under one TaskGroup and one deadline.

The pump reads deliveries and hands each to ``Partitions``. On SIGTERM it stops, and the cameras'
queues are emptied; what is not done by the deadline is read again at the next start.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from daemon.device.thread import Device
from daemon.journal.base import Journal
from daemon.partitions import Partitions, Serving
from daemon.sources.base import ChunkSource, Delivery
from daemon.stream.flow import FlowControl
from daemon.stream.stages import WorkerParts
from daemon.systemd import Notifier
from daemon.tasks import Tasks
from daemon.watch import Watch


async def nothing_to_serve() -> None:
    """The ``companion`` of a daemon whose model never changes: it does nothing."""


class App:
    """One daemon.

    Args:
        source: Where chunks come from; ``start`` starts it.
        journal: Keeps what follows from them; already started.
        device: Backbone and localizer; warm.
        parts: What all cameras share.
        flow: When to pause a partition.
        notifier: The service manager.
        serving: How partitions are served.
        watch: Watches over it while it serves.
        stop: ``stop()`` sets it, and when it is set the daemon drains; None: an event of its own.
        companion: Runs beside the cameras until the daemon drains, and brings in other models.

    Attributes:
        partitions: Those that are ours.
        progress: How far the daemon is.
        watch: Watches over it.
    """

    def __init__(
        self,
        *,
        source: ChunkSource,
        journal: Journal,
        device: Device,
        parts: WorkerParts,
        flow: FlowControl,
        notifier: Notifier,
        serving: Serving,
        watch: Watch,
        stop: asyncio.Event | None = None,
        companion: Callable[[], Coroutine[Any, Any, None]] = nothing_to_serve,
    ) -> None:
        self.watch = watch
        self._source = source
        self._device = device
        self._parts = parts
        self._notifier = notifier
        self._log: structlog.stdlib.BoundLogger = parts.log
        self._tasks = Tasks(self._log)
        self._stop = stop or asyncio.Event()
        self._companion = companion
        self.partitions = Partitions(source, journal, parts, flow, self._tasks, serving)
        self.progress = self.partitions.progress

    def stop(self) -> None:
        """Begin to drain, as SIGTERM does."""
        self._stop.set()

    async def start(self) -> None:
        """Start the source, which asks for its partitions.

        Raises:
            ConfigError, TransportError: As of ``ChunkSource.start``.
        """
        await self._source.start(self.partitions)

    async def serve(self) -> None:
        """Run until the source is finished or ``stop`` is called, then drain.

        Raises:
            DeviceError: The accelerator failed.
            TransportError: A transport failed for good, or what a task waited for was cancelled.
        """
        with stopped_by_signals(self._stop):
            try:
                async with asyncio.TaskGroup() as group:
                    self._tasks.serve(group)
                    helpers = [
                        self._tasks.begin("device", self._device.serve),
                        self._tasks.begin("watch", self.watch.serve),
                        self._tasks.begin("housekeeping", self.partitions.keep_house),
                    ]
                    companion = self._tasks.begin("companion", self._companion)
                    self._parts.models.on_put = self.partitions.tell_cameras
                    self.progress.ready = True
                    self._notifier.ready("consuming")
                    self._log.info("daemon.ready")
                    await self._pump()
                    companion.cancel()
                    await self._drain()
                    for helper in helpers:
                        helper.cancel()
            except BaseExceptionGroup as errors:
                raise first_of(errors) from errors

    async def finished(self, n_deliveries: int) -> None:
        """Wait until ``n_deliveries`` are finished and kept, counted from the start."""
        await self.partitions.finished(n_deliveries)

    def is_live(self) -> tuple[bool, dict[str, Any]]:
        """Tell /livez whether the daemon works, and how far it is."""
        is_live, details = self.watch.is_live()
        return is_live, {
            **details,
            "busy_cameras": self.progress.busy,
            "deliveries_done": self.progress.n_done,
        }

    def is_ready(self) -> tuple[bool, dict[str, Any]]:
        """Tell /readyz whether cameras are served, what is waited for, and each one's queue."""
        outages = self.watch.outages
        is_open = self.progress.ready and not self.progress.draining
        is_ready = is_open and not outages.stop_all
        cameras = sorted(self.partitions.cameras(), key=lambda camera: camera.name)
        return is_ready, {
            "ready": is_ready,
            "draining": self.progress.draining,
            "waiting": outages.report(),
            "cameras": {camera.name: camera.report() for camera in cameras},
        }

    async def _pump(self) -> None:
        """Hand deliveries out until the source ends or the daemon is told to stop."""
        deliveries = aiter(self._source.deliveries())
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        coming = asyncio.create_task(self._next(deliveries))
        try:
            while True:
                either: set[asyncio.Task[Any]] = {coming, stopped}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() or self._stop.is_set():
                    break
                delivery = coming.result()
                if delivery is None:
                    self._log.info("source.finished")
                    break
                self.partitions.hand_out(delivery)
                coming = asyncio.create_task(self._next(deliveries))
        finally:
            left: set[asyncio.Task[Any]] = {coming, stopped}
            for waiting in left:
                waiting.cancel()
            await asyncio.wait(left)

    async def _next(self, deliveries: AsyncIterator[Delivery]) -> Delivery | None:
        return await self._tasks.not_in_silence("source", lambda: anext(deliveries, None))

    async def _drain(self) -> None:
        self.progress.draining = True
        self._notifier.stopping()
        n_waiting = sum(camera.depth for camera in self.partitions.cameras())
        self._log.info("daemon.draining", chunks=n_waiting)
        await self.partitions.drain()


@contextmanager
def stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and the first Ctrl-C set ``stop``; the default handlers come back afterwards."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        # A second Ctrl-C must end a drain that nobody wants to wait for.
        loop.remove_signal_handler(signal.SIGINT)

    handled: list[signal.Signals] = []
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
            handled.append(number)
    except (NotImplementedError, RuntimeError, ValueError):
        pass  # not the main thread: whoever runs us there calls stop()
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error inside nested groups; the exit code is chosen by it."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
