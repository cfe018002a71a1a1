"""The partitions that are ours: taken, held through rebalances, given back; and their cameras.

Each delivery goes into its camera's queue, which a task of that camera empties. The queues are
short, and a full one pauses its partition. What follows from a delivery goes into the next step of
its partition's ``Tenure``.

When a model takes over, every camera is told. A camera without a chunk in hand goes over to it at
once, any other one after its chunk.
"""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from daemon.cameras import Camera, CameraLimits, Notice, StatusParts
from daemon.errors import StaleOwnerError
from daemon.holdings import Holding, Holdings
from daemon.journal.base import Journal, Owner, Past, Step
from daemon.sources.base import ChunkSource, Delivery
from daemon.stream.beginning import Beginning
from daemon.stream.flow import FlowControl
from daemon.stream.guard import GuardedWorker
from daemon.stream.kept import tell_kept
from daemon.stream.roll_call import RollCall
from daemon.stream.stages import WorkerParts
from daemon.stream.status import CameraWatch
from daemon.stream.takeover import Takeover, is_other_model, take_over
from daemon.stream.tenure import StepLimits, Tenure
from daemon.tasks import Tasks

_HOST = socket.gethostname()

# Shares of the drain deadline; the rest is for letting go of everything.
_CAMERAS_SHARE, _LAST_STEP_SHARE = 0.6, 0.2


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


@dataclass(frozen=True, slots=True)
class Serving:
    """How partitions are served.

    Attributes:
        drain_timeout_s: Seconds to finish what was begun.
        steps: When steps go to the journal.
        cameras: How many cameras there may be, and when one is silent or forgotten.
        instance: The daemon's name in its consumer group; None: it has none.
    """

    drain_timeout_s: float
    steps: StepLimits = field(default_factory=StepLimits)
    cameras: CameraLimits = field(default_factory=CameraLimits)
    instance: str | None = None


class Partitions:
    """Owns the partitions that a source reads.

    Args:
        source: Where chunks come from.
        journal: Keeps what follows from them; already started.
        parts: What all cameras share.
        flow: When to pause a partition.
        tasks: Begins the tasks of cameras and partitions.
        serving: How they are served.

    Attributes:
        progress: How far they are.
    """

    def __init__(
        self,
        source: ChunkSource,
        journal: Journal,
        parts: WorkerParts,
        flow: FlowControl,
        tasks: Tasks,
        serving: Serving,
    ) -> None:
        self.progress = Progress()
        self._source = source
        self._journal = journal
        self._parts = parts
        self._flow = flow
        self._tasks = tasks
        self._drain_timeout_s = serving.drain_timeout_s
        self._steps = serving.steps
        self._limits = serving.cameras
        self._metrics = parts.metrics
        self._log = parts.log
        self._held = Holdings(serving.cameras.most, parts.metrics, parts.log)
        self._camera_tasks: set[asyncio.Task[None]] = set()  # also of cameras that were given up
        self._statuses = StatusParts(
            Owner(_HOST, serving.instance), parts.clock, source.n_behind, parts.metrics, parts.log
        )
        self._roll_call = RollCall(parts.log)
        self._finished = asyncio.Event()

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
        held = self._held.of(partition)
        if held is not None and held.tenure.is_held and log_id in {"", held.tenure.log_id}:
            held.tenure.resume()
            self._log.info("partition.kept", partition=partition)
            return held.tenure.next_to_read
        await self.give_back(partition)
        past = await self._journal.take(partition)
        begins = take_over(
            past, fallback=fallback, oldest=oldest, committed=committed, log_id=log_id
        )
        self._tell_taken(partition, past, begins)
        holding = Holding(
            Tenure(
                partition,
                self._journal,
                number=past.number,
                next_offset=begins.next_offset,
                first_offset=begins.first_offset,
                log_id=log_id or past.log_id,
                limits=self._steps,
                on_kept=partial(self._on_kept, partition),
                served_by=self._served_by,
            ),
            next_offset=begins.known_offset,
            cameras={},
        )
        await holding.tenure.open()
        self._held.add(holding)
        self._tasks.when_serving(
            partial(self._open_partition, holding, past, is_over=begins.is_past_over)
        )
        return begins.first_offset

    def _tell_taken(self, partition: str, past: Past, begins: Takeover) -> None:
        log = self._log.bind(partition=partition)
        log.info("partition.taken", step=past.number, first_offset=begins.first_offset)
        mine = self._served_by()
        if past.served_by and is_other_model(past.served_by, mine):
            log.warning("partition.other_model", before=past.served_by, now=mine)
        if begins.is_log_new:
            log.warning("partition.made_anew", before=past.next_offset)
        if begins.is_behind:
            log.warning("partition.went_on", before=past.next_offset)

    def _served_by(self) -> str:
        return f"{self._parts.models.current.spec.model_id} on {_HOST}"

    async def hold(self, partition: str) -> None:
        """See ``PartitionOwner``; what cannot be kept by the drain deadline is left undone."""
        held = self._held.of(partition)
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
        self._forget(partition)
        await self._journal.give_back(partition)

    def _forget(self, partition: str) -> None:
        holding = self._held.remove(partition)
        if holding is None:
            return
        holding.end()
        if self._flow.is_paused(partition):
            self._metrics.paused_partitions.dec()
            self._source.resume(partition)
        self._resume(self._flow.forget(partition))
        for camera in holding.cameras.values():
            camera.end(at_once=True)
            camera.hide()
        self._metrics.release(self._held.known_no_more(holding.cameras))

    async def _lose(self, partition: str) -> None:
        """Another process owns the partition; nobody hears of what we had in hand."""
        self._log.warning("partition.lost", partition=partition)
        self._metrics.lost_partitions.inc()
        self._source.renounce(partition)
        await self.give_back(partition)

    def _open_partition(self, holding: Holding, past: Past, *, is_over: bool) -> None:
        tenure = holding.tenure
        if tenure.is_over:
            return
        holding.keeping = self._tasks.begin(
            f"steps of {tenure.partition}", partial(self._keep_steps, tenure)
        )
        # All at once: one that sends nothing any more may have events that are open.
        for name, left in past.cameras.items():
            self._open_camera(holding, name, Beginning(left, holding.next_offset, is_over))

    async def _keep_steps(self, tenure: Tenure) -> None:
        try:
            await tenure.serve()
        except StaleOwnerError:
            held = self._held.of(tenure.partition)
            if held is not None and held.tenure is tenure:  # else it was given back already
                await self._lose(tenure.partition)

    def _on_kept(self, partition: str, step: Step, n_deliveries: int) -> None:
        """A step is kept: count what is in it."""
        tell_kept(step, self._metrics, self._log, self._parts.clock.unix_us())
        self._source.reached(partition, step.next_offset)
        self.progress.n_done += n_deliveries
        self._finished.set()

    def cameras(self) -> Iterator[Camera]:
        """All that there are, partition by partition; any thread may ask."""
        return self._held.cameras()

    def tell_cameras(self) -> None:
        """Another model is current."""
        for camera in self._held.cameras():
            camera.tell(Notice.TAKE_OVER)

    def hand_out(self, delivery: Delivery) -> None:
        """Queue a delivery for its camera."""
        partition = delivery.position.partition
        holding = self._held.of(partition)
        if holding is None or holding.tenure.is_held:  # revoked while it was on its way
            return
        delivery = self._held.admitted(delivery, holding)
        holding.tenure.begin(delivery.position.offset)
        camera = holding.cameras.get(delivery.camera)
        if camera is None:
            beginning = Beginning(None, holding.next_offset)
            camera = self._open_camera(holding, delivery.camera, beginning)
        if not camera.is_shown:
            self._held.show_alone(camera)
        camera.put(delivery)
        self._metrics.queued_chunks.labels(camera.name).set(camera.depth)
        n_bytes = len(delivery.own_bytes)
        must_pause = self._flow.queued(partition, camera.name, camera.depth, n_bytes)
        self._metrics.queued_bytes.set(self._flow.n_bytes)
        if must_pause:
            self._source.pause(partition)
            self._metrics.paused_partitions.inc()
            self._log.debug("partition.paused", partition=partition)

    def _open_camera(self, holding: Holding, name: str, beginning: Beginning) -> Camera:
        past = beginning.past
        watch = CameraWatch(
            camera=name,
            partition=holding.tenure.partition,
            owner=self._statuses.owner,
            interval_s=self._limits.status_interval_s,
            silent_since_us=None if past is None else past.state.silent_since_us,
            late_after_s=self._limits.late_after_s,
        )
        worker = GuardedWorker(name, self._parts, beginning)
        camera = Camera(worker, holding.tenure, watch, self._statuses)
        holding.cameras[name] = camera
        self._held.show_alone(camera)
        task = self._tasks.begin(f"camera {name}", partial(self._work, camera))
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
                self._took(camera, item)
        finally:
            camera.worker.close()

    def _took(self, camera: Camera, item: Delivery | Notice) -> None:
        """A camera has one chunk less in its queue."""
        if camera.is_gone:  # the partition may be ours again, with a camera of this name
            return
        self._metrics.queued_chunks.labels(camera.name).set(camera.depth)
        n_bytes = len(item.own_bytes) if isinstance(item, Delivery) else 0
        partition = camera.tenure.partition
        self._resume(self._flow.taken(partition, camera.name, camera.depth, n_bytes))

    def _resume(self, partitions: list[str]) -> None:
        self._metrics.queued_bytes.set(self._flow.n_bytes)
        for partition in partitions:
            self._source.resume(partition)
            self._metrics.paused_partitions.dec()
            self._log.debug("partition.resumed", partition=partition)

    async def drain(self) -> None:
        """Let every camera finish what it was given, and keep it, up to the deadline.

        The deadline is that of the whole end, so each part of it has its share.
        """
        for camera in self._held.cameras():
            camera.end()
        if self._camera_tasks:
            _, late = await asyncio.wait(
                set(self._camera_tasks), timeout=_CAMERAS_SHARE * self._drain_timeout_s
            )
            if late:
                self._log.warning("daemon.drain_timeout", cameras=len(late))
            for task in late:
                task.cancel()
        settling = [
            self._tasks.begin(f"last step of {partition}", partial(self._settle, partition))
            for partition in (holding.tenure.partition for holding in self._held)
        ]
        if settling:
            await asyncio.wait(settling)

    async def _settle(self, partition: str) -> None:
        try:
            async with asyncio.timeout(_LAST_STEP_SHARE * self._drain_timeout_s):
                await self.hold(partition)
        except TimeoutError:
            self._log.warning("daemon.drain_timeout", partition=partition)
        await self.give_back(partition)

    async def keep_house(self) -> None:
        """Tell cameras that send nothing any more, and forget them after a long time."""
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        while True:
            await asyncio.sleep(self._limits.look_s)
            # A process that was stopped for a while has heard of nothing meanwhile.
            passed_s = min(loop.time() - before_s, 2 * self._limits.look_s)
            before_s = loop.time()
            for holding in self._held:
                if holding.tenure.is_held:
                    continue
                partition = holding.tenure.partition
                is_blind = self._source.is_blind(partition)
                could_send_s = passed_s if self._source.is_caught_up(partition) else 0
                for camera in list(holding.cameras.values()):
                    if is_blind:
                        camera.lose_sight()
                    camera.pass_time(could_send_s, self._limits)
                    if camera.is_forgotten:
                        self._held.drop(camera)
                    else:
                        camera.tell_status()
            shown = [camera.shown for camera in self._held.cameras()]
            self._roll_call.tell([status for status in shown if status], loop.time())
