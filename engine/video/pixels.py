"""Decoded pictures → the model's square of RGB, and RGB → JPEG."""

import time
from fractions import Fraction

import numpy as np
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
_JPEG_QUALITY = 4  # FFmpeg's scale from 1, best, to 31


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
        self._reformatter = VideoReformatter()
        self._cropper: Graph | None = None
        self._cropper_key: tuple[int, int, str] | None = None

    def convert(self, frame: VideoFrame) -> UInt8Array:
        """A frame as uint8 (H, W, 3), upright; H and W are ``crop_px``."""
        started_s = time.perf_counter()
        fit = self._crop if self._geometry.fit == "crop" else self._pad
        rgb = np.ascontiguousarray(np.rot90(fit(frame), quarter_turns(frame)))
        self.spent_s += time.perf_counter() - started_s
        return rgb

    def _crop(self, frame: VideoFrame) -> UInt8Array:
        """The square in the frame's centre, uint8 (H, W, 3)."""
        # Cut the square out before scaling it: the rest would be scaled and converted for nothing.
        # Its side is even, because chroma planes have half the size.
        shorter = min(frame.width, frame.height)
        exact = shorter * self._geometry.crop_px / self._geometry.resize_px
        side = min(2 * round(exact / 2), shorter // 2 * 2)
        square = self._cut_centre(frame, max(side, 2))
        return self._scale(square, self._geometry.crop_px, self._geometry.crop_px)

    def _pad(self, frame: VideoFrame) -> UInt8Array:
        """The whole frame on a black square, uint8 (H, W, 3)."""
        shrink = self._geometry.resize_px / max(frame.width, frame.height)
        width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
        side = self._geometry.crop_px
        left, top = (side - width) // 2, (side - height) // 2
        padded = np.zeros((side, side, 3), np.uint8)
        padded[top : top + height, left : left + width] = self._scale(frame, width, height)
        return padded

    def _scale(self, frame: VideoFrame, width: int, height: int) -> UInt8Array:
        """The frame at another size, uint8 (H, W, 3)."""
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=_INTERPOLATION, threads=1
        )
        return np.asarray(rgb.to_ndarray(), np.uint8)

    def _cut_centre(self, frame: VideoFrame, side: int) -> VideoFrame:
        if (frame.width, frame.height) == (side, side):
            return frame
        key = (frame.width, frame.height, frame.format.name)
        if self._cropper is None or key != self._cropper_key:
            self._cropper, self._cropper_key = _centre_cropper(frame, side), key
        self._cropper.push(frame)
        return self._cropper.vpull()


def _centre_cropper(frame: VideoFrame, side: int) -> Graph:
    """FFmpeg's crop filter, which moves pointers and copies nothing."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=Fraction(1, US_PER_S),
    )
    graph.link_nodes(source, graph.add("crop", f"{side}:{side}"), graph.add("buffersink"))
    graph.configure()
    return graph


def quarter_turns(frame: VideoFrame) -> int:
    """Quarter turns counter-clockwise that make the picture upright; odd angles are left alone."""
    turns, rest = divmod(frame.rotation, 90)
    return turns % 4 if rest == 0 else 0


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
