"""The daemon's life: start → serve → drain → stop, under one TaskGroup and one deadline.

The pump reads deliveries and hands each to its camera's queue, which a task of that camera
empties. The queues are short, and a full one pauses its partition. What follows from a delivery
goes into the next step of its partition's ``Tenure``. On SIGTERM the pump stops and the queues
are emptied; what is not done by the deadline is read again at the next start.

When a model takes over, every camera is told. A camera without a chunk in hand goes over to it at
once, any other one after its chunk.

No part of the daemon ends unnoticed. If what a task waits for is cancelled, a TaskGroup takes the
task for one that was cancelled on purpose; here it ends the daemon with an error. Work that was
begun is then either in a step or done again.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from daemon.cameras import Camera, CameraLimits, Notice, StatusParts
from daemon.cancellation import own_cancellation
from daemon.device.thread import Device
from daemon.errors import ForeignCancellationError, StaleOwnerError
from daemon.journal.base import Journal, Owner, Past, Step
from daemon.metrics import Metrics
from daemon.sources.base import ChunkSource, Delivery
from daemon.stream.flow import FlowControl
from daemon.stream.status import CameraWatch
from daemon.stream.tenure import StepLimits, Tenure
from daemon.stream.worker import Beginning, StreamWorker, WorkerParts
from daemon.systemd import Notifier
from engine.errors import RefusedChunkError

R = TypeVar("R")

# Share of WatchdogSec between two signs of life; a quarter leaves time for a busy event loop.
WATCHDOG_SHARE = 0.25

_HOST = socket.gethostname()

# Chunks of cameras beyond max_cameras are counted under this name.
REFUSED_CAMERAS = "(refused)"


@dataclass(slots=True)
class Progress:
    """How far the daemon is, as the watchdog, /livez and /readyz see it.

    Attributes:
        ready: Everything is open and warm.
        draining: No more chunks are read, and those that were read are being finished.
        busy: How many cameras have a chunk in hand.
        n_done: How many deliveries are finished, and what follows from them is kept.
    """

    ready: bool = False
    draining: bool = False
    busy: int = 0
    n_done: int = 0


@dataclass(slots=True)
class _Holding:
    """A partition that is ours: the right to it, and its cameras by name."""

    tenure: Tenure
    next_offset: int
    cameras: dict[str, Camera]


async def nothing_to_serve() -> None:
    """The ``companion`` of a daemon whose model never changes: it does nothing."""


class App:
    """One daemon; it owns the partitions that its source reads.

    Args:
        source: Where chunks come from; ``start`` starts it.
        journal: Keeps what follows from them; already started.
        device: Backbone and localizer; warm.
        parts: What all cameras share.
        flow: When to pause a partition.
        notifier: The service manager.
        drain_timeout_s: Seconds to finish what was begun.
        steps: When steps go to the journal.
        cameras: How many cameras there may be, and when one is silent or forgotten.
        stall_s: A decode or device call that runs for so many seconds counts as a hang.
        stop: ``stop()`` sets it, and when it is set the daemon drains; None: an event of its own.
        companion: Runs beside the cameras until the daemon drains, and brings in other models.
        instance: The daemon's name in its consumer group; None: it has none.
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
        drain_timeout_s: float,
        steps: StepLimits | None = None,
        cameras: CameraLimits | None = None,
        stall_s: float = 60.0,
        stop: asyncio.Event | None = None,
        companion: Callable[[], Coroutine[Any, Any, None]] = nothing_to_serve,
        instance: str | None = None,
    ) -> None:
        self._source = source
        self._journal = journal
        self._device = device
        self._parts = parts
        self._flow = flow
        self._notifier = notifier
        self._drain_timeout_s = drain_timeout_s
        self._steps = steps or StepLimits()
        self._limits = cameras or CameraLimits()
        self._stall_s = stall_s
        self._metrics: Metrics = parts.metrics
        self._log: structlog.stdlib.BoundLogger = parts.log
        self._held: dict[str, _Holding] = {}
        self._camera_tasks: set[asyncio.Task[None]] = set()  # also of cameras that were given up
        self._group: asyncio.TaskGroup | None = None
        self._to_begin: list[Callable[[], None]] = []  # tasks of partitions taken before ``serve``
        self._stop = stop or asyncio.Event()
        self._companion = companion
        self._statuses = StatusParts(Owner(_HOST, instance), parts.clock, source.n_behind)
        self._finished = asyncio.Event()
        self.progress = Progress()

    def stop(self) -> None:
        """Begin to drain, as SIGTERM does."""
        self._stop.set()

    async def start(self) -> None:
        """Start the source, which asks for its partitions.

        Raises:
            ConfigError, TransportError: As of ``ChunkSource.start``.
        """
        await self._source.start(self)

    async def serve(self) -> None:
        """Run until the source is finished or ``stop`` is called, then drain.

        Raises:
            DeviceError: The accelerator failed.
            TransportError: A transport failed for good, or what a task waited for was cancelled.
        """
        with self._signals():
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    helpers = [
                        self._begin("device", self._device.serve),
                        self._begin("watchdog", self._watch),
                        self._begin("housekeeping", self._keep_house),
                    ]
                    companion = self._begin("companion", self._companion)
                    for begin in self._to_begin:
                        begin()
                    self._parts.models.on_put = self._tell_cameras
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
        while self.progress.n_done < n_deliveries:
            self._finished.clear()
            await self._finished.wait()

    async def take(
        self,
        partition: str,
        *,
        fallback: int,
        oldest: int = 0,
        committed: int | None = None,
        log_id: str = "",
    ) -> int:
        """See ``PartitionOwner``."""
        held = self._held.get(partition)
        if held is not None and held.tenure.is_held and log_id in {"", held.tenure.log_id}:
            held.tenure.resume()
            self._log.info("partition.kept", partition=partition)
            return held.tenure.next_to_read
        await self.give_back(partition)
        past = await self._journal.take(partition)
        is_log_new = bool(past.log_id and log_id) and past.log_id != log_id
        known = None if is_log_new else past.next_offset
        # A journal of this host alone does not know what others of the group have done since.
        is_behind = committed is not None and known is not None and committed > known
        if is_behind:
            known = committed
        next_offset = known if known is not None else oldest if is_log_new else fallback
        first = next_offset if is_log_new or is_behind else past.first_offset(next_offset)
        self._log.info(
            "partition.taken", partition=partition, step=past.number, first_offset=first
        )
        mine = self._served_by()
        if past.served_by and _differ(past.served_by, mine):
            self._log.warning(
                "partition.other_model", partition=partition, before=past.served_by, now=mine
            )
        if is_log_new:
            self._log.warning("partition.made_anew", partition=partition, before=past.next_offset)
        if is_behind:
            self._log.warning("partition.went_on", partition=partition, before=past.next_offset)
        holding = _Holding(
            Tenure(
                partition,
                self._journal,
                number=past.number,
                next_offset=next_offset,
                first_offset=first,
                log_id=log_id or past.log_id,
                limits=self._steps,
                on_kept=partial(self._on_kept, partition),
                served_by=self._served_by,
            ),
            next_offset=known or 0,
            cameras={},
        )
        await holding.tenure.open()
        self._held[partition] = holding
        self._when_serving(
            partial(self._open_partition, holding, past, is_over=is_log_new or is_behind)
        )
        return first

    def _served_by(self) -> str:
        return f"{self._parts.models.current.spec.model_id} on {_HOST}"

    async def hold(self, partition: str) -> None:
        """See ``PartitionOwner``; what cannot be kept by the drain deadline is left undone."""
        held = self._held.get(partition)
        if held is None:
            return
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                await held.tenure.hold()
        except StaleOwnerError:
            await self._lose(partition)
        except TimeoutError:
            self._log.warning("daemon.drain_timeout", partition=partition)
            await self.give_back(partition)
        except asyncio.CancelledError:  # the source may be less patient than we are
            self._forget(partition)
            raise

    async def give_back(self, partition: str) -> None:
        """See ``PartitionOwner``."""
        if partition in self._held:
            self._forget(partition)
        await self._journal.give_back(partition)

    def _forget(self, partition: str) -> None:
        holding = self._held.pop(partition)
        holding.tenure.end()
        if self._flow.is_paused(partition):
            self._metrics.paused_partitions.dec()
            self._source.resume(partition)
        self._flow.forget(partition)
        for camera in holding.cameras.values():
            camera.end(at_once=True)

    async def _lose(self, partition: str) -> None:
        """Another process owns the partition; nobody hears of what we had in hand."""
        self._log.warning("partition.lost", partition=partition)
        self._metrics.lost_partitions.inc()
        self._source.renounce(partition)
        await self.give_back(partition)

    def _when_serving(self, begin: Callable[[], None]) -> None:
        if self._group is None:
            self._to_begin.append(begin)
        else:
            begin()

    def _open_partition(self, holding: _Holding, past: Past, *, is_over: bool) -> None:
        tenure = holding.tenure
        if tenure.is_over:
            return
        self._begin(f"steps of {tenure.partition}", partial(self._keep_steps, tenure))
        # All at once: one that sends nothing any more may have events that are open.
        for name, left in past.cameras.items():
            self._open_camera(holding, name, Beginning(left, holding.next_offset, is_over))

    async def _keep_steps(self, tenure: Tenure) -> None:
        try:
            await tenure.serve()
        except StaleOwnerError:
            held = self._held.get(tenure.partition)
            if held is not None and held.tenure is tenure:  # else it was given back already
                await self._lose(tenure.partition)

    def _on_kept(self, partition: str, step: Step, n_deliveries: int) -> None:
        """A step is kept: count what is in it."""
        now_us = self._parts.clock.unix_us()
        for revision in step.revisions:
            self._metrics.events.labels(revision.camera, revision.phase.value).inc()
            if revision.anchor_us is not None:
                latency_s = (now_us - revision.anchor_us - revision.decided_us) / 1e6
                self._metrics.event_latency_seconds.observe(max(latency_s, 0))
        self._metrics.steps.inc()
        self._source.reached(partition, step.next_offset)
        self.progress.n_done += n_deliveries
        self._finished.set()

    def _cameras(self) -> Iterator[Camera]:
        for holding in self._held.values():
            yield from holding.cameras.values()

    def _tell_cameras(self) -> None:
        for camera in self._cameras():
            camera.tell(Notice.TAKE_OVER)

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
        cameras = sorted(self._cameras(), key=lambda camera: camera.name)
        return is_ready, {
            "ready": is_ready,
            "draining": self.progress.draining,
            "cameras": {camera.name: {"queued": camera.depth} for camera in cameras},
        }

    def _begin(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        if self._group is None:
            raise AssertionError("tasks begin while the daemon serves")
        return self._group.create_task(self._not_in_silence(name, work), name=name)

    async def _not_in_silence(self, name: str, work: Callable[[], Awaitable[R]]) -> R:
        """Do ``work``, which only the daemon itself may cancel; log any other cancellation."""
        try:
            with own_cancellation(name):
                return await work()
        except ForeignCancellationError as error:
            self._log.error("task.lost", task=name, reason=str(error))
            raise

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
                self._hand_out(delivery)
                coming = asyncio.create_task(self._next(deliveries))
        finally:
            left: set[asyncio.Task[Any]] = {coming, stopped}
            for waiting in left:
                waiting.cancel()
            await asyncio.wait(left)

    async def _next(self, deliveries: AsyncIterator[Delivery]) -> Delivery | None:
        return await self._not_in_silence("source", lambda: anext(deliveries, None))

    def _hand_out(self, delivery: Delivery) -> None:
        partition = delivery.position.partition
        holding = self._held.get(partition)
        if holding is None or holding.tenure.is_held:  # revoked while it was on its way
            return
        delivery = self._admitted(delivery, holding)
        holding.tenure.begin(delivery.position.offset)
        camera = holding.cameras.get(delivery.camera)
        if camera is None:
            beginning = Beginning(None, holding.next_offset)
            camera = self._open_camera(holding, delivery.camera, beginning)
        camera.put(delivery)
        self._metrics.queued_chunks.labels(camera.name).set(camera.depth)
        if self._flow.queued(partition, camera.name, camera.depth):
            self._source.pause(partition)
            self._metrics.paused_partitions.inc()
            self._log.debug("partition.paused", partition=partition)

    def _admitted(self, delivery: Delivery, holding: _Holding) -> Delivery:
        """The delivery, refused if its camera is one too many; names come from outside."""
        most = self._limits.most
        n_admitted = sum(camera.name != REFUSED_CAMERAS for camera in self._cameras())
        if delivery.camera in holding.cameras or n_admitted < most or self._makes_room():
            return delivery
        error = RefusedChunkError(
            f"camera {delivery.camera!r} is one more than max_cameras ({most})"
        )
        return replace(
            delivery,
            camera=REFUSED_CAMERAS,
            chunk=None,
            error=error,
            payload=delivery.own_bytes,
        )

    def _makes_room(self) -> bool:
        """Let a camera go of which nothing could be used: anybody can make names up."""
        for holding in self._held.values():
            for camera in holding.cameras.values():
                if camera.is_spare and camera.name != REFUSED_CAMERAS:
                    camera.end()
                    del holding.cameras[camera.name]
                    self._metrics.forget(camera.name)
                    return True
        return False

    def _open_camera(self, holding: _Holding, name: str, beginning: Beginning) -> Camera:
        past = beginning.past
        watch = CameraWatch(
            camera=name,
            partition=holding.tenure.partition,
            owner=self._statuses.owner,
            interval_s=self._limits.status_interval_s,
            silent_since_us=None if past is None else past.state.silent_since_us,
        )
        worker = StreamWorker(name, self._parts, beginning)
        camera = Camera(worker, holding.tenure, watch, self._statuses)
        holding.cameras[name] = camera
        task = self._begin(f"camera {name}", partial(self._work, camera))
        self._camera_tasks.add(task)
        task.add_done_callback(self._camera_tasks.discard)
        return camera

    async def _work(self, camera: Camera) -> None:
        """Empty one camera's queue until told that nothing follows."""
        try:
            await camera.finish(await camera.worker.begin())
            while (item := await camera.next()) is not Notice.END:
                self.progress.busy += 1
                try:
                    await camera.work_on(item)
                finally:
                    self.progress.busy -= 1
                self._took(camera)
        finally:
            camera.worker.close()

    def _took(self, camera: Camera) -> None:
        """A camera has one chunk less in its queue."""
        if camera.tenure.is_over:  # the partition may be ours again, with a camera of this name
            return
        partition = camera.tenure.partition
        self._metrics.queued_chunks.labels(camera.name).set(camera.depth)
        if self._flow.taken(partition, camera.name, camera.depth):
            self._source.resume(partition)
            self._metrics.paused_partitions.dec()
            self._log.debug("partition.resumed", partition=partition)

    async def _drain(self) -> None:
        """Let every camera finish what it was given, and keep it, up to the deadline."""
        self.progress.draining = True
        self._notifier.stopping()
        n_waiting = sum(camera.depth for camera in self._cameras())
        self._log.info("daemon.draining", chunks=n_waiting)
        for camera in self._cameras():
            camera.end()
        if self._camera_tasks:
            _, late = await asyncio.wait(set(self._camera_tasks), timeout=self._drain_timeout_s)
            if late:
                self._log.warning("daemon.drain_timeout", cameras=len(late))
            for task in late:
                task.cancel()
        settling = [
            self._begin(f"last step of {partition}", partial(self._settle, partition))
            for partition in self._held
        ]
        if settling:
            await asyncio.wait(settling)

    async def _settle(self, partition: str) -> None:
        await self.hold(partition)
        await self.give_back(partition)

    async def _keep_house(self) -> None:
        """Tell cameras that send nothing any more, and forget them after a long time."""
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        while True:
            await asyncio.sleep(self._limits.look_s)
            # A process that was stopped for a while has heard of nothing meanwhile.
            passed_s = min(loop.time() - before_s, 2 * self._limits.look_s)
            before_s = loop.time()
            for partition, holding in self._held.items():
                if holding.tenure.is_held:
                    continue
                could_send_s = passed_s if self._source.is_caught_up(partition) else 0
                for camera in list(holding.cameras.values()):
                    camera.pass_time(could_send_s, self._limits)
                    if camera.is_forgotten:
                        del holding.cameras[camera.name]
                    else:
                        camera.tell_status()

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


def _differ(before: str, now: str) -> bool:
    """True if another model on another host has served a partition: they may share one group."""
    (model, _, host), (my_model, _, my_host) = before.partition(" on "), now.partition(" on ")
    return model.partition("@")[0] != my_model.partition("@")[0] and host != my_host


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error inside nested groups; the exit code is chosen by it."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
