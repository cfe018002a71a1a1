"""Pictures → H.264: a chunk of a source that cannot be copied, or a whole video."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from engine.types import UInt8Array
from engine.video.fragments import Fragment
from engine.video.opening import pixel_shape
from engine.video.pixels import display_matrix
from engine.video.times import nominal_rate

# Each chunk is one GOP and visually lossless, and no frame waits for another.
_X264_OPTIONS = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "18",
    "g": "100000",
    "sc_threshold": "0",
}


def encode_video(
    pictures: Iterable[UInt8Array],
    path: Path,
    *,
    fps: int,
    key_frame_every: int,
    bits_per_second: int | None = None,
) -> None:
    """Write an H.264 MP4 that can be cut, as a small camera would send it.

    Args:
        pictures: uint8 (H, W, 3) each, all of one even size; at least one.
        path: The file.
        fps: Frames a second.
        key_frame_every: Frames from IDR picture to IDR picture.
        bits_per_second: What a camera is set to send, second by second; None: as many as it takes
            to lose nothing that can be seen.
    """
    options = {**_X264_OPTIONS, "g": str(key_frame_every), "forced-idr": "1"}
    if bits_per_second is not None:
        del options["crf"]
        options |= dict.fromkeys(("b", "maxrate", "bufsize"), str(bits_per_second))
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class ChunkEncoder:
    """Frames → one H.264 chunk. Each has its own encoder, so that nothing refers across chunks.

    Args:
        mp4: The chunk.
        stream: What the frames come from.
        time_base: Seconds in a tick.
        start: Ticks of the first frame since the run's first.
        first: The first frame; all others have its size.

    Attributes:
        pts: The frames' ticks, as the source has them.
        start: As above.
        size: Width and height of the coded picture.
        n_bytes: What was encoded so far.
    """

    def __init__(
        self,
        mp4: Fragment,
        stream: VideoStream,
        time_base: Fraction,
        start: int,
        first: VideoFrame,
    ) -> None:
        self.pts: list[int] = []
        self.start = start
        self.n_bytes = 0
        self.size = first.width // 2 * 2, first.height // 2 * 2  # even: 4:2:0 halves them
        self._source_size = first.width, first.height
        self._mp4 = mp4
        self._out = mp4.container.add_stream(
            "libx264", rate=nominal_rate(stream), options=_X264_OPTIONS
        )
        self._out.width, self._out.height = self.size
        self._out.pix_fmt = "yuv420p"
        self._out.codec_context.time_base = time_base
        self._out.colorspace = first.colorspace
        self._out.color_range = ColorRange.MPEG
        self._out.codec_context.sample_aspect_ratio = pixel_shape(stream)
        self._out.set_display_matrix(display_matrix(first, VideoReformatter()))
        self._time_base = time_base

    def is_finished_by(self, pts: int, frame: VideoFrame, chunk_ticks: int) -> bool:
        """Does the next chunk start with this frame?"""
        is_resized = (frame.width, frame.height) != self._source_size
        return is_resized or pts < self.pts[-1] or pts - self.pts[0] >= chunk_ticks

    def add(self, pts: int, frame: VideoFrame) -> None:
        """Encode a frame; a second one of the same time is left out."""
        if self.pts and pts == self.pts[-1]:
            return
        self.pts.append(pts)
        width, height = self.size
        picture = frame.reformat(width, height, "yuv420p", dst_color_range=ColorRange.MPEG)
        picture.pts = pts - self.pts[0]
        picture.time_base = self._time_base
        picture.pict_type = 0  # the encoder chooses, not the source
        self._mux(self._out.encode(picture))

    def finish(self) -> bytes:
        """The chunk."""
        self._mux(self._out.encode(None))
        return self._mp4.finish()

    def _mux(self, packets: list["Packet[VideoStream]"]) -> None:
        for packet in packets:
            shown, duration = self.start + (packet.pts or 0), packet.duration or 0
            self.n_bytes += packet.size
            whole = self._with_parameters(packet) if packet.is_keyframe else packet
            self._mp4.add_in_order(whole, shown, duration)

    def _with_parameters(self, key: "Packet[VideoStream]") -> "Packet[VideoStream]":
        """A player reads no header but the run's first, and that may be of other parameters."""
        payload = (self._out.codec_context.extradata or b"") + bytes(key)
        whole = cast("Packet[VideoStream]", Packet(payload))
        whole.stream, whole.is_keyframe = self._out, True
        return whole
