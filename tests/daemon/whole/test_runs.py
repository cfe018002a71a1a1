"""Several runs under one camera's name: strangers' records never end the run that goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.stream.runs import N_TO_WIN
from engine.errors import CorruptChunkError
from engine.types import FOREIGN_RUN, ActionEvent, VideoChunk
from tests.support.daemons import TestDaemon, final_of, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip

CHUNK_S = 0.4
STRAY_AT = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


@pytest.fixture
def chunks(clip: Path) -> list[VideoChunk]:
    return chunks_of(clip, "cam", run="live", chunk_s=CHUNK_S)


async def served(
    *chunks: VideoChunk | None, restart_after: int | None = None
) -> tuple[TestDaemon, MemoryRecords]:
    """What a daemon makes of chunks, where None is a record that is none; maybe it restarts."""
    log, kept = MemoryLog(), MemoryRecords()
    for number, chunk in enumerate(chunks):
        if number == restart_after:
            await TestDaemon(MemoryChunkSource(ended(log)), MemoryJournal(kept)).serve()
        if chunk is None:
            log.append_bad("cam", CorruptChunkError("no record of ours"), b"x")
        else:
            log.append("cam", chunk)
    daemon = TestDaemon(MemoryChunkSource(ended(log)), MemoryJournal(kept))
    await daemon.serve()
    return daemon, kept


def ended(log: MemoryLog) -> MemoryLog:
    log.finish()
    return log


def foreign(chunk: VideoChunk) -> VideoChunk:
    """The footage as a record without headers carries it."""
    return replace(chunk, run=FOREIGN_RUN, start_ticks=None, time_base=None, start_us=10**15)


def junk(chunk: VideoChunk) -> VideoChunk:
    return replace(chunk, payload=b"no video")


STRAYS: dict[str, Callable[[VideoChunk], VideoChunk | None]] = {
    "no record": lambda _chunk: None,
    "a foreign record": foreign,
    "a foreign record that is no video": lambda chunk: junk(foreign(chunk)),
    "another run that is no video": lambda chunk: junk(replace(chunk, run="stray")),
    "the end of another run": lambda chunk: replace(chunk, run="stray", payload=b"", is_end=True),
    "an old end of the run": lambda chunk: replace(chunk, sequence=0, payload=b"", is_end=True),
    "an old chunk": lambda chunk: replace(chunk, sequence=1, start_us=0),
    "an old chunk with a new number": lambda chunk: replace(
        chunk, start_us=0, start_ticks=0, sequence=STRAY_AT
    ),
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
@pytest.mark.parametrize("n_strays", [1, 3 * N_TO_WIN])
@pytest.mark.parametrize("restart_after", [None, STRAY_AT + 1])
async def test_stray_records_cost_the_live_run_nothing(
    clip: Path,
    chunks: list[VideoChunk],
    stray: Callable[[VideoChunk], VideoChunk | None],
    n_strays: int,
    restart_after: int | None,
) -> None:
    strays = [stray(chunks[1])] * n_strays

    daemon, kept = await served(
        *chunks[:STRAY_AT], *strays, *chunks[STRAY_AT:], restart_after=restart_after
    )

    assert straight_line(clip, "cam") == renamed(kept.events, clip)
    assert {"live"} == {event.run for event in kept.events}
    assert 0 == daemon.count("gaps_total", camera="cam")


def renamed(events: Sequence[ActionEvent], clip: Path) -> list[ActionEvent]:
    """Events as the straight line names them; the run is part of an id."""
    line = straight_line(clip, "cam")
    ids = dict(zip((e.event_id for e in events), (e.event_id for e in line), strict=False))
    return [replace(event, run="file", event_id=ids[event.event_id]) for event in events]


async def test_each_refused_record_is_named_counted_and_kept(chunks: list[VideoChunk]) -> None:
    stray = foreign(chunks[1])

    daemon, kept = await served(*chunks[:4], stray, *chunks[4:])

    (dropped,) = daemon.logs.named("chunk.dropped")
    assert "two producers write camera cam" in str(dropped["reason"])
    assert 1 == daemon.count("corrupt_chunks_total", camera="cam", error="RivalRunError")
    assert [stray.payload] == [letter.payload for letter in kept.dead]


@pytest.mark.parametrize("wild", [{"sequence": 10**15}, {"sequence": 10**15, "is_end": True}])
async def test_one_wild_number_costs_no_sight(
    chunks: list[VideoChunk], wild: dict[str, int]
) -> None:
    is_end = bool(wild.get("is_end"))
    stray = replace(chunks[4], **wild, payload=b"" if is_end else chunks[4].payload)
    rest = chunks[4:] if is_end else chunks[5:]

    daemon, kept = await served(*chunks[:4], stray, *rest)

    assert {"live"} == {event.run for event in kept.events}
    assert 0 == daemon.count("duplicate_chunks_total", camera="cam")
    assert len(chunks) - 1 == daemon.count("chunks_total", camera="cam")


async def test_one_wild_time_costs_a_few_chunks_and_no_more(chunks: list[VideoChunk]) -> None:
    ticks = 10**12
    time_base = chunks[4].time_base
    assert time_base is not None
    stray = replace(chunks[4], start_ticks=ticks, start_us=int(ticks * time_base * 10**6))

    daemon, kept = await served(*chunks[:4], stray, *chunks[5:])

    offset = 4 + N_TO_WIN
    runs = {event.run for event in kept.events}
    assert f"live@{offset}" in runs
    stale = daemon.count("corrupt_chunks_total", camera="cam", error="StaleChunkError")
    assert N_TO_WIN - 1 == stale
    assert all(event.final for event in final_of(kept.events).values())


async def test_a_live_run_that_was_taken_for_ended_wins_back(chunks: list[VideoChunk]) -> None:
    stray = replace(chunks[0], run="stray")

    daemon, kept = await served(*chunks[:4], stray, *chunks[4:])

    offset = 4 + N_TO_WIN
    opened = [entry["run"] for entry in daemon.logs.named("stream.opened")]
    assert ["live", "stray", f"live@{offset}"] == opened
    assert N_TO_WIN - 1 == daemon.count("duplicate_chunks_total", camera="cam")
    last = [event for event in kept.events if event.run == f"live@{offset}"]
    assert last
    assert all(event.final for event in final_of(kept.events).values())


async def test_of_two_producers_one_is_served_and_the_other_named(
    chunks: list[VideoChunk],
) -> None:
    other = [replace(chunk, run="other") for chunk in chunks]

    daemon, _ = await served(*(c for pair in zip(chunks, other, strict=True) for c in pair))

    assert ["live", "other"] == [entry["run"] for entry in daemon.logs.named("stream.opened")]
    dropped = daemon.logs.named("chunk.dropped")
    assert dropped
    assert all("run live is left out while run other" in str(d["reason"]) for d in dropped)
    refused = daemon.count("corrupt_chunks_total", camera="cam", error="RivalRunError")
    seen = daemon.count("duplicate_chunks_total", camera="cam")
    assert len(chunks) - 1 == refused + seen


@pytest.mark.parametrize("n_old", [1, N_TO_WIN, 3 * N_TO_WIN])
async def test_old_chunks_that_are_sent_again_never_count_as_a_live_run(
    clip: Path, chunks: list[VideoChunk], n_old: int
) -> None:
    old = chunks[: min(n_old, len(chunks) // 2)]
    half = len(chunks) // 2

    daemon, kept = await served(*chunks[:half], *old, *chunks[half:])

    assert straight_line(clip, "cam") == renamed(kept.events, clip)
    assert len(old) == daemon.count("duplicate_chunks_total", camera="cam")


async def test_a_foreign_producer_takes_the_place_of_one_that_is_gone(
    chunks: list[VideoChunk],
) -> None:
    footage = [replace(foreign(chunk), start_us=10**15 + chunk.start_us) for chunk in chunks[:-1]]

    daemon, kept = await served(*chunks, *footage)

    assert ["live", FOREIGN_RUN] == [e["run"] for e in daemon.logs.named("stream.opened")]
    assert not kept.dead


async def test_headers_win_over_records_without(chunks: list[VideoChunk]) -> None:
    footage = [replace(foreign(chunk), start_us=10**15 + chunk.start_us) for chunk in chunks[:-1]]

    daemon, _ = await served(*footage[:5], *chunks[:5], *footage[5:8], *chunks[5:])

    assert [FOREIGN_RUN, "live"] == [e["run"] for e in daemon.logs.named("stream.opened")]
    assert 3 == daemon.count("corrupt_chunks_total", camera="cam", error="RivalRunError")


async def test_a_lost_chunk_is_still_a_gap_when_it_was_no_record(
    chunks: list[VideoChunk],
) -> None:
    daemon, _ = await served(*chunks[:4], None, *chunks[5:])

    assert 1 == daemon.count("gaps_total", camera="cam")


async def test_the_end_mark_of_a_camera_that_was_never_seen_is_nothing(
    chunks: list[VideoChunk],
) -> None:
    daemon, kept = await served(chunks[-1])

    assert chunks[-1].is_end
    assert {} == kept.partitions["cam"].states
    assert 1 == daemon.count("duplicate_chunks_total", camera="cam")


async def test_a_run_that_its_producer_ended_does_not_end_again_when_the_next_begins(
    clip: Path, chunks: list[VideoChunk]
) -> None:
    daemon, kept = await served(*chunks, *(replace(chunk, run="second") for chunk in chunks))

    ends = [(entry["run"], entry["reason"]) for entry in daemon.logs.named("stream.ended")]
    assert [("live", "end"), ("second", "end")] == ends
    assert 2 * len(straight_line(clip, "cam")) == len(kept.events)
