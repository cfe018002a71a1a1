"""One row's topics, cameras, daemons and onlooker, from the first chunk to the verdict."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.faults.checker import Evidence, Verdict, check
from tests.faults.cluster import (
    CHUNK_PARTITIONS,
    EVENT_PARTITIONS,
    Cluster,
    Observer,
    gets_there,
)
from tests.faults.daemons import (
    PATIENCE_S,
    SESSION_S,
    Daemon,
    Place,
    RowError,
    make_other_topics,
)
from tests.faults.feeder import Feeder, Footage, KafkaLink, cameras_over
from tests.faults.undisturbed import Undisturbed

# A transaction that a dead daemon left open hides what follows it until its time is out (10 s) and
# the broker, which looks for such now and then, has ended it.
HIDDEN_S = 25.0
# A group that commits nothing for so long will not: it has outlived two sessions and a restart.
STUCK_S = 45 + 2 * SESSION_S


@dataclass(frozen=True, slots=True)
class Rig:
    """What all rows share.

    Attributes:
        cluster: The broker.
        bundle: Folder of the tiny model.
        footage: What cameras show.
        undisturbed: Knows what should be told.
        folder: Where rows leave their logs.
        is_full: Rows in full size: hundreds of faults.
    """

    cluster: Cluster
    bundle: Path
    footage: Footage
    undisturbed: Undisturbed
    folder: Path
    is_full: bool = False

    def size(self, short: int, full: int) -> int:
        """How many rounds, say."""
        return full if self.is_full else short


@dataclass(slots=True)
class RowResult:
    """What a row showed.

    Attributes:
        row: Its number in the table of faults.
        fault: What was done, in a few words.
        injected: How many faults.
        stall_bound_s: How long a partition may stand still; None: this is not judged.
        verdict: What the checker counted.
        seconds: How long the row took.
        notes: What else was seen.
        complaints: What else was wrong: rules that this row has beyond those of all rows.
        expects_failure: The row shows that the checker finds what must not work.
    """

    row: int
    fault: str
    injected: int
    stall_bound_s: float | None
    verdict: Verdict
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expects_failure: bool = False

    @property
    def broken(self) -> list[str]:
        """Rules that do not hold."""
        return [*self.verdict.broken(self.stall_bound_s), *(["row"] if self.complaints else [])]

    @property
    def passed(self) -> bool:
        return bool(self.broken) == self.expects_failure


class Trial:
    """A group of daemons over topics of its own.

    Attributes:
        rig: What all rows share.
        place: What its daemons share.
        feeder: Its cameras.
        observer: Looks on.
        injected: Faults so far.
        notes: See ``RowResult``.
        complaints: See ``RowResult``.
        daemons: By name.
        other_topics: Those that the daemons need besides chunks and events.
        rng: Says when faults strike; the same every time.
    """

    def __init__(self, rig: Rig, row: int, name: str, cameras: Sequence[str]) -> None:
        self.rig = rig
        self.cluster = rig.cluster
        self.cameras = list(cameras)
        self.row = row
        self.place = Place(
            rig.cluster.bootstrap, f"{name}.chunks", f"{name}.events", name, rig.bundle
        )
        self.feeder = self._a_feeder("run")
        self.observer = Observer(rig.cluster, name, self.place.chunks, self.place.events)
        self.injected = 0
        self.notes: list[str] = []
        self.complaints: list[str] = []
        self.rng = random.Random(row)  # noqa: S311 - reproducible moments, no secret
        self.daemons: dict[str, Daemon] = {}
        self.other_topics: set[str] = set()
        self.folder = rig.folder / name
        self._began_s = time.monotonic()
        self._stack = AsyncExitStack()
        self._feeding = AsyncExitStack()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Trial"]:
        """Topics and onlooker are there; nothing that was started outlives the block."""
        self.folder.mkdir()
        await self.cluster.make_topic(self.place.chunks, CHUNK_PARTITIONS)
        await self.cluster.make_topic(self.place.events, EVENT_PARTITIONS)
        before = await self.cluster.topics()
        await asyncio.to_thread(make_other_topics, self.place, self.folder)
        self.other_topics = await self.cluster.topics() - before
        try:
            async with self._stack:
                await self._stack.enter_async_context(self.observer.looking_on())
                await self._stack.enter_async_context(self._feeding)
                yield self
        finally:
            for daemon in self.daemons.values():
                daemon.destroy()

    def daemon(self, name: str, *, is_cuttable: bool = False, **source: Any) -> Daemon:
        """A member of the group, not started, with an empty folder of its own.

        Args:
            name: Of its folder.
            is_cuttable: It reaches the broker over the network that can be cut.
            source: More keys of its configuration's ``source``.
        """
        place = self.place
        if is_cuttable:
            place = replace(place, bootstrap=f"127.0.0.1:{self.cluster.network.port}")
        self.daemons[name] = Daemon(place, self.folder / name, **source)
        return self.daemons[name]

    async def begin(self, *names: str, **source: Any) -> list[Daemon]:
        """Start daemons, and when they are ready the cameras."""
        daemons = [self.daemon(name, **source) for name in names]
        for daemon in daemons:
            daemon.start()
        for daemon in daemons:
            await daemon.ready()
        await self.begin_to_feed()
        return daemons

    async def begin_to_feed(self) -> None:
        await self._feeding.enter_async_context(self.feeder.running())

    async def end_feeding(self) -> None:
        """End all runs, and wait until every chunk is acknowledged."""
        await self._feeding.aclose()

    async def feed_anew(self, make_topic: Callable[[], Awaitable[None]]) -> None:
        """Cameras stop without an end mark, and begin new runs when the topic is made anew."""
        self.feeder.abandon()
        await self._feeding.aclose()
        await make_topic()
        self.observer.forget_offsets()
        self.feeder = self._a_feeder("anew")
        await self.begin_to_feed()

    def _a_feeder(self, name: str) -> Feeder:
        link = KafkaLink(self.place.bootstrap, self.place.chunks)
        return Feeder(link, self.rig.footage, self.cameras, name=name)

    async def play(self, seconds: float) -> None:
        """Let cameras run on; more time makes more events, and no rule depends on it."""
        await asyncio.sleep(seconds)

    async def progress(self, seconds: float = 0.0) -> None:
        """Wait until every partition that is behind has moved on once more."""
        marks = {p: len(self.observer.committed[p]) for p in self.feeder.acknowledged}
        await self.until(
            lambda: all(len(self.observer.committed[p]) > n for p, n in marks.items()),
            "every partition to move on",
        )
        await self.play(seconds)

    async def get_through(self) -> None:
        """Wait until all is committed that is acknowledged now; cameras may run on."""
        ends = {p: marks[-1].offset for p, marks in self.feeder.acknowledged.items()}
        committed = self.observer.committed
        await self.until(
            lambda: all(
                committed[p] and committed[p][-1].offset >= end for p, end in ends.items()
            ),
            "the backlog to be read",
        )

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for what must happen."""
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > end_s:
                raise RowError(f"waited in vain for {what}; logs: {self.folder}")
            await asyncio.sleep(0.05)

    async def _progress(self) -> tuple[bool, int]:
        done = sum(marks[-1].offset for marks in self.observer.committed.values() if marks)
        return self.is_caught_up(), done

    def is_caught_up(self) -> bool:
        """True if the group has committed all that is acknowledged."""
        return all(
            (done := self.observer.committed[partition]) and done[-1].offset >= marks[-1].offset
            for partition, marks in self.feeder.acknowledged.items()
        )

    async def finish(
        self,
        fault: str,
        stall_bound_s: float | None,
        *,
        excused: Sequence[str] = (),
        wanted_of: Any = None,
        compares: bool = True,
        look: Callable[["Trial"], Awaitable[None]] | None = None,
    ) -> RowResult:
        """End all runs, wait until everything is told, stop the daemons, and judge.

        Args:
            fault: What was done, in a few words.
            stall_bound_s: See ``RowResult``.
            excused: Cameras that P5 does not judge.
            wanted_of: Records to show the undisturbed daemon, instead of the topic's.
            compares: False: P5 is not judged.
            look: Told when all is told and daemons still run: for rules of the row's own.
        """
        await self.end_feeding()
        if not await gets_there(self._progress, STUCK_S):
            self.notes.append(f"nothing committed for {STUCK_S:g} s, and chunks are left")
        ended_s = asyncio.get_running_loop().time()
        if look is not None:
            await look(self)
        await self._stop_daemons()
        if not await self.observer.read_to_the_end(HIDDEN_S):
            self.complaints.append(f"a transaction hides records for more than {HIDDEN_S:g} s")
        chunks = self.place.chunks if wanted_of is None else wanted_of
        wanted = await self.rig.undisturbed.finals(chunks, excused) if compares else None
        verdict = check(
            Evidence(
                effects=self.observer.effects,
                acknowledged=self.feeder.acknowledged,
                committed=self.observer.committed,
                ended_s=ended_s,
                wanted=wanted,
                excused=frozenset(excused),
            )
        )
        return RowResult(
            row=self.row,
            fault=fault,
            injected=self.injected,
            stall_bound_s=stall_bound_s,
            verdict=verdict,
            seconds=time.monotonic() - self._began_s,
            notes=self.notes,
            complaints=self.complaints,
        )

    def so_far(self) -> Verdict:
        """What the checker would count now, with nothing to compare with."""
        return check(
            Evidence(
                effects=self.observer.effects,
                acknowledged=self.feeder.acknowledged,
                committed=self.observer.committed,
                ended_s=asyncio.get_running_loop().time(),
                wanted=None,
            )
        )

    async def _stop_daemons(self) -> None:
        for daemon in self.daemons.values():
            if daemon._process is not None and daemon.status() is None:
                status = await daemon.stop()
                if status != 0:
                    self.notes.append(f"{daemon.name} exited with {status} when stopped")
            elif daemon.has_ended_unasked():
                self.notes.append(f"{daemon.name} ended by itself: {daemon.status()}")
            if daemon.exits:
                self.notes.append(f"{daemon.name} ended by itself: {daemon.exits}")


@asynccontextmanager
async def a_trial(
    rig: Rig, row: int, cameras: Sequence[str] | None = None
) -> AsyncIterator[Trial]:
    """A row's trial, whose topics and group have names of their own."""
    name = f"row-{row}-{time.time_ns() % 10**9}"
    trial = Trial(rig, row, name, cameras or cameras_over(CHUNK_PARTITIONS))
    async with trial.running():
        try:
            yield trial
        except RowError as error:
            error.verdict, error.injected = trial.so_far(), trial.injected
            error.notes = (*trial.complaints, *trial.notes)
            raise
