"""Decoded pictures → the model's square of RGB, and RGB → JPEG."""

import struct
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
from av.buffer import Buffer
from av.codec.context import CodecContext
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from engine.grid import US_PER_S
from engine.spec import FrameGeometry
from engine.types import UInt8Array

# Swscale's bilinear kernel widens when it shrinks a picture, so it does not alias. Without the
# other two flags it takes short cuts that darken everything by 2 of 255.
_INTERPOLATION = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
_WIDEST = 8
_DOT_PX = 16
_JPEG_QUALITY = 4  # FFmpeg's scale from 1, best, to 31
Matrix = tuple[int, int, int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class View:
    """How decoded pictures are shown.

    Attributes:
        pixel_shape: Width of a pixel by its height.
        matrix: How they are turned and mirrored; None: not at all.
    """

    pixel_shape: Fraction = Fraction(1)
    matrix: Matrix | None = None


PLAIN = View()


class FrameConverter:
    """Decoded pictures of any size and format → the model's square of RGB.

    Args:
        geometry: Size and fit.

    Attributes:
        spent_s: Seconds spent on conversion since it was made, for benchmarks.
    """

    def __init__(self, geometry: FrameGeometry) -> None:
        self.spent_s = 0.0
        self._geometry = geometry
        self._scaler, self._packer = VideoReformatter(), VideoReformatter()
        self._cropper: Graph | None = None
        self._cropper_key: tuple[int, int, str, Fraction] | None = None
        self._padded_size = 0, 0
        self._padded_key: tuple[int, int, Fraction] | None = None

    def convert(self, frame: VideoFrame, view: View = PLAIN) -> UInt8Array:
        """A frame as uint8 (H, W, 3), as a player shows it; H and W are ``crop_px``."""
        started_s = time.perf_counter()
        fit = self._crop if self._geometry.fit == "crop" else self._pad
        rgb = np.ascontiguousarray(upright(fit(frame, view.pixel_shape), view.matrix))
        self.spent_s += time.perf_counter() - started_s
        return rgb

    def _crop(self, frame: VideoFrame, pixel_shape: Fraction) -> UInt8Array:
        """The square in the frame's centre, uint8 (H, W, 3)."""
        # Cut the square out before scaling it: the rest would be scaled and converted for nothing.
        key = (frame.width, frame.height, frame.format.name, pixel_shape)
        if key != self._cropper_key:
            self._cropper, self._cropper_key = self._new_cropper(frame, pixel_shape), key
        if self._cropper is not None:
            self._cropper.push(frame)
            frame = self._cropper.vpull()
        return self._scale(frame, self._geometry.crop_px, self._geometry.crop_px)

    def _new_cropper(self, frame: VideoFrame, pixel_shape: Fraction) -> Graph | None:
        # Sides are even, because chroma planes have half the size.
        shorter = min(Fraction(frame.height), frame.width * pixel_shape)
        exact = shorter * self._geometry.crop_px / self._geometry.resize_px
        height = max(min(2 * round(exact / 2), int(shorter) // 2 * 2), 2)
        width = max(min(2 * round(height / pixel_shape / 2), frame.width // 2 * 2), 2)
        if (frame.width, frame.height) == (width, height):
            return None
        return _centre_cropper(frame, width, height)

    def _pad(self, frame: VideoFrame, pixel_shape: Fraction) -> UInt8Array:
        """The whole frame on a black square, uint8 (H, W, 3)."""
        key = frame.width, frame.height, pixel_shape
        if key != self._padded_key:
            self._padded_size, self._padded_key = self._new_padded_size(*key), key
        width, height = self._padded_size
        side = self._geometry.crop_px
        left, top = (side - width) // 2, (side - height) // 2
        padded = np.zeros((side, side, 3), np.uint8)
        padded[top : top + height, left : left + width] = self._scale(frame, width, height)
        return padded

    def _new_padded_size(self, width: int, height: int, pixel_shape: Fraction) -> tuple[int, int]:
        shown = width * pixel_shape, Fraction(height)
        shrink = self._geometry.resize_px / max(shown)
        return max(1, round(shown[0] * shrink)), max(1, round(shown[1] * shrink))

    def _scale(self, frame: VideoFrame, width: int, height: int) -> UInt8Array:
        """The frame at another size, uint8 (H, W, 3)."""
        # Into planes swscale goes with vector instructions, and into packed pixels without, which
        # takes twice as long. The pixels are the same, but where it makes a picture higher: there
        # it rounds packed ones otherwise.
        form = "gbrp" if frame.height >= height else "rgb24"
        scaled = self._scaler.reformat(
            frame, width, height, form, interpolation=_INTERPOLATION, threads=1
        )
        rgb = self._packer.reformat(scaled, format="rgb24", threads=1)
        return np.asarray(rgb.to_ndarray(), np.uint8)


def _centre_cropper(frame: VideoFrame, width: int, height: int) -> Graph:
    """FFmpeg's crop filter, which moves pointers and copies nothing."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=Fraction(1, US_PER_S),
    )
    graph.link_nodes(source, graph.add("crop", f"{width}:{height}"), graph.add("buffersink"))
    graph.configure()
    return graph


def sane_shape(*said: Fraction | None) -> Fraction:
    """The first shape of a pixel that makes sense, of those that are said; else a square."""
    return next((shape for shape in said if shape and _is_sane(shape)), PLAIN.pixel_shape)


def _is_sane(shape: Fraction) -> bool:
    across, along = shape.numerator, shape.denominator
    return across <= _WIDEST * along and along <= _WIDEST * across


def display_matrix(frame: VideoFrame, reformatter: VideoReformatter) -> Matrix | None:
    """How a frame is turned and mirrored when it is shown, in FFmpeg's words; None: not at all.

    Args:
        frame: The frame.
        reformatter: Any, of the caller's thread; it is quicker the second time.
    """
    # PyAV ties a frame that was asked for its side data into a ring, which keeps the picture until
    # Python looks for such rings: hundreds of megabytes. So a dot of it is asked, for some 3 us.
    dot = reformatter.reformat(
        frame, _DOT_PX, _DOT_PX, "gray", interpolation=Interpolation.POINT, threads=1
    )
    said = cast("Buffer | None", dot.side_data.get("DISPLAYMATRIX"))
    return None if said is None else cast(Matrix, struct.unpack_from("=9i", bytes(said)))


def is_turned(matrix: Matrix | None) -> bool:
    """Do width and height change places?"""
    return _turns(*_axes(matrix))


def upright(rgb: UInt8Array, matrix: Matrix | None) -> UInt8Array:
    """A picture (H, W, 3) as it is shown; odd angles are left alone.

    A point (x, y) of the frame is shown at (a x + c y, b x + d y).
    """
    if matrix is None:
        return rgb
    a, b, c, d = _axes(matrix)
    if _turns(a, b, c, d):
        return _mirrored(rgb.swapaxes(0, 1), is_left_right=c < 0, is_upside_down=b < 0)
    if b == c == 0:
        return _mirrored(rgb, is_left_right=a < 0, is_upside_down=d < 0)
    return rgb


def _turns(a: int, b: int, c: int, d: int) -> bool:
    return a == d == 0 and bool(b and c)


def _axes(matrix: Matrix | None) -> tuple[int, int, int, int]:
    """a, b, c, d of a matrix, where next to nothing is nothing."""
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = matrix
    largest = max(abs(a), abs(b), abs(c), abs(d))
    a, b, c, d = (value if abs(value) * 100 > largest else 0 for value in (a, b, c, d))
    return a, b, c, d


def _mirrored(rgb: UInt8Array, *, is_left_right: bool, is_upside_down: bool) -> UInt8Array:
    return rgb[:: -1 if is_upside_down else 1, :: -1 if is_left_right else 1]


def encode_jpeg(rgb: UInt8Array) -> bytes:
    """A picture as JPEG.

    Args:
        rgb: uint8 (H, W, 3).
    """
    encoder = CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = rgb.shape[:2]
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.qscale = True
    encoder.global_quality = _JPEG_QUALITY
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    packets = [*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
