"""Cameras of which nothing can be used: nothing is kept of them, and they are in nobody's way."""

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.cameras import CameraLimits
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.errors import CorruptChunkError
from tests.support.daemons import TestDaemon, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip

N_JUNK = 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


async def served(log: MemoryLog, most: int = 512) -> tuple[TestDaemon, MemoryRecords]:
    log.finish()
    kept = MemoryRecords()
    daemon = TestDaemon(
        MemoryChunkSource(log), MemoryJournal(kept), cameras=CameraLimits(most=most)
    )
    await daemon.serve()
    return daemon, kept


async def test_records_that_are_none_leave_no_state(clip: Path) -> None:
    log, template = MemoryLog(), chunks_of(clip, "any")[0]
    for number in range(N_JUNK):
        log.append("p", replace(template, camera=f"junk-{number}", payload=b"no video"))
    log.append_bad("p", CorruptChunkError("bad"), b"x")

    _, kept = await served(log)

    assert {} == kept.partitions["p"].states
    assert N_JUNK + 1 == len(kept.dead)
    assert N_JUNK + 1 == kept.next_offset("p")


async def test_a_camera_whose_first_chunk_is_bad_begins_with_the_first_good_one(
    clip: Path,
) -> None:
    chunks = chunks_of(clip, "cam")
    log = MemoryLog()
    log.append("p", replace(chunks[0], run="junk", payload=b"no video"))
    for chunk in chunks:
        log.append("p", chunk)

    daemon, kept = await served(log)

    assert straight_line(clip, "cam") == kept.events
    assert 0 == daemon.count("gaps_total", camera="cam")
    assert [b"no video"] == [letter.payload for letter in kept.dead]


async def test_a_good_camera_takes_the_place_of_made_up_ones(clip: Path) -> None:
    chunks = chunks_of(clip, "cam")
    log = MemoryLog()
    for number in range(N_JUNK):
        log.append("p", replace(chunks[0], camera=f"junk-{number}", payload=b"no video"))
        log.append("q", chunks[min(number, len(chunks) - 1)])

    daemon, kept = await served(log, most=2)

    assert straight_line(clip, "cam") == kept.events
    junk = {
        sample.labels["camera"]
        for metric in daemon.metrics.corrupt_chunks.collect()
        for sample in metric.samples
    }
    assert len(junk) <= 3  # with the one that is counted for all that are refused
    assert N_JUNK == len(kept.dead)


async def test_a_camera_that_is_known_keeps_its_place(clip: Path) -> None:
    known, late = chunks_of(clip, "known"), chunks_of(clip, "late")
    log = MemoryLog()
    for chunk in (*known[:3], *late, *known[3:]):
        log.append("p", chunk)

    daemon, kept = await served(log, most=1)

    assert straight_line(clip, "known") == kept.events
    assert {"known"} == set(kept.partitions["p"].states)
    assert [chunk.payload for chunk in late] == [letter.payload for letter in kept.dead]
    assert len(late) == daemon.count(
        "corrupt_chunks_total", camera="(refused)", error="RefusedChunkError"
    )
