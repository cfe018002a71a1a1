"""Partitions that are given up, come back or are taken away: cameras go on where they were."""

import asyncio
from pathlib import Path

import pytest
from typing_extensions import override

from daemon.errors import StaleOwnerError
from daemon.journal.base import Step
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.stream.tenure import StepLimits
from tests.support.daemons import HeldCamera, TestDaemon, a_log, straight_line
from tests.support.footage import chunks_of

CAMERAS = ("a", "b", "c", "d")


@pytest.mark.parametrize("goes_elsewhere", [False, True])
async def test_a_rebalance_cuts_no_event_and_reads_only_what_is_needed_again(
    odd_clip: Path, *, goes_elsewhere: bool
) -> None:
    per_camera = [chunks_of(odd_clip, name, chunk_s=0.5) for name in CAMERAS]
    turns = list(zip(*per_camera, strict=True))
    log, kept = MemoryLog(), MemoryRecords()
    source = MemoryChunkSource(log)
    daemon = TestDaemon(source, MemoryJournal(kept))
    serving = asyncio.create_task(daemon.serve())
    async with asyncio.timeout(240):
        for turn in turns:
            for chunk in turn:
                log.append("p", chunk)
            while kept.next_offset("p") < len(log.partitions["p"]):
                await asyncio.sleep(0.01)
            await source.rebalance(goes_elsewhere=goes_elsewhere)
        log.finish()
        await serving

    # Each chunk once, and if the partition was elsewhere, a few of them again.
    most = 4 * len(turns) if goes_elsewhere else len(turns) - 1
    for name in CAMERAS:
        assert straight_line(odd_clip, name) == [r for r in kept.events if r.camera == name]
        assert daemon.count("chunks_total", camera=name) <= most


@pytest.mark.parametrize("interval_s", [0, 0.05])
@pytest.mark.parametrize("goes_elsewhere", [False, True])
async def test_rebalances_at_any_moment_lose_nothing_and_say_nothing_twice(
    odd_clip: Path, interval_s: float, *, goes_elsewhere: bool
) -> None:
    """Most come while cameras have chunks in hand, in their queues, or in a step to be."""
    per_camera = [chunks_of(odd_clip, name, chunk_s=0.5) for name in CAMERAS]
    log, kept = MemoryLog(), MemoryRecords()
    for turn in zip(*per_camera, strict=True):
        for chunk in turn:
            log.append("p", chunk)
    source = MemoryChunkSource(log)
    steps = StepLimits(interval_s=interval_s)
    daemon = TestDaemon(source, MemoryJournal(kept), steps=steps)
    n_rebalances = 0
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        pause_s, before = 0.05, 0
        while kept.next_offset("p") < len(log.partitions["p"]):
            await asyncio.sleep(pause_s)
            await source.rebalance(goes_elsewhere=goes_elsewhere)
            n_rebalances += 1
            # Time enough to get on, on any machine.
            pause_s = 0.05 if kept.next_offset("p") > before else 2 * pause_s
            before = kept.next_offset("p")
        log.finish()
        source.resume("p")
        await serving

    assert n_rebalances > 2
    for name in CAMERAS:
        assert straight_line(odd_clip, name) == [r for r in kept.events if r.camera == name]


async def test_a_partition_that_is_taken_away_while_a_chunk_is_in_hand_says_nothing_more(
    odd_clip: Path,
) -> None:
    mine, other = (chunks_of(odd_clip, name, chunk_s=0.5) for name in ("mine", "other"))
    log, kept, n_before = MemoryLog(), MemoryRecords(), 5
    for chunk in mine[:n_before]:
        log.append("mine", chunk)
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    held = HeldCamera(daemon, "mine")
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(n_before)
        held.is_held = True
        log.append("mine", mine[n_before])
        await held.inside.wait()
        await MemoryJournal(kept).take("mine")
        said = list(kept.events)
        held.let_go()
        while not daemon.logs.named("partition.lost"):
            await asyncio.sleep(0.01)
        assert said == kept.events
        for chunk in [*mine[n_before + 1 :], *other]:  # what is not lost is served on
            log.append(chunk.camera, chunk)
        while kept.next_offset("other") < len(other):
            await asyncio.sleep(0.01)
        daemon.app.stop()
        await serving
    assert said == [r for r in kept.events if r.camera == "mine"]
    assert n_before == kept.next_offset("mine")
    assert 1 == daemon.count("lost_partitions_total")

    log.finish()
    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()

    for name in ("mine", "other"):
        assert straight_line(odd_clip, name) == [r for r in kept.events if r.camera == name]


async def test_a_partition_that_is_taken_away_during_a_rebalance_ends_no_daemon(
    odd_clip: Path,
) -> None:
    chunks, log, kept = chunks_of(odd_clip, "cam", chunk_s=0.5), MemoryLog(), MemoryRecords()
    for chunk in chunks[:5]:
        log.append("cam", chunk)
    source = MemoryChunkSource(log)
    daemon = TestDaemon(source, MemoryJournal(kept), steps=StepLimits(interval_s=60))
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        while daemon.count("chunks_total", camera="cam") < 5 or daemon.app.progress.busy:
            await asyncio.sleep(0.01)
        said = list(kept.events)
        await MemoryJournal(kept).take("cam")
        await source.rebalance(goes_elsewhere=True)
        daemon.app.stop()
        await serving
    assert said == kept.events

    for chunk in chunks[5:]:
        log.append("cam", chunk)
    log.finish()
    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()

    assert straight_line(odd_clip, "cam") == kept.events


class LateJournal(MemoryJournal):
    """Once told to, it keeps a step only when nobody waits for it any more: not at all."""

    def __init__(self, records: MemoryRecords) -> None:
        super().__init__(records)
        self.is_late = False
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    @override
    async def commit(self, partition: str, step: Step) -> None:
        if self.is_late:
            self.asked.set()
            await self.may_answer.wait()
            raise StaleOwnerError("that was too late")
        await super().commit(partition, step)


async def test_a_step_that_fails_after_its_partition_came_back_takes_nothing_away(
    odd_clip: Path,
) -> None:
    """The rebalance could not wait for it; what was in it is done again."""
    chunks, log, kept = chunks_of(odd_clip, "cam", chunk_s=0.5), MemoryLog(), MemoryRecords()
    for chunk in chunks[:5]:
        log.append("cam", chunk)
    source, journal = MemoryChunkSource(log), LateJournal(kept)
    daemon = TestDaemon(source, journal)
    daemon.app.partitions._drain_timeout_s = 0.05
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(5)
        journal.is_late = True
        log.append("cam", chunks[5])
        await journal.asked.wait()
        await source.rebalance(goes_elsewhere=True)
        journal.is_late = False
        while len(daemon.logs.named("partition.taken")) < 2:
            await asyncio.sleep(0.01)
        journal.may_answer.set()
        daemon.app.partitions._drain_timeout_s = 30
        for chunk in chunks[6:]:
            log.append("cam", chunk)
        log.finish()
        await serving

    assert 1 == len(daemon.logs.named("daemon.drain_timeout"))
    assert 0 == daemon.count("lost_partitions_total")
    assert straight_line(odd_clip, "cam") == kept.events


async def test_a_worker_that_is_left_behind_resumes_no_partition(odd_clip: Path) -> None:
    """It still had a chunk in hand when the partition went; it came back, and is full again."""
    log, kept = a_log(*chunks_of(odd_clip, "cam", chunk_s=0.5)), MemoryRecords()
    source = MemoryChunkSource(log)
    daemon = TestDaemon(source, MemoryJournal(kept))
    held = HeldCamera(daemon, "cam")
    async with asyncio.timeout(240):
        held.is_held = True
        serving = asyncio.create_task(daemon.serve())
        for n_paused in (1, 2):
            while len(daemon.logs.named("partition.paused")) < n_paused:
                await asyncio.sleep(0.01)
            await held.until_waiting(n_paused)
            if n_paused == 1:
                await source.rebalance(goes_elsewhere=True)
        held.let_first_go()
        while len(daemon.app.partitions._camera_tasks) > 1:
            await asyncio.sleep(0.01)
        assert not daemon.logs.named("partition.resumed")
        assert 1 == daemon.count("paused_partitions")
        held.let_go()
        await serving

    assert 0 == daemon.count("paused_partitions")
    assert straight_line(odd_clip, "cam") == kept.events


async def test_two_daemons_that_take_a_partition_from_each_other_say_everything_once(
    odd_clip: Path,
) -> None:
    log, kept = a_log(*chunks_of(odd_clip, "cam", chunk_s=0.5)), MemoryRecords()
    async with asyncio.timeout(240):
        while kept.next_offset("cam") < len(log.partitions["cam"]):
            first, second = (
                TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)) for _ in range(2)
            )
            serving = [asyncio.create_task(first.serve())]
            await asyncio.sleep(0.05)
            serving.append(asyncio.create_task(second.serve()))
            await asyncio.sleep(0.2)
            for daemon in (first, second):
                daemon.app.stop()
            await asyncio.gather(*serving)

    assert straight_line(odd_clip, "cam") == kept.events
