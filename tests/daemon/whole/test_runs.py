"""Runs of a camera's producers that follow one another: each ends once."""

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from tests.support.daemons import TestDaemon, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


async def served(log: MemoryLog) -> tuple[TestDaemon, MemoryRecords]:
    log.finish()
    kept = MemoryRecords()
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    await daemon.serve()
    return daemon, kept


async def test_a_run_that_its_producer_ended_does_not_end_again_when_the_next_begins(
    clip: Path,
) -> None:
    chunks, log = chunks_of(clip, "cam"), MemoryLog()
    for run in ("first", "second"):
        for chunk in chunks:
            log.append("p", replace(chunk, run=run))

    daemon, kept = await served(log)

    ends = [(entry["run"], entry["reason"]) for entry in daemon.logs.named("stream.ended")]
    assert [("first", "end"), ("second", "end")] == ends
    assert 2 * len(straight_line(clip, "cam")) == len(kept.events)
