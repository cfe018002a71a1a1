"""Encoded video → frames at the size the model wants, with exact stream times.

Chunks come from strangers: they are opened from memory only, with a demuxer we name, a codec we
list, no protocol at all and limits that are checked before memory is spent. Local files are the
operator's own: any codec FFmpeg decodes, still only the listed containers. Both paths convert
frames in the same way, so a file and its chunks give the same pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av.error
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from engine.errors import CorruptChunkError, RefusedChunkError, StreamError, UnreadableVideoError
from engine.grid import US_PER_S, Grid, ticks_to_us
from engine.spec import FrameGeometry
from engine.types import FrameBatch, UInt8Array, VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.ending import demux_to_end
from engine.video.headers import (
    KeptHeaders,
    completed,
    init_segment,
    parameter_sets,
    with_sets,
)
from engine.video.losses import Losses
from engine.video.metadata import STRICT, MetadataFilter
from engine.video.opening import (
    LIBAV_ERRORS,
    open_chunk,
    open_file,
    pixel_shape,
    reason,
    unreadable_if_libav_fails,
    video_stream,
)
from engine.video.pixels import (
    PLAIN,
    FrameConverter,
    View,
    display_matrix,
    is_turned,
)
from engine.video.recovery import decode_leniently
from engine.video.thinning import Thinner, Timed, within_span
from engine.video.times import (
    is_untimed,
    nominal_rate,
    presentation_ticks,
    timed_packets,
)
from engine.video.units import codec_name, is_cut_point

CHUNK_CODECS = ("h264", "hevc", "mjpeg", "av1", "vp9")

# What it raises when hardware is asked for and there is none for this codec.
_NO_HARDWARE = (NotImplementedError, RuntimeError)

_CLOSE_GOPS = (
    ", whose pictures refer to what came before: begin each chunk with an IDR picture (x264: "
    "-flags +cgop, x265: open-gop=0)"
)
# The operator's own footage: 8K, and as long as it likes.
FILE_LIMITS = DecodeLimits(max_side_px=16384, max_pixels=8192 * 8192)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video says of itself.

    Attributes:
        width: Width in square pixels as displayed, after rotation.
        height: Height in square pixels as displayed, after rotation.
        codec: FFmpeg's name of the codec.
        fps: Average frames a second, or None when the container does not know.
        duration_us: Length, or None when the container does not know.
        n_frames: Number of frames, or None when the container does not know.
    """

    width: int
    height: int
    codec: str
    fps: Fraction | None
    duration_us: int | None
    n_frames: int | None


# An array of pictures' shape, uint8 (N, H, W, 3), to be written to.
Room = Callable[[tuple[int, ...]], UInt8Array]


def _new_room(shape: tuple[int, ...]) -> UInt8Array:
    return np.empty(shape, np.uint8)


class Decoder(Protocol):
    """Chunk → frames; one for each camera, called from one thread at a time."""

    def decode(self, chunk: VideoChunk) -> FrameBatch:
        """All frames of a closed-GOP chunk.

        Raises:
            CorruptChunkError: The chunk cannot be decoded whole; the decoder stays usable.
            RefusedChunkError: It was not opened, or went over a limit.
        """

    def close(self) -> None:
        """Free what the decoder holds."""


class PyAvDecoder:
    """FFmpeg, on the CPU or in a GPU's video decoder.

    A chunk is self-contained, so nothing of one can harm the next: codec, size and rate may change
    between chunks.

    Args:
        geometry: Frame size and fit.
        grid: The grid, to leave out frames that it would not show.
        limits: What a chunk may cost.
        threads: Decoding threads of this decoder. One is best with many cameras.
        gpu: Decode on this GPU (NVDEC) and nowhere else; None decodes on the CPU. The GPU gives
            the picture to the CPU at full size, where both are converted in the same way.
        headers: What cameras have said of how their chunks are decoded, for chunks that do not;
            decoders may share it.

    Attributes:
        headers: As above.
    """

    def __init__(
        self,
        geometry: FrameGeometry,
        grid: Grid,
        limits: DecodeLimits | None = None,
        threads: int = 1,
        gpu: int | None = None,
        headers: KeptHeaders | None = None,
    ) -> None:
        self._geometry = geometry
        self._converter = FrameConverter(geometry)
        self._grid = grid
        self._limits = limits or DecodeLimits()
        self._threads = threads
        self._hardware = _nvdec(gpu) if gpu is not None else None
        self.headers = headers or KeptHeaders()

    def decode(self, chunk: VideoChunk, room: Room = _new_room) -> FrameBatch:
        """See ``Decoder``. The arrays are the caller's.

        Args:
            chunk: The chunk.
            room: Asked once, when all is well, where the pictures shall lie.
        """
        try:
            return self._decode(chunk, room)
        except StreamError as error:
            raise type(error)(f"{_name(chunk)}: {error}") from error
        except (*LIBAV_ERRORS, *_NO_HARDWARE) as error:
            if isinstance(error, _NO_HARDWARE) and self._hardware is None:
                raise  # a fault of this code, not of the chunk
            raise CorruptChunkError(f"{_name(chunk)}: {reason(error)}") from error

    @property
    def converted_s(self) -> float:
        """Seconds spent on conversion to model size, for benchmarks."""
        return self._converter.spent_s

    def close(self) -> None:
        """Free the conversion buffers."""
        self._converter = FrameConverter(self._geometry)

    def _decode(self, chunk: VideoChunk, room: Room) -> FrameBatch:
        thinner = Thinner(self._grid)
        kept = self.headers.get(chunk.camera)
        payload = completed(chunk.payload, kept)
        with open_chunk(payload, self._limits, self._hardware) as container:
            stream = video_stream(container)
            _check_codec(stream, self._limits)
            prepare(stream, self._limits, self._threads)
            metadata = MetadataFilter(stream)
            packets = with_sets(container.demux(stream), stream, kept)
            frames = _decode_strictly(packets, stream, self._limits, metadata)
            timed = within_span(_chunk_times(frames, stream, chunk), self._limits.max_span_us)
            shown = [
                (pts_us, self._converter.convert(*seen))
                for pts_us, seen in thinner.thin(_with_views(timed, stream))
            ]
            found = parameter_sets(stream, metadata.sets)
        if not shown:
            raise CorruptChunkError("no frame could be decoded")
        self.headers.keep(chunk.camera, init_segment(payload) or found)
        return _batch(shown, thinner.n_decoded, thinner.n_late, room)


def read_video(
    path: Path | str,
    geometry: FrameGeometry,
    grid: Grid,
    *,
    batch_frames: int = 64,
    on_note: Callable[[str], None] = lambda _note: None,
    losses: Losses | None = None,
) -> Iterator[FrameBatch]:
    """All frames of a local video file; stream time 0 is its first frame.

    A damaged part is left out up to where decoding may begin again, as a lost chunk would be.

    Args:
        path: A file in one of the known containers, of any codec FFmpeg decodes.
        geometry: Frame size and fit.
        grid: The grid, to leave out frames that it would not show.
        batch_frames: Converted frames in a batch; the last one may have fewer.
        on_note: Told about every damaged part.
        losses: What is left out is added to it.

    Raises:
        UnreadableVideoError: It cannot be opened, or holds no frame.
    """
    converter, thinner = FrameConverter(geometry), Thinner(grid)
    losses = Losses() if losses is None else losses
    n_reported = 0
    with unreadable_if_libav_fails(path), open_file(path) as container:
        stream = video_stream(container)
        prepare(stream, FILE_LIMITS, threads=1)
        packets = demux_to_end(path, container, stream, on_note, losses)
        timed = timed_packets(packets, stream, FILE_LIMITS.max_pixels, on_note)
        frames = decode_leniently(timed, stream, on_note, losses)
        shown: list[tuple[int, UInt8Array]] = []
        timed_frames = _with_views(_stream_times(frames, stream), stream)
        for pts_us, seen in thinner.thin(timed_frames):
            if len(shown) == batch_frames:
                yield _batch(shown, thinner.n_decoded - n_reported)
                n_reported, shown = thinner.n_decoded, []
            shown.append((pts_us, converter.convert(*seen)))
        losses.n_late = thinner.n_late
        if not shown:
            raise UnreadableVideoError("no frame could be decoded")
        yield _batch(shown, thinner.n_decoded - n_reported)


def probe_video(path: Path | str) -> VideoFacts:
    """What a local video file says of itself; its first frame is decoded, to know the rotation.

    Raises:
        UnreadableVideoError: It cannot be opened, or holds no frame.
    """
    with unreadable_if_libav_fails(path), open_file(path) as container:
        stream = video_stream(container)
        prepare(stream, FILE_LIMITS, threads=1)
        frames = decode_leniently(container.demux(stream), stream, lambda _note: None)
        frame = next(frames, None)
        if frame is None:
            raise UnreadableVideoError("no frame could be decoded")
        shown = round(frame.width * pixel_shape(stream)), frame.height
        width, height = shown[:: -1 if is_turned(display_matrix(frame, VideoReformatter())) else 1]
        return VideoFacts(
            width=width,
            height=height,
            codec=codec_name(stream),
            fps=nominal_rate(stream) if is_untimed(stream) else stream.average_rate,
            duration_us=_duration_us(container, stream),
            n_frames=stream.frames or None,
        )


def _name(chunk: VideoChunk) -> str:
    return f"camera {chunk.camera}, run {chunk.run}, chunk {chunk.sequence}"


def _nvdec(gpu: int) -> HWAccel:
    """NVDEC in the GPU's primary context, which is the one the networks run in."""
    options: dict[str, object] = {"primary_ctx": "1"}
    return HWAccel("cuda", str(gpu), allow_software_fallback=False, options=options)


def _check_codec(stream: VideoStream, limits: DecodeLimits) -> None:
    codec = codec_name(stream)
    if codec not in CHUNK_CODECS:
        raise RefusedChunkError(
            f"the codec is {codec}, wanted one of {', '.join(CHUNK_CODECS)}: transcode it"
        )
    if stream.codec_context.width:  # some containers leave it to the codec, which is limited too
        limits.check_size(stream.codec_context.width, stream.codec_context.height)


def prepare(stream: VideoStream, limits: DecodeLimits, threads: int) -> None:
    """Set how the stream's decoder will be opened."""
    stream.codec_context.options = {"max_pixels": str(limits.max_pixels), **STRICT}
    stream.thread_count = threads


def _decode_strictly(
    packets: Iterable["Packet[VideoStream]"],
    stream: VideoStream,
    limits: DecodeLimits,
    metadata: MetadataFilter,
) -> Iterator[VideoFrame]:
    """All frames of a chunk, or an error at the first thing wrong with it."""
    n_pixels = 0
    timed = timed_packets(packets, stream, limits.max_pixels)
    for n_frames, frame in enumerate(_sound_frames(timed, stream, metadata), start=1):
        n_pixels += frame.width * frame.height
        limits.check_size(frame.width, frame.height)
        if frame.is_corrupt:
            raise CorruptChunkError(f"frame {n_frames} is damaged")
        if n_frames > limits.max_frames or n_pixels > limits.max_chunk_pixels:
            raise RefusedChunkError(
                f"more than {limits.max_frames} frames or {limits.max_chunk_pixels} pixels: "
                "cut shorter chunks"
            )
        yield frame


def _sound_frames(
    packets: Iterable["Packet[VideoStream]"], stream: VideoStream, metadata: MetadataFilter
) -> Iterator[VideoFrame]:
    """The frames of a chunk's packets, or an error that names the likely cause."""
    is_closed = True
    n_packets = 0
    for packet in packets:
        seen = metadata.mend(packet)
        if not seen.has_picture:
            continue
        n_packets += 1
        if packet.is_corrupt:
            raise CorruptChunkError(f"packet {n_packets} is incomplete")
        if seen.n_missing:
            raise CorruptChunkError(
                f"before packet {n_packets}, {seen.n_missing} pictures are missing that others "
                "refer to"
            )
        if n_packets == 1 and packet.size:
            if not packet.is_keyframe:
                raise CorruptChunkError(f"it does not start with a key frame{_CLOSE_GOPS}")
            is_closed = is_cut_point(packet, stream)
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            cause = _cause(metadata, is_closed=is_closed)
            raise CorruptChunkError(f"{reason(error)}{cause}") from error
        yield from frames


def _cause(metadata: MetadataFilter, *, is_closed: bool) -> str:
    """Why a chunk may not be decodable, besides damage; a part of a sentence, or nothing."""
    if metadata.lacks_parameter_sets:
        return (
            "; it holds no parameter sets (SPS, PPS), and no chunk of its camera did since this "
            "process serves it: let the encoder repeat them at every key frame (ffmpeg -bsf:v "
            "dump_extra)"
        )
    return "" if is_closed else f"; it begins with an open GOP{_CLOSE_GOPS}"


def _stream_times(
    frames: Iterable[VideoFrame], stream: VideoStream
) -> Iterator[Timed[VideoFrame]]:
    """A file's frames with their stream times, from the source's own ticks."""
    time_base = stream.time_base or Fraction(1, US_PER_S)
    first: int | None = None
    for pts, frame in presentation_ticks(frames, stream, time_base):
        first = pts if first is None else first
        yield ticks_to_us(pts - first, time_base), frame


def _chunk_times(
    frames: Iterable[VideoFrame], stream: VideoStream, chunk: VideoChunk
) -> Iterator[Timed[VideoFrame]]:
    """A chunk's frames with their stream times, from the source's own ticks where it tells."""
    time_base = stream.time_base or Fraction(1, US_PER_S)
    source_ticks = None if chunk.time_base is None else time_base / chunk.time_base
    first: int | None = None
    for pts, frame in presentation_ticks(frames, stream, time_base):
        first = pts if first is None else first
        if chunk.start_ticks is None or chunk.time_base is None or source_ticks is None:
            pts_us = chunk.start_us + ticks_to_us(pts - first, time_base)
        else:
            ticks = chunk.start_ticks + _whole(pts - first, source_ticks)
            pts_us = ticks_to_us(ticks, chunk.time_base)
        yield pts_us, frame


def _whole(ticks: int, ratio: Fraction) -> int:
    """Ticks of one clock in those of another; mostly the two are one."""
    return ticks * ratio.numerator if ratio.denominator == 1 else round(ticks * ratio)


def _with_views(
    timed: Iterable[Timed[VideoFrame]], stream: VideoStream
) -> Iterator[Timed[tuple[VideoFrame, View]]]:
    """The same frames, each with how it is shown; that may change at key frames."""
    view, reformatter = PLAIN, VideoReformatter()
    for pts_us, frame in timed:
        if frame.key_frame:
            view = View(pixel_shape(stream), display_matrix(frame, reformatter))
        yield pts_us, (frame, view)


def _batch(
    shown: list[tuple[int, UInt8Array]], n_decoded: int, n_late: int = 0, room: Room = _new_room
) -> FrameBatch:
    """Stream times with their frames, uint8 (H, W, 3) → a batch."""
    pts_us = np.array([pts_us for pts_us, _ in shown], np.int64)
    rgb = room((len(shown), *shown[0][1].shape))
    np.stack([rgb for _, rgb in shown], out=rgb)
    return FrameBatch(pts_us, rgb, n_decoded, n_late)


def _duration_us(container: InputContainer, stream: VideoStream) -> int | None:
    if stream.duration and stream.time_base:
        return ticks_to_us(stream.duration, stream.time_base)
    return container.duration  # in microseconds
