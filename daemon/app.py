"""The daemon's life: start → serve → drain → stop, under one TaskGroup and one deadline.

The pump reads deliveries and hands each to its camera's queue, which a task of that camera
empties. The queues are short, and a full one pauses its partition. On SIGTERM the pump stops and
the queues are emptied; what is not done by the deadline is read again at the next start.

When a model takes over, every camera is told. A camera without a chunk in hand goes over to it at
once, any other one after its chunk.

No part of the daemon ends unnoticed. If what a task waits for is cancelled, a TaskGroup takes the
task for one that was cancelled on purpose; here it ends the daemon with an error. Work that was
begun is then either in the state or read again.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, TypeVar

import structlog

from daemon.cancellation import own_cancellation
from daemon.device.thread import Device
from daemon.errors import ForeignCancellationError
from daemon.metrics import Metrics
from daemon.sources.base import ChunkSource, Delivery
from daemon.stream.flow import FlowControl
from daemon.stream.ledger import Ledger
from daemon.stream.worker import StreamWorker, WorkerParts
from daemon.systemd import Notifier
from engine.errors import RefusedChunkError

R = TypeVar("R")

# Share of WatchdogSec between two signs of life; a quarter leaves time for a busy event loop.
WATCHDOG_SHARE = 0.25

# Chunks of cameras beyond max_cameras are counted under this name.
REFUSED_CAMERAS = "(refused)"


@dataclass(slots=True)
class Progress:
    """How far the daemon is, as the watchdog, /livez and /readyz see it.

    Attributes:
        ready: Everything is open and warm.
        draining: No more chunks are read, and those that were read are being finished.
        busy: How many cameras have a chunk in hand.
        n_done: How many deliveries are finished.
    """

    ready: bool = False
    draining: bool = False
    busy: int = 0
    n_done: int = 0


class _Notice(Enum):
    """What a camera's queue holds besides deliveries."""

    TAKE_OVER = "another model is current"
    END = "nothing follows"


@dataclass(slots=True)
class _Camera:
    partition: str
    worker: StreamWorker
    queue: asyncio.Queue[Delivery | _Notice] = field(default_factory=asyncio.Queue)
    is_busy: bool = False  # something that was in the queue is in hand
    is_told: bool = False  # a TAKE_OVER is queued; one is enough, for it takes a chunk's place
    is_ending: bool = False  # an END is queued, which takes no chunk's place

    @property
    def depth(self) -> int:
        """Chunks in the queue, with what takes a chunk's place."""
        return self.queue.qsize() - self.is_ending


async def nothing_to_serve() -> None:
    """The ``companion`` of a daemon whose model never changes: it does nothing."""


class App:
    """One daemon.

    Args:
        source: Where chunks come from; already started.
        device: Backbone and localizer; warm.
        parts: What all cameras share.
        flow: When to pause a partition.
        notifier: The service manager.
        drain_timeout_s: Seconds to finish what was begun.
        max_cameras: Chunks of further cameras are refused.
        stall_s: A decode or device call that runs for so many seconds counts as a hang.
        stop: ``stop()`` sets it, and when it is set the daemon drains; None: an event of its own.
        companion: Runs beside the cameras until the daemon drains, and brings in other models.
    """

    def __init__(
        self,
        *,
        source: ChunkSource,
        device: Device,
        parts: WorkerParts,
        flow: FlowControl,
        notifier: Notifier,
        drain_timeout_s: float,
        max_cameras: int = 512,
        stall_s: float = 60.0,
        stop: asyncio.Event | None = None,
        companion: Callable[[], Coroutine[Any, Any, None]] = nothing_to_serve,
    ) -> None:
        self._source = source
        self._device = device
        self._parts = parts
        self._flow = flow
        self._notifier = notifier
        self._drain_timeout_s = drain_timeout_s
        self._max_cameras = max_cameras
        self._stall_s = stall_s
        self._metrics: Metrics = parts.metrics
        self._log: structlog.stdlib.BoundLogger = parts.log
        self._ledger = Ledger()
        self._cameras: dict[str, _Camera] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # also of cameras that were given up
        self._stop = stop or asyncio.Event()
        self._companion = companion
        self._finished = asyncio.Event()
        self.progress = Progress()

    def stop(self) -> None:
        """Begin to drain, as SIGTERM does."""
        self._stop.set()

    async def serve(self) -> None:
        """Run until the source is finished or ``stop`` is called, then drain.

        Raises:
            DeviceError: The accelerator failed.
            TransportError: A transport failed for good, or what a task waited for was cancelled.
        """
        with self._signals():
            try:
                async with asyncio.TaskGroup() as group:
                    helpers = [
                        self._begin("device", self._device.serve, group),
                        self._begin("watchdog", self._watch, group),
                    ]
                    companion = self._begin("companion", self._companion, group)
                    self._parts.models.on_put = self._tell_cameras
                    self.progress.ready = True
                    self._notifier.ready("consuming")
                    self._log.info("daemon.ready")
                    await self._pump(group)
                    companion.cancel()
                    await self._drain()
                    for helper in helpers:
                        helper.cancel()
            except BaseExceptionGroup as errors:
                raise first_of(errors) from errors

    async def finished(self, n_deliveries: int) -> None:
        """Wait until ``n_deliveries`` are finished, counted from the start."""
        while self.progress.n_done < n_deliveries:
            self._finished.clear()
            await self._finished.wait()

    async def release(self, partition: str) -> None:
        """Give a partition up: finish its deliveries in hand, then forget its cameras.

        What is not finished by the drain deadline is left to the partition's next owner.
        """
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                while self._is_at_work(partition):
                    self._finished.clear()
                    await self._finished.wait()
        except TimeoutError:
            self._log.warning("daemon.drain_timeout", partition=partition)
        finally:  # the source may be less patient than we are
            self._forget(partition)

    def _is_at_work(self, partition: str) -> bool:
        """True while a delivery of the partition is not safe, or a camera of it changes models."""
        return self._ledger.in_flight(partition) > 0 or any(
            camera.is_busy for camera in self._cameras.values() if camera.partition == partition
        )

    def _forget(self, partition: str) -> None:
        self._ledger.forget(partition)
        if self._flow.is_paused(partition):
            self._flow.forget(partition)
            self._metrics.paused_partitions.dec()
        for name, camera in list(self._cameras.items()):
            if camera.partition == partition:
                while not camera.queue.empty():
                    camera.queue.get_nowait()
                camera.queue.put_nowait(_Notice.END)
                camera.is_ending = True
                del self._cameras[name]

    def _tell_cameras(self) -> None:
        for camera in self._cameras.values():
            if not camera.is_told:
                camera.is_told = True
                camera.queue.put_nowait(_Notice.TAKE_OVER)

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
        return is_ready, {
            "ready": is_ready,
            "draining": self.progress.draining,
            "cameras": {
                name: {"queued": camera.depth} for name, camera in sorted(self._cameras.items())
            },
        }

    def _begin(
        self, name: str, work: Callable[[], Awaitable[None]], group: asyncio.TaskGroup
    ) -> asyncio.Task[None]:
        return group.create_task(self._not_in_silence(name, work), name=name)

    async def _not_in_silence(self, name: str, work: Callable[[], Awaitable[R]]) -> R:
        """Do ``work``, which only the daemon itself may cancel; log any other cancellation."""
        try:
            with own_cancellation(name):
                return await work()
        except ForeignCancellationError as error:
            self._log.error("task.lost", task=name, reason=str(error))
            raise

    async def _pump(self, group: asyncio.TaskGroup) -> None:
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
                self._hand_out(delivery, group)
                coming = asyncio.create_task(self._next(deliveries))
        finally:
            left: set[asyncio.Task[Any]] = {coming, stopped}
            for waiting in left:
                waiting.cancel()
            await asyncio.wait(left)

    async def _next(self, deliveries: AsyncIterator[Delivery]) -> Delivery | None:
        return await self._not_in_silence("source", lambda: anext(deliveries, None))

    def _hand_out(self, delivery: Delivery, group: asyncio.TaskGroup) -> None:
        delivery = self._admitted(delivery)
        position, name = delivery.position, delivery.camera
        self._ledger.begin(position)
        camera = self._cameras.get(name)
        if camera is None:
            camera = _Camera(position.partition, StreamWorker(name, self._parts))
            self._cameras[name] = camera
            task = self._begin(f"camera {name}", partial(self._work, camera), group)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        camera.queue.put_nowait(delivery)
        depth = camera.depth
        self._metrics.queued_chunks.labels(name).set(depth)
        if self._flow.queued(position.partition, name, depth):
            self._source.pause(position.partition)
            self._metrics.paused_partitions.inc()
            self._log.debug("partition.paused", partition=position.partition)

    def _admitted(self, delivery: Delivery) -> Delivery:
        """The delivery, refused if its camera is one too many; names come from outside."""
        if delivery.camera in self._cameras or len(self._cameras) < self._max_cameras:
            return delivery
        error = RefusedChunkError(
            f"camera {delivery.camera!r} is one more than max_cameras ({self._max_cameras})"
        )
        return replace(delivery, camera=REFUSED_CAMERAS, chunk=None, error=error)

    async def _work(self, camera: _Camera) -> None:
        """Empty one camera's queue until told that nothing follows."""
        try:
            while (item := await camera.queue.get()) is not _Notice.END:
                self.progress.busy += 1
                camera.is_busy = True
                try:
                    await self._work_on(item, camera)
                finally:
                    self.progress.busy -= 1
                    camera.is_busy = False
                    self._finished.set()  # for whoever waits until a partition is at rest
                if isinstance(item, Delivery):
                    await self._finish(item, camera.depth)
        finally:
            camera.worker.close()

    async def _work_on(self, item: Delivery | _Notice, camera: _Camera) -> None:
        if isinstance(item, Delivery):
            await camera.worker.process(item)
            return
        camera.is_told = False
        await camera.worker.take_over()
        self._metrics.queued_chunks.labels(camera.worker.camera).set(camera.depth)

    async def _finish(self, delivery: Delivery, depth: int) -> None:
        position = delivery.position
        self.progress.n_done += 1
        # 3. of the guarantee (see daemon.stream.worker): what is durable may be committed.
        safe = self._ledger.finish(position)
        if safe is not None:
            await self._source.commit(safe)
        self._finished.set()
        self._metrics.queued_chunks.labels(delivery.camera).set(depth)
        for partition in self._flow.taken(delivery.camera, depth):
            self._source.resume(partition)
            self._metrics.paused_partitions.dec()
            self._log.debug("partition.resumed", partition=partition)

    async def _drain(self) -> None:
        """Let every camera finish what it was given, up to the deadline."""
        self.progress.draining = True
        self._notifier.stopping()
        n_waiting = sum(camera.depth for camera in self._cameras.values())
        self._log.info("daemon.draining", chunks=n_waiting)
        for camera in self._cameras.values():
            camera.queue.put_nowait(_Notice.END)
            camera.is_ending = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=self._drain_timeout_s)
        if late:
            self._log.warning("daemon.drain_timeout", cameras=len(late))
        for task in late:
            task.cancel()

    async def _watch(self) -> None:
        """Feed the watchdog as long as neither the device nor a decoder hangs."""
        interval_s = (self._notifier.watchdog_s or 4.0) * WATCHDOG_SHARE
        while True:
            is_live, _ = self.is_live()
            if is_live:
                self._notifier.alive()
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
