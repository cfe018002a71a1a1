"""Pictures come out as a player shows them: turned, mirrored, of pixels of any shape."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import UInt8Array
from engine.video.cutting import Transcode, cut_video
from engine.video.frames import PyAvDecoder, probe_video, read_video
from engine.video.pixels import Matrix, View, is_turned, sane_shape, upright
from tests.support.videos import a_chunk, make_video

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
QUADRANTS = np.zeros((48, 64, 3), np.uint8)
QUADRANTS[:24, :32, 0] = QUADRANTS[:24, 32:, 1] = QUADRANTS[24:, :32, 2] = 255
QUADRANTS[24:, 32:] = 255


def shown(video: bytes, path: Path, geometry: FrameGeometry = SQUARE) -> list[UInt8Array]:
    """The first picture of the file, of the chunk that it is, of its chunks, and encoded again."""
    path.write_bytes(video)
    decoder = PyAvDecoder(geometry, EVERY_FRAME)
    pictures = [next(read_video(path, geometry, EVERY_FRAME)).rgb[0]]
    pictures.append(decoder.decode(a_chunk(video)).rgb[0])
    ways: list[Transcode] = ["never", "always"]
    for way in ways:
        chunk = next(cut_video(path, chunk_s=1, on_note=lambda _note: None, transcode=way))
        pictures.append(decoder.decode(a_chunk(chunk.payload)).rgb[0])
    return pictures


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_all_eight_orientations_are_honoured(
    degrees: int, tmp_path: Path, *, mirrored: bool
) -> None:
    video = make_video(pictures=[QUADRANTS] * 2, rotation_deg=degrees, mirrored=mirrored)

    pictures = shown(video, path := tmp_path / "turned.mp4")

    wanted = np.rot90(QUADRANTS[:, 8:56], degrees // 90)[:, :: -1 if mirrored else 1]
    for picture in pictures:
        assert np.abs(wanted.astype(int) - picture).mean() < 8
    facts = probe_video(path)
    assert ((48, 64) if degrees % 180 else (64, 48)) == (facts.width, facts.height)


ONE = 65536


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        (None, [[1, 2], [3, 4]]),
        ((ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), [[3, 4], [1, 2]]),
        ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), [[2, 1], [4, 3]]),
        ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), [[1, 3], [2, 4]]),
        ((0, -ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), [[4, 2], [3, 1]]),
        ((2 * ONE, 1, 0, -1, -2 * ONE, 0, 7, 7, 1 << 30), [[3, 4], [1, 2]]),  # scaled, moved
        ((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30), [[1, 2], [3, 4]]),  # 45 degrees
        ((0, 0, 0, 0, 0, 0, 0, 0, 0), [[1, 2], [3, 4]]),
    ],
)
def test_a_matrix_says_where_points_go(matrix: Matrix | None, wanted: list[list[int]]) -> None:
    picture = np.array([[[1], [2]], [[3], [4]]], np.uint8)

    assert wanted == upright(picture, matrix)[..., 0].tolist()
    assert is_turned(matrix) == (matrix is not None and matrix[0] == 0 != matrix[1])


def stripes(width: int, height: int, seen: int) -> UInt8Array:
    """Red, ``seen`` pixels of green in the middle, blue."""
    rgb = np.zeros((height, width, 3), np.uint8)
    edge = (width - seen) // 2
    rgb[:, :edge, 0] = rgb[:, edge : width - edge, 1] = rgb[:, width - edge :, 2] = 255
    return rgb


@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska"])
@pytest.mark.parametrize(
    ("size", "pixel_shape", "seen", "wanted"),
    [
        ((64, 96), Fraction(2), 48, (128, 96)),
        ((192, 48), Fraction(1, 2), 96, (96, 48)),
        ((72, 64), Fraction(4, 3), 48, (96, 64)),
        ((96, 96), Fraction(1), 96, (96, 96)),
    ],
)
def test_pixels_that_are_not_square_are_stretched(
    size: tuple[int, int],
    pixel_shape: Fraction,
    seen: int,
    wanted: tuple[int, int],
    container: str,
    tmp_path: Path,
) -> None:
    video = make_video(
        pictures=[stripes(*size, seen)] * 2,
        size=size,
        pixel_shape=pixel_shape,
        container=container,
        time_base=Fraction(1, 90_000),
    )

    for picture in shown(video, path := tmp_path / "wide"):
        assert picture[:, 3:-3].mean(axis=(0, 1)) == pytest.approx([0, 255, 0], abs=8)
    facts = probe_video(path)
    assert wanted == (facts.width, facts.height)


def test_padding_keeps_the_shape_that_is_shown(tmp_path: Path) -> None:
    """48 x 48 pixels, each twice as wide as high: shown as 48 x 24 between bars."""
    video = make_video(
        pictures=[np.full((48, 48, 3), 200, np.uint8)] * 2, size=(48, 48), pixel_shape=Fraction(2)
    )

    for picture in shown(video, tmp_path / "wide.mp4", FrameGeometry(48, 48, "pad")):
        assert np.abs(picture[13:35].astype(int) - 200).max() < 8
        assert not picture[:12].any()
        assert not picture[36:].any()


def test_the_container_knows_the_shape_better_than_the_codec(tmp_path: Path) -> None:
    """As where somebody set the aspect of a file and left its pictures as they were."""
    square = make_video(pictures=[stripes(64, 96, 48)] * 2, size=(64, 96), pixel_shape=Fraction(1))
    buffer = io.BytesIO()
    with av.open(io.BytesIO(square)) as source, av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux_one(packet)

    for picture in shown(buffer.getvalue(), tmp_path / "wide.mp4"):
        assert picture[:, 3:-3].mean(axis=(0, 1)) == pytest.approx([0, 255, 0], abs=8)


@pytest.mark.parametrize("said", [None, Fraction(0), Fraction(1, 1000), Fraction(1000)])
def test_a_shape_that_makes_no_sense_is_a_square(said: Fraction | None) -> None:
    assert View().pixel_shape == sane_shape(said)
    assert Fraction(4, 3) == sane_shape(said, Fraction(4, 3))
