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
from daemon.metrics import Metrics
from daemon.partitions import Partitions, Serving
from daemon.sources.base import ChunkSource, Delivery
from daemon.stream.flow import FlowControl
from daemon.stream.worker import WorkerParts
from daemon.systemd import Notifier
from daemon.tasks import Tasks

# Share of WatchdogSec between two signs of life; a quarter leaves time for a busy event loop.
WATCHDOG_SHARE = 0.25


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
        stall_s: A decode or device call that runs for so many seconds counts as a hang.
        stop: ``stop()`` sets it, and when it is set the daemon drains; None: an event of its own.
        companion: Runs beside the cameras until the daemon drains, and brings in other models.

    Attributes:
        partitions: Those that are ours.
        progress: How far the daemon is.
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
        stall_s: float = 60.0,
        stop: asyncio.Event | None = None,
        companion: Callable[[], Coroutine[Any, Any, None]] = nothing_to_serve,
    ) -> None:
        self._source = source
        self._device = device
        self._parts = parts
        self._notifier = notifier
        self._stall_s = stall_s
        self._metrics: Metrics = parts.metrics
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
        with self._signals():
            try:
                async with asyncio.TaskGroup() as group:
                    self._tasks.serve(group)
                    helpers = [
                        self._tasks.begin("device", self._device.serve),
                        self._tasks.begin("watchdog", self._watch),
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
        """Tell /livez and the watchdog whether no decode or device call runs for too long."""
        oldest_s = self._parts.calls.oldest_s()
        is_live = oldest_s < self._stall_s
        return is_live, {
            "live": is_live,
            "busy_cameras": self.progress.busy,
            "oldest_running_call_s": round(oldest_s, 3),
            "deliveries_done": self.progress.n_done,
        }

    def is_ready(self) -> tuple[bool, dict[str, Any]]:
        """Tell /readyz whether chunks are being read, with each camera's queue."""
        is_ready = self.progress.ready and not self.progress.draining
        cameras = sorted(self.partitions.cameras(), key=lambda camera: camera.name)
        return is_ready, {
            "ready": is_ready,
            "draining": self.progress.draining,
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

    async def _watch(self) -> None:
        """Feed the watchdog as long as neither the device nor a decoder hangs."""
        interval_s = (self._notifier.watchdog_s or 4.0) * WATCHDOG_SHARE
        while True:
            is_live, _ = self.is_live()
            if is_live:
                self._notifier.alive()
            self._metrics.tasks.set(len(asyncio.all_tasks()))
            await asyncio.sleep(interval_s)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and the first Ctrl-C drain; the default handlers come back afterwards."""
        loop = asyncio.get_running_loop()
        handled: list[signal.Signals] = []
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal, loop)
                handled.append(number)
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # not the main thread: whoever runs us there calls stop()
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop()
        # A second Ctrl-C must end a drain that nobody wants to wait for.
        loop.remove_signal_handler(signal.SIGINT)


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error inside nested groups; the exit code is chosen by it."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
