"""A log that was deleted and made anew under its name: the old one's events end, all is read."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.wire.facts import ChunkFacts
from engine.types import Reason
from tests.support.daemons import TestDaemon, final_of, straight_line
from tests.support.footage import chunks_of
from tests.support.swaps import check_grammar


async def until_open(log: MemoryLog, kept: MemoryRecords, clip: Path) -> None:
    """A daemon's life in the first log, which ends while an event is open."""
    for chunk in chunks_of(clip, "cam", chunk_s=0.5)[:5]:
        log.append("cam", chunk)
    log.finish()
    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()
    assert [False] == [r.final for r in final_of(kept.events).values()]


@pytest.mark.parametrize("n_other", [0, 20])
async def test_a_log_made_anew_while_no_daemon_runs_is_read_whole(
    odd_clip: Path, n_other: int
) -> None:
    """It may be shorter than what was read of the old one, or longer."""
    kept, new = MemoryRecords(), MemoryLog(log_id="new")
    await until_open(MemoryLog(log_id="old"), kept, odd_clip)
    before = list(kept.events)
    for number in range(n_other):
        new.append("cam", replace(chunks_of(odd_clip, "other")[0], sequence=number))
    chunks = chunks_of(odd_clip, "cam", chunk_s=0.5, run="next")
    for chunk in chunks:
        new.append("cam", chunk)
    new.finish()

    again = TestDaemon(MemoryChunkSource(new), MemoryJournal(kept))
    await again.serve()

    check_grammar(kept.events)
    ended = kept.events[len(before)]
    assert (Reason.GAP, True) == (ended.reason, ended.final)
    assert [before[-1].event_id] == [ended.event_id]
    seen = [r for r in kept.events if r.run == "next"]
    wanted = straight_line(odd_clip, "cam")
    assert [(r.span, r.reason) for r in wanted] == [(r.span, r.reason) for r in seen]
    assert len(chunks) - 1 == again.count("chunks_total", camera="cam")
    assert n_other + len(chunks) == kept.next_offset("cam")
    assert 1 == len(again.logs.named("partition.made_anew"))


async def test_a_producer_goes_on_with_its_run_in_the_new_log(odd_clip: Path) -> None:
    kept, new = MemoryRecords(), MemoryLog(log_id="new")
    await until_open(MemoryLog(log_id="old"), kept, odd_clip)
    chunks = chunks_of(odd_clip, "cam", chunk_s=0.5)[5:]
    for chunk in chunks:
        new.append("cam", chunk)
    new.finish()

    again = TestDaemon(MemoryChunkSource(new), MemoryJournal(kept))
    await again.serve()

    check_grammar(kept.events)
    assert len(chunks) - 1 == again.count("chunks_total", camera="cam")
    assert straight_line(odd_clip, "cam")[-1] == kept.events[-1]


async def test_a_camera_of_the_old_log_that_sends_nothing_is_told_of_only_once(
    odd_clip: Path,
) -> None:
    """What it knows then names no place in a log; that is no damage."""
    kept, new = MemoryRecords(), MemoryLog(log_id="new")
    await until_open(MemoryLog(log_id="old"), kept, odd_clip)
    for chunk in chunks_of(odd_clip, "other", chunk_s=0.5):
        new.append("cam", chunk)
    new.finish()
    for _ in range(2):
        again = TestDaemon(MemoryChunkSource(new), MemoryJournal(kept))
        await again.serve()
        assert 0 == again.count("snapshots_refused_total", camera="cam")

    check_grammar(kept.events)
    assert 1 == sum(r.final for r in kept.events if r.camera == "cam")


async def test_a_log_made_anew_under_a_running_daemon_is_read_whole(odd_clip: Path) -> None:
    log, kept = MemoryLog(log_id="old"), MemoryRecords()
    for chunk in chunks_of(odd_clip, "cam", chunk_s=0.5)[:5]:
        log.append("cam", chunk)
    source = MemoryChunkSource(log)
    daemon = TestDaemon(source, MemoryJournal(kept))
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(5)
        log.partitions.clear()
        log.log_id = "new"
        chunks = chunks_of(odd_clip, "cam", chunk_s=0.5, run="next")
        for chunk in chunks:
            log.append("cam", chunk)
        log.finish()
        await source.rebalance()
        await serving

    check_grammar(kept.events)
    assert len(straight_line(odd_clip, "cam")) == sum(r.run == "next" for r in kept.events)
    assert 5 + len(chunks) - 1 == daemon.count("chunks_total", camera="cam")


async def test_what_others_of_the_group_have_done_since_is_not_done_again(
    odd_clip: Path,
) -> None:
    """A journal of one host does not know of it, but the group's offset does."""
    kept, log = MemoryRecords(), MemoryLog()
    await until_open(log, kept, odd_clip)
    before = list(kept.events)
    chunks = chunks_of(odd_clip, "cam", chunk_s=0.5)
    for chunk in chunks[5:]:
        log.append("cam", chunk)
    log.committed["cam"] = 12

    again = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    await again.serve()

    check_grammar(kept.events)
    ended = kept.events[len(before)]
    assert (before[-1].event_id, Reason.GAP, True) == (ended.event_id, ended.reason, ended.final)
    assert len(chunks) - 1 - 12 == again.count("chunks_total", camera="cam")
    assert 1 == len(again.logs.named("partition.went_on"))


async def test_a_folder_made_anew_while_no_daemon_runs_is_read_whole(
    tmp_path: Path, odd_clip: Path
) -> None:
    """The numbers of its files begin again below those that were done."""
    kept, lives = MemoryRecords(), []
    for run, n_chunks in (("first", 5), ("second", 4)):
        shutil.rmtree(tmp_path / "chunks", ignore_errors=True)
        writer = DirectoryChunkWriter(tmp_path / "chunks")
        await writer.start()
        for chunk in chunks_of(odd_clip, "cam", chunk_s=0.5, run=run)[:n_chunks]:
            await writer.write(chunk, ChunkFacts())
        settings = DirectorySourceSettings(tmp_path / "chunks", follow=False)
        lives.append(TestDaemon(DirectoryChunkSource(settings), MemoryJournal(kept)))
        await lives[-1].serve()

    assert [5, 4] == [one.count("chunks_total", camera="cam") for one in lives]
    assert [0, 1] == [len(one.logs.named("partition.made_anew")) for one in lives]
