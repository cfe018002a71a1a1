"""Where a source's clock steps, every picture is there, and as far from the next as ever."""

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import FrameBatch, UInt8Array
from engine.video.cutting import Transcode, cut_video
from engine.video.frames import PyAvDecoder, read_video
from engine.video.steps import SteadyClock
from tests.support.videos import (
    a_chunk,
    has_encoder,
    make_video,
    with_shifted_times,
    without_times,
)

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
TICKS_PER_S = 90_000
N_FRAMES, GOP, APART = 40, 10, 3600
HOURS = 3600 * TICKS_PER_S

STEPS: dict[str, Callable[[int], int]] = {
    "back at a key frame": lambda n: 0 if n < 20 else -1 * TICKS_PER_S,
    "back inside a GOP": lambda n: 0 if n < 25 else -1 * TICKS_PER_S,
    "an hour back": lambda n: 2 * HOURS if n < 25 else HOURS,
    "seven hours ahead": lambda n: 0 if n < 25 else 7 * HOURS,
    "ahead, and back again": lambda n: 7 * HOURS if 15 <= n < 27 else 0,
    "33 bits run over": lambda _n: 2**33 - 30 * APART,
    "33 bits run over twice": lambda n: 2**33 - 15 * APART if n < 30 else -40 * APART,
}


def a_ts(codec: str = "h264", b_frames: int = 0) -> bytes:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    return make_video(
        codec=codec,
        container="mpegts",
        n_frames=N_FRAMES,
        gop=GOP,
        b_frames=b_frames,
        time_base=Fraction(1, TICKS_PER_S),
    )


def of_file(path: Path) -> tuple[list[int], UInt8Array]:
    return joined(list(read_video(path, SQUARE, EVERY_FRAME)))


def of_chunks(path: Path, transcode: Transcode = "auto") -> tuple[list[int], UInt8Array]:
    decoder = PyAvDecoder(SQUARE, EVERY_FRAME)
    pieces = cut_video(path, chunk_s=0.4, on_note=lambda _note: None, transcode=transcode)
    return joined([decoder.decode(c.to_chunk("cam", "e", n)) for n, c in enumerate(pieces)])


def joined(batches: list[FrameBatch]) -> tuple[list[int], UInt8Array]:
    times = [us for batch in batches for us in batch.pts_us.tolist()]
    return times, np.concatenate([batch.rgb for batch in batches])


def are_the_pictures(seen: tuple[list[int], UInt8Array], wanted: UInt8Array, apart: int) -> bool:
    """All of them, evenly spaced; ``apart`` is how far re-encoding may change one."""
    times, pictures = seen
    return times == [40_000 * n for n in range(len(wanted))] and bool(
        np.abs(pictures.astype(int) - wanted).mean() <= apart
    )


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 0), ("h264", 2), ("hevc", 2)])
def test_a_step_costs_no_picture_and_no_time(
    codec: str, b_frames: int, step: str, tmp_path: Path
) -> None:
    whole, path = a_ts(codec, b_frames), tmp_path / "a.ts"
    path.write_bytes(whole)
    _, wanted = of_file(path)
    stepping = with_shifted_times(whole, STEPS[step])
    path.write_bytes(stepping)

    assert are_the_pictures(of_file(path), wanted, 0)
    assert are_the_pictures(of_chunks(path), wanted, 0)
    assert are_the_pictures(of_chunks(path, "always"), wanted, 4)
    decoded = PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(stepping))
    assert are_the_pictures(joined([decoded]), wanted, 0)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("pattern", [(10, 0), (3, 0), (3, 1)])
def test_a_step_where_times_are_missing_too_costs_as_little(
    step: str, pattern: tuple[int, int], tmp_path: Path
) -> None:
    every, which = pattern
    lacking: list[bytes] = []
    for b_frames in (0, 2):
        stepping = with_shifted_times(a_ts(b_frames=b_frames), STEPS[step])
        lacking.append(without_times(stepping, keep=lambda n: n % every == which or n == 0))
    path = tmp_path / "a.ts"
    path.write_bytes(a_ts())
    _, wanted = of_file(path)

    path.write_bytes(lacking[0])
    assert are_the_pictures(of_file(path), wanted, 0)
    assert are_the_pictures(of_chunks(path), wanted, 0)
    path.write_bytes(lacking[1])  # whose order only a decoder knows
    times, _ = of_file(path)
    assert times == of_chunks(path)[0]
    assert len(times) >= 0.8 * N_FRAMES
    assert times[-1] < 3_000_000


@pytest.mark.parametrize("n_parts", [2, 5])
@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 0), ("h264", 2), ("hevc", 2)])
def test_parts_put_one_behind_the_other_lose_nothing_at_joins(
    codec: str, b_frames: int, n_parts: int, tmp_path: Path
) -> None:
    part, path = a_ts(codec, b_frames), tmp_path / "a.ts"
    path.write_bytes(part)
    _, pictures = of_file(path)
    wanted = np.concatenate([pictures] * n_parts)
    path.write_bytes(part * n_parts)

    assert are_the_pictures(of_file(path), wanted, 0)
    assert are_the_pictures(of_chunks(path), wanted, 0)
    decoded = PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(part * n_parts))
    assert are_the_pictures(joined([decoded]), wanted, 0)


def test_each_step_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(with_shifted_times(a_ts(), STEPS["ahead, and back again"]))
    of_a_reader: list[str] = []
    of_a_cutter: list[str] = []

    list(read_video(path, SQUARE, EVERY_FRAME, on_note=of_a_reader.append))
    list(cut_video(path, chunk_s=0.4, on_note=of_a_cutter.append))

    assert of_a_reader == of_a_cutter
    assert ["+25200.0 s", "-25200.0 s"] == [note.split()[5] + " s" for note in of_a_reader]


def test_a_recording_with_a_real_pause_keeps_it(tmp_path: Path) -> None:
    """A container whose clock cannot run over is believed."""
    pts = [512 * n + (n >= 20) * 12_800 * 3600 for n in range(40)]
    path = tmp_path / "a.mp4"
    path.write_bytes(make_video(pts=pts, gop=GOP))

    times, _ = of_file(path)

    assert 3_600_000_000 + 39 * 40_000 == times[-1]
    assert times == of_chunks(path)[0]


def a_clock(
    notes: list[str], *, may_reorder: bool = False, most_ahead: int | None = 60 * TICKS_PER_S
) -> SteadyClock:
    return SteadyClock(
        Fraction(1, TICKS_PER_S),
        Fraction(APART),
        most_ahead=most_ahead,
        may_reorder=may_reorder,
        on_note=notes.append,
    )


@given(
    steps=st.dictionaries(
        st.integers(1, 199),
        st.one_of(st.integers(-(2**33), -2 * APART), st.integers(61 * TICKS_PER_S, 2**33)),
        max_size=8,
    ),
    cuts=st.sets(st.integers(0, 199)),
)
def test_whatever_steps_the_clock_makes_time_goes_on_evenly(
    steps: dict[int, int], cuts: set[int]
) -> None:
    notes: list[str] = []
    clock = a_clock(notes)
    shifts = accumulate(steps.get(n, 0) for n in range(200))

    shown = []
    for n, shift in enumerate(shifts):
        at = n * APART + shift
        shown.append(at + clock.shift_for(at, at, is_cut=n in cuts))

    assert [APART * n for n in range(200)] == shown
    assert len(steps) == len(notes)


@given(
    late=st.lists(st.integers(0, 2 * APART - 1), min_size=2, max_size=200),
    every=st.integers(1, 20),
)
def test_a_clock_that_trembles_does_not_drift(late: list[int], every: int) -> None:
    notes: list[str] = []
    clock = a_clock(notes)

    shown = [
        (n, n * APART + ticks + clock.shift_for(n * APART + ticks, None, is_cut=n % every == 0))
        for n, ticks in enumerate(late)
    ]

    assert [] == notes
    assert all(before < after for (_, before), (_, after) in pairwise(shown))
    assert all(abs(at - n * APART) < 3 * APART for n, at in shown)
