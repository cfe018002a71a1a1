"""Cutting a live camera: a real RTSP server at the other end."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from engine.errors import UnreadableVideoError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import FrameBatch
from engine.video.cutting import CutChunk, cut_video
from engine.video.frames import PyAvDecoder, read_video
from tests.support.rtsp import rtsp_camera
from tests.support.videos import make_video

pytestmark = [pytest.mark.rtsp, pytest.mark.slow]

GEOMETRY = FrameGeometry(resize_px=48, crop_px=48)
GRID = Grid(fps=25, snippet_frames=4, stride_frames=4)
FRAME_US = 40_000
GOP = 10
N_FRAMES = 80


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """3.2 s at 25 fps, a key frame each 0.4 s, no two frames alike."""
    path = tmp_path / "footage.mp4"
    path.write_bytes(make_video(n_frames=N_FRAMES, gop=GOP))
    return path


def frames(batches: Sequence[FrameBatch]) -> npt.NDArray[np.uint8]:
    return np.concatenate([batch.rgb for batch in batches])


def decoded(cut: Sequence[CutChunk]) -> list[FrameBatch]:
    decoder = PyAvDecoder(GEOMETRY, GRID)
    return [decoder.decode(chunk.to_chunk("cam", "e", n)) for n, chunk in enumerate(cut)]


def test_chunks_of_a_live_camera_are_its_own_pictures_up_to_the_last(footage: Path) -> None:
    notes: list[str] = []
    with rtsp_camera(footage) as url:
        cut = list(cut_video(url, chunk_s=0.4, on_note=notes.append, live=True))
    batches = decoded(cut)
    seen = frames(batches)
    sent = frames(list(read_video(footage, GEOMETRY, GRID)))
    # What came before the connection was ready is gone; from the first key frame on, all is there.
    assert (len(sent) - len(seen)) % GOP == 0
    assert np.array_equal(seen, sent[-len(seen) :])
    assert not any("re-encoded" in note for note in notes)


def test_stream_time_of_a_live_camera_starts_at_zero_and_keeps_its_pace(footage: Path) -> None:
    with rtsp_camera(footage) as url:
        cut = list(cut_video(url, chunk_s=0.8, on_note=lambda _note: None, live=True))
    pts_us = np.concatenate([batch.pts_us for batch in decoded(cut)])
    assert pts_us.tolist() == [FRAME_US * index for index in range(len(pts_us))]
    assert [chunk.start_us for chunk in cut] == [
        2 * GOP * FRAME_US * index for index in range(len(cut))
    ]


def test_a_camera_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(UnreadableVideoError, match=r"rtsp://\*\*\*@127\.0\.0\.1:9/cam") as refusal:
        next(cut_video("rtsp://u:secret@127.0.0.1:9/cam", chunk_s=1, on_note=print))
    assert "secret" not in str(refusal.value)
