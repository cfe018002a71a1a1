"""A camera of the daemon: its queue, what is told to it besides chunks, and its silence."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import structlog

from daemon.clock import Clock
from daemon.journal.base import CameraStatus, Condition, Owner, Presence
from daemon.metrics import Metrics
from daemon.sources.base import Delivery
from daemon.stream.gauges import CameraGauges
from daemon.stream.guard import GuardedWorker
from daemon.stream.roll_call import tell_change
from daemon.stream.status import CameraWatch, StreamFacts
from daemon.stream.steps import Outcome
from daemon.stream.tenure import Tenure
from daemon.wire.headers import rfc3339


class Notice(Enum):
    """What a camera's queue holds besides deliveries."""

    TAKE_OVER = "another model is current"
    SILENT = "the camera has sent nothing for a while"
    FORGET = "it has sent nothing for a long time"
    END = "nothing follows"


@dataclass(frozen=True, slots=True)
class CameraLimits:
    """How many cameras there may be, and when one is silent or forgotten.

    Time counts only while nothing of the camera's partition waits to be read, so that neither a
    slow daemon nor a lost broker makes cameras silent.

    Attributes:
        most: Chunks of further cameras are refused.
        silent_after_s: Without chunks for so long, a camera's open events get their last word.
        forget_after_s: Without chunks for so long, its name and all that is known of it go.
        look_s: How often that is looked at.
        status_interval_s: How often a camera's status is told if nothing happens.
        late_after_s: A camera that is so far behind is late.
    """

    most: int = 512
    silent_after_s: float = 30.0
    forget_after_s: float = 7 * 86_400.0
    look_s: float = 1.0
    status_interval_s: float = 30.0
    late_after_s: float = 10.0


@dataclass(frozen=True, slots=True)
class StatusParts:
    """What the statuses of all cameras share.

    Attributes:
        owner: This daemon.
        clock: Dates them.
        n_behind: Partition → how many of its records were not read yet, if that is known.
        metrics: Shows what they say.
        log: Changes of cameras are logged here.
    """

    owner: Owner
    clock: Clock
    n_behind: Callable[[str], int | None]
    metrics: Metrics
    log: structlog.stdlib.BoundLogger


@dataclass(slots=True)
class Camera:
    """A camera of one partition.

    Attributes:
        worker: Processes what is in the queue.
        tenure: Takes what follows.
        watch: Sees what happens to the camera.
        statuses: What all statuses share.
        depth: Chunks in the queue, with what takes a chunk's place.
        is_forgotten: It has been told to end and is known no more.
        is_shown: Its gauges are; of two partitions' cameras of one name, one's are.
        shown: Its newest status; any thread may read it.
    """

    worker: GuardedWorker
    tenure: Tenure
    watch: CameraWatch
    statuses: StatusParts
    is_forgotten: bool = False
    is_shown: bool = False
    shown: CameraStatus | None = None
    _queue: asyncio.Queue[Delivery | Notice] = field(default_factory=asyncio.Queue)
    _told: set[Notice] = field(default_factory=set)  # notices in the queue; one of each will do
    _is_busy: bool = False
    _quiet_s: float = 0.0
    _is_silent: bool = False
    _is_known: bool = False  # something that it has sent was used; anybody can make a name up
    _logged: CameraStatus | None = None  # as the log knows it
    _gauges: CameraGauges = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._is_silent = self.watch.silent_since_us is not None
        self._is_known = not self.worker.knows_nothing
        self._gauges = CameraGauges(self.statuses.metrics, self.name)

    @property
    def name(self) -> str:
        """The camera's name."""
        return self.worker.camera

    @property
    def depth(self) -> int:
        """Chunks in the queue, with what takes a chunk's place."""
        return self._queue.qsize() - (Notice.END in self._told)

    @property
    def is_spare(self) -> bool:
        """True if nothing that it has sent could be used, and nothing waits."""
        return self.worker.knows_nothing and self._queue.empty() and not self._is_busy

    @property
    def silent_s(self) -> float:
        """How long it has been silent, in seconds; 0: it is not, or something of it waits."""
        is_idle = self._queue.empty() and not self._is_busy
        return self._quiet_s if self._is_silent and is_idle else 0.0

    def put(self, delivery: Delivery) -> None:
        """Queue a chunk."""
        self._quiet_s, self._is_silent = 0.0, False
        self._queue.put_nowait(delivery)

    def tell(self, notice: Notice) -> None:
        """Queue a notice, if it is not queued yet."""
        if notice not in self._told:
            self._told.add(notice)
            self._queue.put_nowait(notice)

    def end(self, *, at_once: bool = False) -> None:
        """Let nothing follow what is queued, or drop that too."""
        while at_once and not self._queue.empty():
            self._queue.get_nowait()
            self._told.discard(Notice.END)
        self.tell(Notice.END)

    async def next(self) -> Delivery | Notice:
        """Wait for what comes next in the queue."""
        item = await self._queue.get()
        if isinstance(item, Notice) and item is not Notice.END:
            self._told.discard(item)
        return item

    async def work_on(self, item: Delivery | Notice) -> None:
        """Process a chunk or a notice; what follows goes to the tenure.

        Raises:
            DeviceError: The accelerator failed.
        """
        self._is_busy = True
        try:
            await self._work_on(item)
        finally:
            self._is_busy = False

    async def _work_on(self, item: Delivery | Notice) -> None:
        if isinstance(item, Delivery):
            outcome, offset = await self.worker.process(item), item.position.offset
            if outcome.state is not None or outcome.dead:  # else it was read again
                now_us = self.statuses.clock.unix_us()
                self.watch.saw_chunk(offset, now_us, is_refused=bool(outcome.dead))
            await self.finish(outcome, offset)
        elif item is Notice.TAKE_OVER:
            await self.finish(await self.worker.take_over())
        elif item is Notice.SILENT:
            outcome = await self.worker.fall_silent()
            self.watch.saw_silence(self.statuses.clock.unix_us() - int(self._quiet_s * 1e6))
            await self.finish(outcome)
        else:
            status = replace(self._status(self.worker.facts), state=Presence.FORGOTTEN)
            await self.tenure.finish(self.name, Outcome(is_forgotten=True, status=status))

    async def finish(self, outcome: Outcome, offset: int | None = None) -> None:
        """Hand what follows over to the tenure, and the camera's status if that is due."""
        state, since_us = outcome.state, self.watch.silent_since_us
        self._is_known = self._is_known or state is not None
        if state is not None and since_us is not None:
            outcome = replace(outcome, state=replace(state, silent_since_us=since_us))
        outcome = replace(outcome, status=self._due_status())
        await self.tenure.finish(self.name, outcome, offset)

    def tell_status(self) -> None:
        """Hand the camera's status over to the tenure if that is due."""
        status = self._due_status()
        if status is not None:
            self.tenure.note(self.name, Outcome(status=status))

    @property
    def is_gone(self) -> bool:
        """True if the camera is another daemon's or nobody's: nothing of it may be shown."""
        return self.tenure.is_over or self.is_forgotten

    def hide(self) -> None:
        """Show nothing of the camera any more, until ``is_shown`` again."""
        self.is_shown, self.shown = False, None
        self._gauges.hide()

    def report(self) -> dict[str, Any]:
        """How the camera is, for /readyz; any thread may ask."""
        status, depth = self.shown, self.depth
        if status is None:
            return {"queued": depth}
        return {
            "queued": depth,
            "state": status.condition.value,
            "lag_s": None if status.lag_s is None else round(status.lag_s, 3),
            "last_frame": rfc3339(status.last_frame_us),
            "last_chunk": rfc3339(status.last_chunk_us),
            "fps": None if status.fps is None else round(status.fps, 2),
            "snippets_per_minute": status.snippets_per_minute,
            "degraded": list(status.degraded),
            "rung": status.rung.value,
        }

    def _show(self, status: CameraStatus, n_open: int) -> None:
        if self.is_gone or not self.is_shown:
            return
        if status.condition is Condition.SILENT and not self._is_known:
            self._gauges.hide()  # whoever made the name up has gone
            self.shown = None
            return
        self._gauges.show(status, n_open)
        if self._is_known:
            tell_change(self.statuses.log, self._logged, status)
            self._logged = status
        self.shown = status

    def _due_status(self) -> CameraStatus | None:
        facts = self.worker.facts
        status = self._status(facts)
        self._show(status, facts.n_open)
        if not self._is_known:
            return None
        is_due = self.watch.is_due(status, self.statuses.clock.monotonic_s())
        return status if is_due else None

    def _status(self, facts: StreamFacts) -> CameraStatus:
        return self.watch.status(
            facts,
            n_queued=self._queue.qsize(),
            n_behind=self.statuses.n_behind(self.tenure.partition),
            at_us=self.statuses.clock.unix_us(),
        )

    def pass_time(self, passed_s: float, limits: CameraLimits) -> None:
        """Take note of time in which the camera could have sent something.

        Args:
            passed_s: How much of it, in seconds.
            limits: How much is too much.
        """
        if self._is_busy or not self._queue.empty():
            return
        self._quiet_s += passed_s
        if not self._is_silent and self._quiet_s >= limits.silent_after_s:
            self._is_silent = True
            self.tell(Notice.SILENT)
        elif self._quiet_s >= limits.forget_after_s:
            self.let_go()

    def lose_sight(self) -> None:
        """Nobody can look for what it sends: how long it has sent nothing is counted anew.

        For some of the time that was counted already, until that was noticed, nobody could; and
        whoever sends needs a while, too, to find a broker that is back.
        """
        if not self._is_silent:
            self._quiet_s = 0.0

    def let_go(self) -> None:
        """Forget the camera, with all that is kept of it."""
        self.tell(Notice.FORGET)
        self.end()
        self.is_forgotten = True
