"""Of a trimmed MP4, files and chunks show what a player shows: what an edit list leaves."""

from pathlib import Path

import numpy as np
import pytest

from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import FrameBatch, UInt8Array
from engine.video.cutting import CutChunk, Transcode, cut_video
from engine.video.frames import PyAvDecoder, read_video
from tests.support.videos import has_encoder, make_video, trimmed

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
FPS, GOP, N_FRAMES = 25, 10, 60
# First and last picture shown. Key frames are at 0, 10, 20 ...
PARTS = [(0, 60), (10, 60), (13, 60), (19, 60), (20, 40), (3, 58), (25, 28), (13, 45), (50, 60)]


def a_part(path: Path, first: int, last: int, codec: str = "h264", gop: int = GOP) -> Path:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    video = make_video(codec=codec, n_frames=N_FRAMES, gop=gop, b_frames=2)
    path.write_bytes(trimmed(video, from_s=first / FPS, until_s=last / FPS))
    return path


def joined(batches: list[FrameBatch]) -> tuple[list[int], UInt8Array]:
    times = [us for batch in batches for us in batch.pts_us.tolist()]
    return times, np.concatenate([batch.rgb for batch in batches])


def cut(path: Path, transcode: Transcode = "auto") -> tuple[list[CutChunk], list[str]]:
    notes: list[str] = []
    return list(cut_video(path, chunk_s=0.4, on_note=notes.append, transcode=transcode)), notes


def decoded(chunks: list[CutChunk]) -> tuple[list[int], UInt8Array]:
    decoder = PyAvDecoder(SQUARE, EVERY_FRAME)
    return joined(
        [decoder.decode(chunk.to_chunk("cam-1", "e", n)) for n, chunk in enumerate(chunks)]
    )


@pytest.mark.parametrize("transcode", ["auto", "always"])
@pytest.mark.parametrize(("codec", "gop"), [("h264", GOP), ("h264", 100), ("hevc", GOP)])
@pytest.mark.parametrize(("first", "last"), PARTS)
def test_chunks_show_what_the_file_shows(
    first: int, last: int, codec: str, gop: int, transcode: Transcode, tmp_path: Path
) -> None:
    path = a_part(tmp_path / "part.mp4", first, last, codec, gop)

    times, pictures = joined(list(read_video(path, SQUARE, EVERY_FRAME)))
    chunks, _ = cut(path, transcode)

    assert [40_000 * index for index in range(last - first)] == times
    seen_times, seen = decoded(chunks)
    assert times == seen_times
    assert np.abs(seen.astype(int) - pictures).mean(axis=(1, 2, 3)).max() < 4
    assert last - first == sum(chunk.n_frames for chunk in chunks)


@pytest.mark.parametrize(("first", "n_encoded"), [(0, 0), (10, 0), (13, 7), (19, 1)])
def test_only_the_gop_that_is_hidden_in_part_is_encoded_again(
    first: int, n_encoded: int, tmp_path: Path
) -> None:
    path = a_part(tmp_path / "part.mp4", first, N_FRAMES)

    _, pictures = joined(list(read_video(path, SQUARE, EVERY_FRAME)))
    chunks, notes = cut(path)

    _, seen = decoded(chunks)
    assert np.array_equal(pictures[n_encoded:], seen[n_encoded:])
    wanted = ["re-encoded with H.264, for its edit list hides pictures that others refer to"]
    assert (wanted if n_encoded else []) == notes


def test_the_chunks_of_a_trimmed_file_play_as_one_video(tmp_path: Path) -> None:
    """Where copying begins, a player may drop a picture, for frames begin to wait for others."""
    path = a_part(tmp_path / "part.mp4", 13, N_FRAMES)
    chunks, _ = cut(path)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(b"".join(chunk.payload for chunk in chunks))

    _, wanted = decoded(chunks)
    _, played = joined(list(read_video(whole, SQUARE, EVERY_FRAME)))

    assert np.array_equal(wanted[:7], played[:7])
    assert np.array_equal(wanted[8:], played[-len(wanted[8:]) :])


def test_what_cannot_be_shown_without_encoding_is_said(tmp_path: Path) -> None:
    path = a_part(tmp_path / "part.mp4", 13, N_FRAMES)

    chunks, notes = cut(path, "never")

    assert N_FRAMES - 20 == sum(chunk.n_frames for chunk in chunks)
    assert ["7 pictures were left out"] == [note.partition(",")[0] for note in notes]
