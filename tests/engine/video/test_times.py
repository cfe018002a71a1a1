"""A picture keeps its place and its time, whatever the container leaves out."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import US_PER_S, Grid
from engine.spec import FrameGeometry
from engine.types import FrameBatch, UInt8Array
from engine.video.cutting import Transcode, cut_video
from engine.video.frames import PyAvDecoder, read_video
from engine.video.times import nominal_rate
from tests.support.videos import a_chunk, has_encoder, make_video, without_times

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
N_FRAMES, GOP = 40, 10
US_PER_TICK = 12  # of MPEG-TS, rounded up
PATTERNS: dict[str, Callable[[int], bool]] = {
    "key frames only": lambda index: index % GOP == 0,
    "the first only": lambda index: index == 0,
    "all but key frames": lambda index: index % GOP != 0,
    "all but the first": lambda index: index > 0,
    "every third": lambda index: index % 3 == 0,
    "every third but key frames": lambda index: index % 3 == 1,
    "one in the middle": lambda index: index == N_FRAMES // 2,
    "none": lambda _index: False,
}


def a_ts(codec: str = "h264", b_frames: int = 0, fps: int = 25) -> bytes:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    return make_video(
        codec=codec,
        container="mpegts",
        n_frames=N_FRAMES,
        gop=GOP,
        b_frames=b_frames,
        fps=fps,
        time_base=Fraction(1, 90_000),
    )


def of_file(path: Path) -> tuple[list[int], UInt8Array]:
    return joined(list(read_video(path, SQUARE, EVERY_FRAME)))


def of_chunks(path: Path, transcode: Transcode = "auto") -> tuple[list[int], UInt8Array]:
    decoder = PyAvDecoder(SQUARE, EVERY_FRAME)
    pieces = cut_video(path, chunk_s=0.4, on_note=lambda _note: None, transcode=transcode)
    chunks = [piece.to_chunk("cam-1", "e", index) for index, piece in enumerate(pieces)]
    return joined([decoder.decode(chunk) for chunk in chunks])


def joined(batches: list[FrameBatch]) -> tuple[list[int], UInt8Array]:
    times = [us for batch in batches for us in batch.pts_us.tolist()]
    return times, np.concatenate([batch.rgb for batch in batches])


def is_same(
    seen: tuple[list[int], UInt8Array], wanted: tuple[list[int], UInt8Array], apart: float = 0
) -> bool:
    """The same pictures, at the same times but for a tick."""
    times, pictures = seen
    return (
        len(times) == len(wanted[0])
        and all(abs(a - b) <= US_PER_TICK for a, b in zip(times, wanted[0], strict=True))
        and bool(np.abs(pictures.astype(int) - wanted[1]).mean() <= apart)
    )


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 0), ("h264", 2), ("hevc", 2)])
def test_a_picture_without_a_time_keeps_its_place(
    codec: str, b_frames: int, pattern: str, tmp_path: Path
) -> None:
    whole = a_ts(codec, b_frames)
    path = tmp_path / "a.ts"
    path.write_bytes(whole)
    wanted = of_file(path)
    assert N_FRAMES == len(wanted[0])
    lacking = without_times(whole, keep=PATTERNS[pattern])
    path.write_bytes(lacking)

    assert is_same(of_file(path), wanted)
    assert is_same(of_chunks(path), wanted)
    assert is_same(of_chunks(path, "always"), wanted, apart=4)
    assert is_same(joined([PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(lacking))]), wanted)


@given(kept=st.sets(st.integers(1, N_FRAMES - 1)), fps=st.sampled_from([5, 12, 50]))
def test_a_file_and_its_chunks_agree_whatever_is_left_out(
    kept: set[int], fps: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("times") / "a.ts"
    path.write_bytes(
        without_times(a_ts(b_frames=2, fps=fps), keep=lambda index: index in kept or not index)
    )

    times, _ = seen = of_file(path)

    assert N_FRAMES == len(times)
    assert all(before < after for before, after in pairwise(times))
    assert is_same(of_chunks(path, "never"), seen)


@pytest.mark.parametrize("keep", ["every third", "key frames only", "every third but key frames"])
def test_times_are_missing_beside_a_step_back_of_the_clock(keep: str, tmp_path: Path) -> None:
    """As where a recorder appends what a camera sent after its start."""
    path = tmp_path / "appended.ts"
    late = make_video(
        container="mpegts",
        pts=[3600 * index + 20 * 90_000 for index in range(N_FRAMES)],
        gop=GOP,
        time_base=Fraction(1, 90_000),
    )
    parts = [without_times(ts, keep=PATTERNS[keep]) for ts in (late, a_ts())]
    path.write_bytes(b"".join(parts))

    times, _ = of_file(path)

    assert 2 * N_FRAMES - 1 <= len(times)  # the last one before the seam may be cut
    steps = {after - before for before, after in pairwise(times)}
    assert all(abs(step - 40_000) <= 2 * US_PER_TICK for step in sorted(steps)[1:-1])
    assert max(steps) < 200_000


def test_times_that_are_missing_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(without_times(a_ts(), keep=PATTERNS["key frames only"]))
    of_a_reader: list[str] = []
    of_a_cutter: list[str] = []

    list(read_video(path, SQUARE, EVERY_FRAME, on_note=of_a_reader.append))
    list(cut_video(path, chunk_s=0.4, on_note=of_a_cutter.append))

    assert of_a_reader == of_a_cutter
    assert "some pictures carry no time" in of_a_reader[0]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("fps", [1, 5, 10, 12, 30, 60, 120])
def test_a_raw_stream_runs_as_fast_as_it_says(codec: str, fps: int, tmp_path: Path) -> None:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    path = tmp_path / f"a.{codec}"
    path.write_bytes(
        make_video(codec=codec, container=codec, n_frames=12, fps=fps, time_base=Fraction(1, fps))
    )
    wanted = [round(Fraction(index * US_PER_S, fps)) for index in range(12)]

    of_a_chunk = PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(path.read_bytes()))

    assert wanted == of_a_chunk.pts_us.tolist()
    assert wanted == of_file(path)[0]
    assert wanted == of_chunks(path)[0]


class Said:
    """A stream that says how fast it runs."""

    def __init__(self, codec: Fraction | None, container: Fraction | None) -> None:
        self.codec_context = SimpleNamespace(framerate=codec)
        self.average_rate = container


@pytest.mark.parametrize(
    ("codec", "container", "wanted"),
    [
        (Fraction(10), Fraction(25), 10),
        (None, Fraction(15), 15),
        (None, None, 25),
        (Fraction(180_000), Fraction(30), 30),
        (Fraction(1, 3600), None, 25),
        (Fraction(0), Fraction(0), 25),
    ],
)
def test_the_codec_knows_its_rate_better_than_the_container(
    codec: Fraction | None, container: Fraction | None, wanted: int
) -> None:
    assert wanted == nominal_rate(cast(VideoStream, Said(codec, container)))
