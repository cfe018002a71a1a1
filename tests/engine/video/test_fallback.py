"""A GPU's decoder may fail in any way it likes: no chunk is lost, none is decoded otherwise."""

from fractions import Fraction

import numpy as np
import pytest
from av.codec.context import CodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import CorruptChunkError, RefusedChunkError, StreamError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import FrameBatch, VideoChunk
from engine.video.fallback import N_FAILURES, FallbackDecoder
from engine.video.frames import PyAvDecoder
from engine.video.pixels import FrameConverter
from tests.support.videos import a_chunk, make_video, picture

GEOMETRY = FrameGeometry(resize_px=48, crop_px=48)
GRID = Grid(fps=1000, snippet_frames=16, stride_frames=16)
NO_FRAMES = FrameBatch(np.zeros(1, np.int64), np.zeros((1, 48, 48, 3), np.uint8), 1)


class Told:
    """A decoder that does as the chunk's payload says."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.n_calls = 0
        self.is_closed = False

    def decode(self, chunk: VideoChunk) -> FrameBatch:
        assert not self.is_closed
        self.n_calls += 1
        said = chunk.payload.decode()
        if self.word in said or said == "corrupt":
            raise CorruptChunkError(said)
        if said == "refused":
            raise RefusedChunkError(said)
        return NO_FRAMES

    def close(self) -> None:
        self.is_closed = True


def a_fallback() -> tuple[FallbackDecoder, Told, Told, list[str]]:
    notes: list[str] = []
    hardware, software = Told("odd"), Told("never")
    return FallbackDecoder(hardware, software, notes.append), hardware, software, notes


def test_hardware_that_works_is_all_that_is_used() -> None:
    decoder, hardware, software, notes = a_fallback()
    for _ in range(5):
        assert decoder.decode(a_chunk(b"fine")) is NO_FRAMES
    assert (5, 0, []) == (hardware.n_calls, software.n_calls, notes)


def test_a_chunk_the_hardware_cannot_decode_is_decoded_on_the_cpu() -> None:
    decoder, hardware, software, notes = a_fallback()
    assert decoder.decode(a_chunk(b"odd")) is NO_FRAMES
    assert not hardware.is_closed
    assert 1 == software.n_calls
    assert ["decoded on the CPU: odd"] == notes


def test_a_refused_chunk_is_not_tried_twice() -> None:
    decoder, _, software, _ = a_fallback()
    with pytest.raises(RefusedChunkError):
        decoder.decode(a_chunk(b"refused"))
    assert 0 == software.n_calls


def test_after_some_failures_in_a_row_the_camera_stays_on_the_cpu() -> None:
    decoder, hardware, software, notes = a_fallback()
    for _ in range(N_FAILURES + 5):
        decoder.decode(a_chunk(b"odd"))
    assert hardware.is_closed
    assert (N_FAILURES, N_FAILURES + 5) == (hardware.n_calls, software.n_calls)
    assert 2 == len(notes)
    decoder.close()
    assert software.is_closed


@given(st.lists(st.sampled_from(["fine", "odd", "corrupt", "refused"]), max_size=30))
def test_what_comes_out_is_what_the_cpu_alone_would_give(words: list[str]) -> None:
    decoder, hardware, _, _ = a_fallback()
    in_a_row = 0
    for word in words:
        chunk = a_chunk(word.encode())
        try:
            wanted: object = Told("never").decode(chunk)
        except StreamError as error:
            wanted = type(error)
        try:
            seen: object = decoder.decode(chunk)
        except StreamError as error:
            seen = type(error)
        assert wanted == seen if isinstance(wanted, type) else wanted is seen
        # A broken chunk says nothing about the hardware.
        if in_a_row < N_FAILURES and word in ("fine", "odd"):
            in_a_row = in_a_row + 1 if word == "odd" else 0
        assert (in_a_row == N_FAILURES) == hardware.is_closed


def test_without_a_gpu_or_with_one_the_frames_are_the_cpu_s() -> None:
    """Real decoders: here NVDEC is there or it is not, and neither may be seen in the frames."""
    chunk = a_chunk(make_video(n_frames=20))
    notes: list[str] = []
    software = PyAvDecoder(GEOMETRY, GRID)
    decoder = FallbackDecoder(
        PyAvDecoder(GEOMETRY, GRID, gpu=0), PyAvDecoder(GEOMETRY, GRID), notes.append
    )
    wanted = software.decode(chunk)
    for _ in range(N_FAILURES + 1):
        seen = decoder.decode(chunk)
        assert np.array_equal(wanted.pts_us, seen.pts_us)
        assert np.array_equal(wanted.rgb, seen.rgb)
    if notes:
        assert notes[0].startswith("decoded on the CPU: camera ")
    decoder.close()


@pytest.mark.parametrize("full_range", [False, True])
def test_pictures_as_a_gpu_gives_them_convert_to_the_same_pixels(*, full_range: bool) -> None:
    """NVDEC gives NV12 where the CPU gives planar YUV: the same samples in another order."""
    rgb = VideoFrame.from_ndarray(picture(3, 64, 48), format="rgb24")
    planar = rgb.reformat(format="yuvj420p" if full_range else "yuv420p")
    as_gpu = _interleaved(planar)
    as_gpu.color_range = ColorRange.JPEG if full_range else ColorRange.MPEG
    converter = FrameConverter(GEOMETRY)
    assert np.array_equal(converter.convert(planar), converter.convert(as_gpu))


def _interleaved(planar: VideoFrame) -> VideoFrame:
    samples = planar.to_ndarray()
    height, width = planar.height, planar.width
    luma, chroma = samples[:height], samples[height:].reshape(2, -1)
    mixed = np.ascontiguousarray(chroma.T).reshape(height // 2, width)
    return VideoFrame.from_ndarray(np.concatenate([luma, mixed]), format="nv12")


def test_a_codec_no_gpu_knows_is_a_chunk_s_fault_not_ours() -> None:
    assert "mjpeg" in CodecContext.create("mjpeg", "r").codec.canonical_name
    chunk = a_chunk(make_video(codec="mjpeg", container="avi", n_frames=4, fps=Fraction(25)))
    with pytest.raises(CorruptChunkError, match="camera "):
        PyAvDecoder(GEOMETRY, GRID, gpu=97).decode(chunk)
