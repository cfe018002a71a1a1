"""A file that ends before it should says how much of it is missing."""

import io
from pathlib import Path

import av
import pytest

from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.video.ending import n_bytes_cut_off
from engine.video.frames import read_video
from engine.video.losses import Losses
from tests.support.videos import make_video, trimmed

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)


def with_index_first(mp4: bytes, path: Path) -> bytes:
    with (
        av.open(io.BytesIO(mp4)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path.read_bytes()


def losses_of(video: bytes, path: Path) -> tuple[Losses, list[str]]:
    path.write_bytes(video)
    losses, notes = Losses(), list[str]()
    for _ in read_video(path, SQUARE, EVERY_FRAME, on_note=notes.append, losses=losses):
        pass
    return losses, notes


@pytest.mark.parametrize("kind", ["mp4", "fragments", "matroska", "avi"])
def test_what_a_file_lacks_that_was_cut_off_is_told(kind: str, tmp_path: Path) -> None:
    movflags = "frag_every_frame+empty_moov" if kind == "fragments" else ""
    container = "mp4" if kind == "fragments" else kind
    whole = make_video(container=container, movflags=movflags, n_frames=200, size=(320, 240))
    if kind == "mp4":
        whole = with_index_first(whole, tmp_path / "fast.mp4")

    losses, notes = losses_of(whole[: len(whole) // 2 + 37], tmp_path / "cut.vid")
    nothing, none = losses_of(whole, tmp_path / "whole.vid")

    why = "the video ends early: the file was cut off"
    assert why in losses.reasons
    assert why in notes
    if kind != "fragments":  # each says how long it is, and none how many there should be
        apart = 2 if kind == "avi" else 0.5  # AVI's index may be large, and counts as footage
        assert pytest.approx(8, abs=apart) == losses.shown_s + losses.lost_s
        assert losses.share > 0.3
    assert (0, "", []) == (nothing.n_parts, nothing.told, none)


def test_a_trimmed_video_lacks_nothing(tmp_path: Path) -> None:
    video = trimmed(make_video(n_frames=100, b_frames=2), from_s=1.1, until_s=2.5)

    losses, notes = losses_of(video, tmp_path / "trimmed.mp4")

    assert ("", []) == (losses.told, notes)


@pytest.mark.parametrize(
    ("content", "name", "wanted"),
    [
        (b"", "mov,mp4", 0),
        (b"\0\0\0\x0cftypisom" + b"\0\0\0\x10moov", "mov,mp4", 8),
        (b"\0\0\0\x00mdat", "mov,mp4", 0),  # up to the end
        (b"\0\0\0\x01mdat" + bytes(6) + b"\1\0" + bytes(9), "mov,mp4", 231),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x8a12345", "matroska,webm", 5),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff12345", "matroska,webm", 0),  # live
        (b"\x1a\x45\xdf\xa3\x80", "matroska,webm", 0),
        (b"RIFF\x0a\0\0\0AVI 12", "avi", 4),
        (b"G" * 188, "mpegts", 0),
    ],
)
def test_bytes_that_are_not_there(content: bytes, name: str, wanted: int) -> None:
    assert wanted == n_bytes_cut_off(io.BytesIO(content), name)
