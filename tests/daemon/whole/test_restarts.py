"""A daemon that ends anywhere, in order or by force: the next one goes on as if nothing had been.

The chunks end within a snippet, so frames must be read again after every restart.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.errors import TransportError
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.stream.tenure import StepLimits
from engine.types import Reason
from tests.support.daemons import (
    AT_ONCE,
    HeldCamera,
    MortalJournal,
    TestDaemon,
    a_log,
    final_of,
    straight_line,
)
from tests.support.footage import chunks_of
from tests.support.snapshots import changed
from tests.support.swaps import check_grammar

N_CHUNKS = 25  # of the clip, the end marker among them
PACES = {"at once": AT_ONCE, "seldom": StepLimits(interval_s=60, most_deliveries=5)}


async def serve_until_kept(log: MemoryLog, kept: MemoryRecords, n_chunks: int) -> None:
    """A daemon that is stopped once it has nothing more to do."""
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(n_chunks)
        daemon.app.stop()
        await serving


@pytest.mark.parametrize("n_before", range(N_CHUNKS + 1))
async def test_a_restart_after_any_chunk_gives_the_straight_line(
    odd_clip: Path, n_before: int
) -> None:
    chunks, log, kept = chunks_of(odd_clip, "cam", chunk_s=0.5), MemoryLog(), MemoryRecords()
    assert N_CHUNKS == len(chunks)
    for chunk in chunks[:n_before]:
        log.append("cam", chunk)
    await serve_until_kept(log, kept, n_before)
    for chunk in chunks[n_before:]:
        log.append("cam", chunk)
    log.finish()

    again = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    await again.serve()

    assert straight_line(odd_clip, "cam") == kept.events
    n_new = max(N_CHUNKS - 1 - n_before, 0)
    assert n_new == again.count("chunks_total", camera="cam")
    n_again = again.count("stage_seconds_count", stage="decode") - n_new
    assert 0 <= n_again <= 2  # an unfinished snippet lies in two chunks at most


async def test_a_restart_after_every_chunk_gives_the_straight_line(odd_clip: Path) -> None:
    chunks, log, kept = chunks_of(odd_clip, "cam", chunk_s=0.5), MemoryLog(), MemoryRecords()
    for number, chunk in enumerate(chunks):
        log.append("cam", chunk)
        while kept.next_offset("cam") <= number:
            await serve_until_kept(log, kept, 1)

    assert straight_line(odd_clip, "cam") == kept.events


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize(
    ("pace", "n_commits"),
    [("at once", n) for n in range(N_CHUNKS + 1)] + [("seldom", n) for n in range(1, 15)],
)
async def test_a_kill_at_any_commit_publishes_nothing_twice_and_loses_nothing(
    odd_clip: Path, pace: str, n_commits: int, *, is_kept: bool
) -> None:
    steps = PACES[pace]
    log, kept = a_log(*chunks_of(odd_clip, "cam", chunk_s=0.5)), MemoryRecords()
    journal = MortalJournal(kept, n_commits, is_kept=is_kept)
    with suppress(TransportError):
        await TestDaemon(MemoryChunkSource(log), journal, steps=steps).serve()

    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept), steps=steps).serve()

    assert straight_line(odd_clip, "cam") == kept.events
    assert N_CHUNKS == kept.next_offset("cam")


@pytest.mark.parametrize("n_ahead", [1, 3, 7])
async def test_a_camera_that_is_ahead_of_its_partition_says_nothing_twice(
    odd_clip: Path, n_ahead: int
) -> None:
    """The other one holds the partition's offset back; then the process dies."""
    slow, quick = (chunks_of(odd_clip, name, chunk_s=0.5) for name in ("slow", "quick"))
    log, kept = MemoryLog(), MemoryRecords()
    for chunk in [*slow[:4], *quick[:4]]:
        log.append("both", chunk)
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    held = HeldCamera(daemon, "slow")
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(8)
        held.is_held = True
        for chunk in [slow[4], *quick[4 : 4 + n_ahead]]:
            log.append("both", chunk)
        await daemon.app.finished(8 + n_ahead)
        serving.cancel()
        await asyncio.wait({serving})
    assert 8 == kept.next_offset("both")
    for chunk in [*slow[5:], *quick[4 + n_ahead :]]:
        log.append("both", chunk)
    log.finish()

    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()

    for name in ("slow", "quick"):
        assert straight_line(odd_clip, name) == [r for r in kept.events if r.camera == name]


@pytest.mark.parametrize("damage", ["features", "scores"])
async def test_a_camera_whose_state_is_damaged_ends_its_events_and_begins_anew(
    odd_clip: Path, damage: str
) -> None:
    chunks, log, kept = chunks_of(odd_clip, "cam", chunk_s=0.5), MemoryLog(), MemoryRecords()
    for chunk in chunks[:5]:
        log.append("cam", chunk)
    await serve_until_kept(log, kept, 5)
    assert [False] == [r.final for r in final_of(kept.events).values()]
    hurt(kept, damage)

    again = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    async with asyncio.timeout(240):
        serving = asyncio.create_task(again.serve())
        while not all(r.final for r in final_of(kept.events).values()):  # without a chunk
            await asyncio.sleep(0.01)
        for chunk in chunks[5:]:
            log.append("cam", chunk)
        log.finish()
        await serving

    assert 1 == again.count("snapshots_refused_total", camera="cam")
    check_grammar(kept.events)
    first, *later = final_of(kept.events).values()
    assert Reason.GAP is first.reason
    assert later[-1] == straight_line(odd_clip, "cam")[-1]
    assert N_CHUNKS == kept.next_offset("cam")


def hurt(kept: MemoryRecords, damage: str) -> None:
    partition = kept.partitions["cam"]
    state = partition.states["cam"]
    if damage == "features":
        partition.features["cam"].pop()
    else:
        partition.states["cam"] = replace(state, blob=changed(state.blob, scores=[1]))
