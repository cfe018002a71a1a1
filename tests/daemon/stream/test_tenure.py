"""A partition's tenure: when steps go, and that nothing is kept before or after its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from daemon.errors import StaleOwnerError, TransportError
from daemon.journal.base import CameraState, DeadLetter, Step
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.stream.steps import Outcome
from daemon.stream.tenure import StepLimits, Tenure
from tests.support.records import an_event

NEVER = StepLimits(interval_s=3600, most_deliveries=1000, most_waiting=2000)
EVENT = Outcome((an_event(),))
QUIET = Outcome(state=CameraState(b""))


class HeldJournal(MemoryJournal):
    """Keeps a step only when it may; then as told."""

    def __init__(self, records: MemoryRecords | None = None) -> None:
        super().__init__(records)
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.asked: list[Step] = []
        self.fault: Exception | None = None

    @override
    async def commit(self, partition: str, step: Step) -> None:
        self.asked.append(step)
        await self.may_commit.wait()
        if self.fault is not None:
            raise self.fault
        await super().commit(partition, step)


class Rig:
    """A tenure and its journal; ``put`` hands a delivery out and finishes it."""

    def __init__(self, limits: StepLimits) -> None:
        self.journal = HeldJournal()
        self.kept: list[tuple[Step, int]] = []
        self.tenure = Tenure(
            "p",
            self.journal,
            number=0,
            next_offset=0,
            first_offset=0,
            limits=limits,
            on_kept=lambda step, n_deliveries: self.kept.append((step, n_deliveries)),
        )

    async def put(self, outcome: Outcome = QUIET) -> None:
        offset = self.tenure.next_to_read
        self.tenure.begin(offset)
        await self.tenure.finish("cam", outcome, offset)

    async def until_kept(self, n_steps: int) -> None:
        async with asyncio.timeout(60):
            while len(self.kept) < n_steps:
                await asyncio.sleep(0.001)

    @property
    def n_deliveries(self) -> list[int]:
        """How many deliveries each step that was kept has finished."""
        return [n for _, n in self.kept]


@asynccontextmanager
async def a_rig(limits: StepLimits) -> AsyncIterator[Rig]:
    rig = Rig(limits)
    await rig.journal.take("p")
    serving = asyncio.create_task(rig.tenure.serve())
    yield rig
    rig.tenure.end()
    await serving


async def a_while() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


async def test_a_step_with_a_revision_goes_at_once() -> None:
    async with a_rig(NEVER) as rig:
        await rig.put()
        await a_while()
        assert [] == rig.kept
        await rig.put(EVENT)
        await rig.until_kept(1)

    ((step, n_deliveries),) = rig.kept
    assert (1, 2, (an_event(),), 2) == (
        step.number,
        step.next_offset,
        step.revisions,
        n_deliveries,
    )
    assert [an_event()] == rig.journal.records.events


async def test_a_step_without_one_goes_after_a_time() -> None:
    async with a_rig(StepLimits(interval_s=0.1)) as rig:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            began_s = loop.time()
            await rig.put()
            await rig.until_kept(len(rig.kept) + 1)
            assert loop.time() - began_s >= 0.1

    assert [1, 1] == rig.n_deliveries


async def test_the_time_counts_from_what_waits_longest() -> None:
    async with a_rig(StepLimits(interval_s=0.2)) as rig:
        async with asyncio.timeout(60):
            while not rig.kept:  # something comes again and again
                await rig.put()
                await asyncio.sleep(0.02)

    assert rig.n_deliveries[0] > 1


async def test_a_step_of_many_deliveries_goes_at_once() -> None:
    async with a_rig(StepLimits(interval_s=3600, most_deliveries=3)) as rig:
        for _ in range(2):
            await rig.put()
        await a_while()
        assert [] == rig.kept
        await rig.put()
        await rig.until_kept(1)

    assert [3] == rig.n_deliveries


async def test_what_comes_while_a_step_is_on_its_way_goes_into_the_next() -> None:
    async with a_rig(NEVER) as rig:
        rig.journal.may_commit.clear()
        await rig.put(EVENT)
        await a_while()
        for _ in range(3):
            await rig.put(EVENT)
        await a_while()
        assert 1 == len(rig.journal.asked)
        rig.journal.may_commit.set()
        await rig.until_kept(2)

    assert [1, 3] == rig.n_deliveries
    assert [(1, 1), (2, 4)] == [(step.number, step.next_offset) for step, _ in rig.kept]


async def test_an_unfinished_delivery_holds_the_offset_and_no_step() -> None:
    async with a_rig(NEVER) as rig:
        rig.tenure.begin(0)
        await rig.put(EVENT)
        await rig.until_kept(1)
        assert (0, 2) == (rig.kept[0][0].next_offset, rig.tenure.n_in_flight)

        await rig.tenure.finish("cam", EVENT, 0)
        await rig.until_kept(2)

    assert 2 == rig.kept[1][0].next_offset


async def test_a_first_step_is_kept_though_nothing_follows_yet() -> None:
    async with a_rig(NEVER) as rig:
        await rig.tenure.open()
        assert [Step(1, 0)] == [step for step, _ in rig.kept]


async def test_workers_wait_when_too_much_waits_for_the_journal() -> None:
    limits = StepLimits(interval_s=3600, most_deliveries=2, most_waiting=4)
    async with a_rig(limits) as rig:
        rig.journal.may_commit.clear()
        for _ in range(2):
            await rig.put()
        await a_while()  # these two are on their way
        for _ in range(3):
            await rig.put()
        waiting = [asyncio.create_task(rig.put()) for _ in range(2)]
        await a_while()
        assert not any(task.done() for task in waiting)
        rig.journal.may_commit.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)
        await rig.tenure.flush()

    assert 7 == sum(rig.n_deliveries)


async def test_large_letters_go_at_once_and_workers_wait_for_them() -> None:
    """Else poison would fill the memory while the journal is slow."""
    limits = StepLimits(interval_s=3600, most_deliveries=1000, most_waiting=2000, most_bytes=100)
    letter = DeadLetter("cam", "p", 0, "CorruptChunkError", "no video", bytes(60))
    async with a_rig(limits) as rig:
        rig.journal.may_commit.clear()
        await rig.put(Outcome(dead=(letter,)))
        second = asyncio.create_task(rig.put(Outcome(dead=(letter,))))
        async with asyncio.timeout(60):
            while not rig.journal.asked:
                await asyncio.sleep(0.001)
        assert not second.done()

        rig.journal.may_commit.set()
        await second

        assert [2] == rig.n_deliveries


async def test_thick_steps_share_after_a_slow_one() -> None:
    limits = StepLimits(interval_s=3600, most_deliveries=1000, most_spacing_s=3600)
    async with a_rig(limits) as rig:
        rig.journal.may_commit.clear()
        await rig.put(EVENT)
        await asyncio.sleep(0.05)  # so long the journal takes
        rig.journal.may_commit.set()
        await rig.until_kept(1)

        for _ in range(3):
            await rig.put(EVENT)
        await rig.until_kept(2)

        assert [1, 3] == rig.n_deliveries


async def test_nothing_is_kept_after_the_end() -> None:
    async with a_rig(NEVER) as rig:
        await rig.put()
        rig.tenure.end()
        await rig.put(EVENT)
        await rig.tenure.finish("cam", EVENT)
        await rig.tenure.flush()

    assert [] == rig.journal.asked


async def test_the_end_lets_workers_go_that_wait() -> None:
    async with a_rig(StepLimits(interval_s=3600, most_deliveries=1, most_waiting=1)) as rig:
        rig.journal.may_commit.clear()
        first = asyncio.create_task(rig.put())
        await a_while()
        assert not first.done()
        second = asyncio.create_task(rig.put())
        await a_while()
        rig.tenure.end()
        async with asyncio.timeout(60):
            await asyncio.gather(first, second)
        rig.journal.may_commit.set()

    assert [1] == rig.n_deliveries  # the one that was on its way


async def test_hold_keeps_what_is_there_and_nothing_more_until_it_goes_on() -> None:
    async with a_rig(NEVER) as rig:
        await rig.put()
        await rig.tenure.hold()
        assert [1] == rig.n_deliveries
        await rig.put(EVENT)
        await a_while()
        assert [1] == rig.n_deliveries

        rig.tenure.resume()
        await rig.until_kept(2)

    assert [1, 1] == rig.n_deliveries


async def test_hold_waits_for_a_step_that_is_on_its_way() -> None:
    async with a_rig(NEVER) as rig:
        rig.journal.may_commit.clear()
        await rig.put(EVENT)
        await a_while()
        await rig.put()
        held = asyncio.create_task(rig.tenure.hold())
        await a_while()
        assert not held.done()
        rig.journal.may_commit.set()
        async with asyncio.timeout(60):
            await held
        assert [1, 1] == rig.n_deliveries
        await rig.put(EVENT)
        await a_while()

    assert [1, 1] == rig.n_deliveries


async def test_another_owner_ends_it() -> None:
    rig = Rig(NEVER)
    await rig.journal.take("p")
    serving = asyncio.create_task(rig.tenure.serve())
    await MemoryJournal(rig.journal.records).take("p")
    await rig.put(EVENT)
    async with asyncio.timeout(60):
        with pytest.raises(StaleOwnerError):
            await serving

    assert rig.tenure.is_over
    await rig.put(EVENT)
    await rig.tenure.flush()
    assert ([], []) == (rig.kept, rig.journal.records.events)
    assert 1 == len(rig.journal.asked)


async def test_another_owner_ends_it_while_it_is_held_too() -> None:
    async with a_rig(NEVER) as rig:
        await MemoryJournal(rig.journal.records).take("p")
        await rig.put()
        with pytest.raises(StaleOwnerError):
            await rig.tenure.hold()
        assert rig.tenure.is_over


async def test_a_journal_that_is_lost_is_told_of() -> None:
    rig = Rig(NEVER)
    await rig.journal.take("p")
    rig.journal.fault = TransportError("no disk")
    await rig.put(EVENT)

    async with asyncio.timeout(60):
        with pytest.raises(TransportError, match="no disk"):
            await rig.tenure.serve()
    assert [] == rig.kept
