"""Cameras without headers whose clocks are set, that send in bursts, or few pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.grid import US_PER_S
from engine.types import FOREIGN_RUN, VideoChunk
from tests.support.daemons import TestDaemon, final_of
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.videos import make_video

CHUNK_US = 480_000  # 12 pictures at 25 a second
NOW_US = 1_800_000_000 * US_PER_S
STEP_AT = 12
YEARS_US = 10 * 365 * 86_400 * US_PER_S
# Of what begins or ends at a step, a snippet may miss a part: no more than a window's worth.
FEW = 4


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    clip = colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)
    return [chunk.payload for chunk in chunks_of(clip, "cam", chunk_s=0.4) if chunk.payload]


def records(payloads: Sequence[bytes], stamps_us: Sequence[int]) -> list[VideoChunk]:
    return [
        VideoChunk("cam", FOREIGN_RUN, offset, stamp_us, payload, anchor_us=0)
        for offset, (payload, stamp_us) in enumerate(zip(payloads, stamps_us, strict=True))
    ]


def even(n: int) -> list[int]:
    return [NOW_US + number * CHUNK_US for number in range(n)]


async def served(
    chunks: Sequence[VideoChunk], *, restart_after: int | None = None
) -> tuple[TestDaemon, MemoryRecords]:
    log, kept = MemoryLog(), MemoryRecords()
    for number, chunk in enumerate(chunks):
        if number == restart_after:
            log.finish()
            await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()
        log.append("cam", chunk)
    log.finish()
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    await daemon.serve()
    return daemon, kept


def runs_of(daemon: TestDaemon) -> list[object]:
    return [entry["run"] for entry in daemon.logs.named("stream.opened")]


def is_all_used(daemon: TestDaemon, n_chunks: int) -> bool:
    return (
        daemon.count("chunks_total", camera="cam") == n_chunks
        and not daemon.logs.named("chunk.dropped")
        and not daemon.count("late_frames_total", camera="cam")
    )


async def n_snippets(payloads: Sequence[bytes]) -> float:
    daemon, _ = await served(records(payloads, even(len(payloads))))
    return daemon.count("snippets_total", camera="cam")


@pytest.mark.parametrize("step_us", [-3 * US_PER_S, -3600 * US_PER_S, -YEARS_US, 3600 * US_PER_S])
async def test_a_camera_whose_clock_is_set_goes_on_at_once(
    payloads: list[bytes], step_us: int
) -> None:
    stamps_us = [us + step_us * (n >= STEP_AT) for n, us in enumerate(even(len(payloads)))]

    daemon, kept = await served(records(payloads, stamps_us))

    assert is_all_used(daemon, len(payloads))
    assert ([FOREIGN_RUN, f"0@{STEP_AT}"] if step_us < 0 else [FOREIGN_RUN]) == runs_of(daemon)
    assert daemon.count("snippets_total", camera="cam") >= await n_snippets(payloads) - FEW
    assert all(event.final for event in final_of(kept.events).values())


async def test_one_stamp_in_the_far_future_blinds_nobody(payloads: list[bytes]) -> None:
    stamps_us = even(len(payloads))
    stamps_us[STEP_AT] += YEARS_US

    daemon, _ = await served(records(payloads, stamps_us))

    assert is_all_used(daemon, len(payloads))
    assert [FOREIGN_RUN, f"0@{STEP_AT + 1}"] == runs_of(daemon)


async def test_a_clock_that_is_set_again_and_again_costs_no_sight(payloads: list[bytes]) -> None:
    many = payloads * 3
    stamps_us = [us - n // 9 * 3600 * US_PER_S for n, us in enumerate(even(len(many)))]

    daemon, _ = await served(records(many, stamps_us))

    assert is_all_used(daemon, len(many))
    assert -(-len(many) // 9) == len(runs_of(daemon))


async def test_two_clocks_that_take_turns_are_two_producers(payloads: list[bytes]) -> None:
    stamps_us = [us - n % 2 * 3600 * US_PER_S for n, us in enumerate(even(len(payloads)))]

    daemon, _ = await served(records(payloads, stamps_us))

    assert 2 == len(runs_of(daemon))
    dropped = daemon.logs.named("chunk.dropped")
    assert {"StaleChunkError"} == {entry["error"] for entry in dropped}


@pytest.mark.parametrize("n_burst", [2, 4])
async def test_bursts_are_looked_at_whole(payloads: list[bytes], n_burst: int) -> None:
    stamps_us = [
        NOW_US + (n // n_burst * n_burst + n_burst - 1) * CHUNK_US + n % n_burst * 1000
        for n in range(len(payloads))
    ]

    daemon, _ = await served(records(payloads, stamps_us))

    assert is_all_used(daemon, len(payloads))
    assert await n_snippets(payloads) == daemon.count("snippets_total", camera="cam")


@pytest.mark.parametrize("restart_after", [None, STEP_AT, STEP_AT + 1])
async def test_a_restart_places_chunks_where_they_were(
    payloads: list[bytes], restart_after: int | None
) -> None:
    stamps_us = [
        NOW_US + n // 2 * 2 * CHUNK_US + n % 2 * 1000 - 3600 * US_PER_S * (n >= STEP_AT)
        for n in range(len(payloads))
    ]
    undisturbed, wanted = await served(records(payloads, stamps_us))

    daemon, kept = await served(records(payloads, stamps_us), restart_after=restart_after)

    assert wanted.events == kept.events
    assert wanted.events
    assert 0 == daemon.count("late_frames_total", camera="cam")
    assert undisturbed.count("chunks_total", camera="cam") == len(payloads)


@pytest.mark.parametrize("restart_after", [None, 9, 13])  # between a record and its copy
async def test_records_that_are_sent_again_are_told_by_time_and_content(
    payloads: list[bytes], restart_after: int | None
) -> None:
    chunks = records(payloads, even(len(payloads)))
    again = [chunks[n // 2] for n in range(2 * len(chunks))]
    _, wanted = await served(chunks)

    daemon, kept = await served(again, restart_after=restart_after)

    n_before = (restart_after or 0) // 2
    assert len(chunks) - n_before == daemon.count("duplicate_chunks_total", camera="cam")
    assert [e.span for e in wanted.events] == [e.span for e in kept.events]


async def test_a_camera_comes_back_with_another_clock_after_another_producer(
    payloads: list[bytes], tmp_path: Path
) -> None:
    half = len(payloads) // 2
    stamps_us = [us - 3600 * US_PER_S * (n >= half) for n, us in enumerate(even(len(payloads)))]
    chunks = records(payloads, stamps_us)
    clip = colour_clip(tmp_path / "a.mp4", [(1.0, 220, 0)])

    daemon, _ = await served([*chunks[:half], *chunks_of(clip, "cam", run="live"), *chunks[half:]])

    assert [FOREIGN_RUN, "live"] == runs_of(daemon)[:2]
    assert 3 == len(runs_of(daemon))
    assert not daemon.logs.named("chunk.dropped")


@pytest.mark.parametrize("fps", [0.5, 1, 2, 5, 10, 12])
async def test_a_slow_camera_gives_snippets(fps: float) -> None:
    """Chunks of two seconds; red comes and goes."""
    n_frames, n_chunks = round(2 * fps), 15
    payload = [
        make_video(
            pictures=[np.full((48, 64, 3), (230 * (5 <= n < 10), 0, 0), np.uint8)] * n_frames,
            pts=[round(12_800 / fps) * k for k in range(n_frames)],
            gop=50,
        )
        for n in range(n_chunks)
    ]

    daemon, kept = await served(
        records(payload, [NOW_US + n * 2 * US_PER_S for n in range(n_chunks)])
    )

    seconds = 2 * (n_chunks - 1)
    assert daemon.count("snippets_total", camera="cam") >= 0.9 * seconds / 0.16
    assert 0 == daemon.count("gaps_total", camera="cam")
    assert {"red"} == {event.class_name for event in final_of(kept.events).values()}


@pytest.mark.parametrize("restart_after", [None, 6])
@pytest.mark.parametrize("fps", [2, 5, 10])
async def test_raw_motion_jpeg_runs_as_fast_as_its_records_come(
    fps: int, restart_after: int | None
) -> None:
    """It does not say how fast it runs itself."""
    payload = [
        make_video(
            codec="mjpeg",
            container="mjpeg",
            pictures=[np.full((48, 64, 3), (230 * (5 <= n < 10), 0, 0), np.uint8)] * (2 * fps),
        )
        for n in range(15)
    ]
    chunks = records(payload, [NOW_US + n * 2 * US_PER_S for n in range(15)])

    daemon, kept = await served(chunks, restart_after=restart_after)

    assert {"red"} == {event.class_name for event in final_of(kept.events).values()}
    assert 1 >= daemon.count("gaps_total", camera="cam")  # before the second record
    n_chunks = 15 - (restart_after or 0)
    assert daemon.count("snippets_total", camera="cam") >= 0.8 * 2 * (n_chunks - 1) / 0.16
    (event,) = final_of(kept.events).values()
    assert 10 * US_PER_S == pytest.approx(event.span.duration_us, abs=US_PER_S)


async def test_a_camera_that_is_too_slow_is_named() -> None:
    payload = make_video(n_frames=1)

    daemon, _ = await served(records([payload] * 9, [NOW_US + n * 5_000_000 for n in range(9)]))

    assert 0 == daemon.count("snippets_total", camera="cam")
    assert 8 == daemon.count("gaps_total", camera="cam")
    assert "pictures too far apart" in {e["reason"] for e in daemon.logs.named("stream.gap")}
