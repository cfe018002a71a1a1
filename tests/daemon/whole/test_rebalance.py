"""Partitions that are given up, come back or are taken away: cameras go on where they were."""

import asyncio
from pathlib import Path

import pytest

from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.stream.tenure import StepLimits
from tests.support.daemons import HeldCamera, TestDaemon, a_log, straight_line
from tests.support.footage import chunks_of

CAMERAS = ("a", "b", "c", "d")


@pytest.mark.parametrize("goes_elsewhere", [False, True])
async def test_a_rebalance_cuts_no_event_and_reads_only_what_is_needed_again(
    odd_clip: Path, goes_elsewhere: bool
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
    odd_clip: Path, goes_elsewhere: bool, interval_s: float
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
        while kept.next_offset("p") < len(log.partitions["p"]):
            await asyncio.sleep(0.05)  # time enough to get on
            await source.rebalance(goes_elsewhere=goes_elsewhere)
            n_rebalances += 1
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
