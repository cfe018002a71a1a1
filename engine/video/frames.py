"""Encoded video → frames at the size the model wants, with exact stream times.

Chunks come from strangers: they are opened from memory only, with a demuxer we name, a codec we
list, no protocol at all and limits that are checked before memory is spent. Local files are the
operator's own: any codec FFmpeg decodes, still only the listed containers. Both paths convert
frames in the same way, so a file and its chunks give the same pixels.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NoReturn, Protocol

import av
import av.error
import av.logging
import numpy as np
from av.codec.context import CodecContext
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from engine.errors import CorruptChunkError, RefusedChunkError, StreamError, UnreadableVideoError
from engine.grid import US_PER_S, Grid, ticks_to_us
from engine.spec import FrameGeometry
from engine.types import FrameBatch, UInt8Array, VideoChunk
from engine.video.containers import SNIFF_BYTES, DecodeLimits, check_declared_samples, sniff
from engine.video.pixels import FrameConverter, quarter_turns
from engine.video.thinning import Thinner, Timed, within_span

av.logging.set_level(None)  # a hostile chunk must not write into anybody's log

CHUNK_CODECS = ("h264", "hevc", "mjpeg", "av1", "vp9")
DEFAULT_FPS = Fraction(25)  # of raw streams that say nothing; FFmpeg assumes the same

# What PyAV raises, besides its own errors, when a file contradicts itself.
LIBAV_ERRORS = (av.error.FFmpegError, ValueError, IndexError, OverflowError, MemoryError)

# What it raises when hardware is asked for and there is none for this codec.
_NO_HARDWARE = (NotImplementedError, RuntimeError)

# Finding out what streams there are opens no decoder: parsers suffice, and a frame that is too
# large or damaged is then met by the one decoder whose limits we set.
_PROBE_OPTIONS = {"codec_whitelist": "none"}
_CLAIMS_PER_FRAME = 10  # three tables of an MP4 count a frame, and the sound has samples too


# The operator's own footage: 8K, and as long as it likes.
FILE_LIMITS = DecodeLimits(max_side_px=16384, max_pixels=8192 * 8192)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video says of itself.

    Attributes:
        width: Width in pixels as displayed, after rotation.
        height: Height in pixels as displayed, after rotation.
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
    """

    def __init__(
        self,
        geometry: FrameGeometry,
        grid: Grid,
        limits: DecodeLimits | None = None,
        threads: int = 1,
        gpu: int | None = None,
    ) -> None:
        self._geometry = geometry
        self._converter = FrameConverter(geometry)
        self._grid = grid
        self._limits = limits or DecodeLimits()
        self._threads = threads
        self._hardware = _nvdec(gpu) if gpu is not None else None

    def decode(self, chunk: VideoChunk) -> FrameBatch:
        """See ``Decoder``. The arrays are the caller's."""
        try:
            return self._decode(chunk)
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

    def _decode(self, chunk: VideoChunk) -> FrameBatch:
        thinner = Thinner(self._grid)
        with open_chunk(chunk.payload, self._limits, self._hardware) as container:
            stream = video_stream(container)
            _check_codec(stream, self._limits)
            prepare(stream, self._limits, self._threads)
            frames = _decode_strictly(container, stream, self._limits)
            timed = within_span(_stream_times(frames, stream, chunk), self._limits.max_span_us)
            shown = [(pts, self._converter.convert(frame)) for pts, frame in thinner.thin(timed)]
        if not shown:
            raise CorruptChunkError("no frame could be decoded")
        return _batch(shown, thinner.n_decoded, thinner.n_late)


def read_video(
    path: Path | str,
    geometry: FrameGeometry,
    grid: Grid,
    *,
    batch_frames: int = 64,
    on_note: Callable[[str], None] = lambda _note: None,
) -> Iterator[FrameBatch]:
    """All frames of a local video file; stream time 0 is its first frame.

    A damaged part is left out up to the next key frame, as a lost chunk would be.

    Args:
        path: A file in one of the known containers, of any codec FFmpeg decodes.
        geometry: Frame size and fit.
        grid: The grid, to leave out frames that it would not show.
        batch_frames: Converted frames in a batch; the last one may have fewer.
        on_note: Told about every damaged part.

    Raises:
        UnreadableVideoError: It cannot be opened, or holds no frame.
    """
    converter, thinner = FrameConverter(geometry), Thinner(grid)
    n_reported = 0
    with unreadable_if_libav_fails(path), open_file(path) as container:
        stream = video_stream(container)
        prepare(stream, FILE_LIMITS, threads=1)
        frames = decode_leniently(demux_to_damage(container, stream, on_note), on_note)
        shown: list[tuple[int, UInt8Array]] = []
        for pts_us, frame in thinner.thin(_stream_times(frames, stream)):
            if len(shown) == batch_frames:
                yield _batch(shown, thinner.n_decoded - n_reported)
                n_reported, shown = thinner.n_decoded, []
            shown.append((pts_us, converter.convert(frame)))
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
        frame = next(decode_leniently(container.demux(stream), lambda _note: None), None)
        if frame is None:
            raise UnreadableVideoError("no frame could be decoded")
        is_upright = quarter_turns(frame) % 2 == 0
        width, height = (frame.width, frame.height)[:: 1 if is_upright else -1]
        return VideoFacts(
            width=width,
            height=height,
            codec=codec_name(stream),
            fps=stream.average_rate,
            duration_us=_duration_us(container, stream),
            n_frames=stream.frames or None,
        )


def open_file(path: Path | str, *, decode_probe: bool = False) -> InputContainer:
    """Open a local file in a known container; it cannot make FFmpeg open anything else.

    Call this inside ``unreadable_if_libav_fails``.

    Args:
        path: The file.
        decode_probe: Let FFmpeg decode a little to find out what no parser tells: the pixel
            format, which a muxer may want to know.

    Raises:
        OSError: There is no such file.
        RefusedChunkError: It starts like no container we know.
        FFmpegError: FFmpeg cannot open it.
    """
    with Path(path).open("rb") as file:
        container = sniff(file.read(SNIFF_BYTES))
    return av.open(
        f"file:{path}",
        "r",
        format=container,
        container_options={
            "protocol_whitelist": "file",
            **({} if decode_probe else _PROBE_OPTIONS),
        },
        metadata_errors="replace",
    )


def video_stream(container: InputContainer) -> VideoStream:
    """The first video stream with a decoder.

    Raises:
        CorruptChunkError: There is none.
    """
    for stream in container.streams.video:
        codec: CodecContext | None = stream.codec_context  # None when FFmpeg has no decoder
        if codec is not None:
            return stream
    raise CorruptChunkError("there is no video stream that FFmpeg could decode")


def codec_name(stream: VideoStream) -> str:
    """The codec, whichever decoder FFmpeg picked for it: ``av1``, not ``libdav1d``."""
    return stream.codec_context.codec.canonical_name


def reason(error: BaseException) -> str:
    """An error in a few words, without FFmpeg's error number."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"FFmpeg: {text}" if isinstance(error, av.error.FFmpegError) else text


def _name(chunk: VideoChunk) -> str:
    return f"camera {chunk.camera}, run {chunk.run}, chunk {chunk.sequence}"


@contextmanager
def unreadable_if_libav_fails(source: Path | str) -> Iterator[None]:
    """Name the source in every error, and make it the one class a caller has to know."""
    try:
        yield
    except (OSError, StreamError, *LIBAV_ERRORS) as error:
        raise UnreadableVideoError(f"{source}: {reason(error)}") from error


def _nvdec(gpu: int) -> HWAccel:
    """NVDEC in the GPU's primary context, which is the one the networks run in."""
    options: dict[str, object] = {"primary_ctx": "1"}
    return HWAccel("cuda", str(gpu), allow_software_fallback=False, options=options)


def open_chunk(
    payload: bytes, limits: DecodeLimits, hardware: HWAccel | None = None
) -> InputContainer:
    """Open a chunk in a known container; it cannot make FFmpeg open anything else.

    Raises:
        StreamError: It is too large, claims too much, or starts like no container we know.
        FFmpegError: FFmpeg cannot open it.
    """
    if len(payload) > limits.max_payload_bytes:
        raise RefusedChunkError(
            f"{len(payload)} bytes, wanted at most {limits.max_payload_bytes}: cut shorter chunks"
        )
    container = sniff(payload)
    if container == "mov":
        check_declared_samples(payload, _CLAIMS_PER_FRAME * limits.max_frames)
    return av.open(
        io.BytesIO(payload),
        "r",
        format=container,
        container_options={"protocol_whitelist": "", "max_streams": "32", **_PROBE_OPTIONS},
        metadata_errors="replace",
        io_open=_refuse_io,
        hwaccel=hardware,
    )


def _refuse_io(url: str, _flags: int, _options: dict[str, str]) -> NoReturn:
    raise RefusedChunkError(f"the payload wants to open {url[:80]!r}")


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
    # explode: a damaged frame is an error, not a green smear the model would have to judge.
    stream.codec_context.options = {
        "max_pixels": str(limits.max_pixels),
        "err_detect": "crccheck+explode",
    }
    stream.thread_count = threads


def _decode_strictly(
    container: InputContainer, stream: VideoStream, limits: DecodeLimits
) -> Iterator[VideoFrame]:
    """All frames of a chunk, or an error at the first thing wrong with it."""
    n_frames = n_pixels = 0
    for index, packet in enumerate(container.demux(stream)):
        if packet.is_corrupt:
            raise CorruptChunkError(f"packet {index} is incomplete")
        if index == 0 and packet.size and not packet.is_keyframe:
            raise CorruptChunkError("it does not start with a key frame")
        for frame in packet.decode():
            n_frames += 1
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


def decode_leniently(
    packets: Iterable["Packet[VideoStream]"], on_note: Callable[[str], None]
) -> Iterator[VideoFrame]:
    """All frames but damaged ones and those up to the next key frame."""
    is_damaged = False
    for packet in packets:
        frames, damage = _decode_packet(packet)
        if damage and not is_damaged:
            on_note(f"left out up to the next key frame: {damage}")
        is_damaged = is_damaged or damage is not None
        for frame in frames:
            is_sound_key = frame.key_frame and damage is None
            is_damaged = frame.is_corrupt or (is_damaged and not is_sound_key)
            if not is_damaged:
                yield frame


def _decode_packet(packet: "Packet[VideoStream]") -> tuple[list[VideoFrame], str | None]:
    """The frames a packet gives, and what is wrong with it."""
    try:
        return packet.decode(), "a packet is incomplete" if packet.is_corrupt else None
    except av.error.InvalidDataError as error:
        return [], reason(error)


def demux_to_damage(
    container: InputContainer, stream: VideoStream, on_note: Callable[[str], None]
) -> Iterator["Packet[VideoStream]"]:
    """All packets up to where the container itself is broken."""
    try:
        yield from container.demux(stream)
    except LIBAV_ERRORS as error:
        on_note(f"the video ends early: {reason(error)}")


def _stream_times(
    frames: Iterable[VideoFrame], stream: VideoStream, chunk: VideoChunk | None = None
) -> Iterator[Timed[VideoFrame]]:
    """Frames with their stream times, from the source's own ticks where they are known."""
    time_base = stream.time_base or Fraction(1, US_PER_S)
    first: int | None = None
    for pts, frame in presentation_ticks(frames, stream, time_base):
        first = pts if first is None else first
        if chunk is None:
            pts_us = ticks_to_us(pts - first, time_base)
        elif chunk.start_ticks is None or chunk.time_base is None:
            pts_us = chunk.start_us + ticks_to_us(pts - first, time_base)
        else:
            ticks = chunk.start_ticks + round((pts - first) * time_base / chunk.time_base)
            pts_us = ticks_to_us(ticks, chunk.time_base)
        yield pts_us, frame


def presentation_ticks(
    frames: Iterable[VideoFrame], stream: VideoStream, time_base: Fraction
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with their pts in ticks of ``time_base``, whatever the container left out."""
    # AVI stores no presentation times; FFmpeg's guesses at them are out of order with B-frames,
    # while a frame's dts is then the time at which the decoder gave it out.
    is_avi = stream.container.format.name == "avi"
    step = max(1, round(1 / ((stream.average_rate or DEFAULT_FPS) * time_base)))
    previous: int | None = None
    for frame in frames:
        known = frame.dts if is_avi else frame.pts
        if known is None:  # a raw stream has no times at all: its frames are evenly spaced
            known = 0 if previous is None else previous + step
        elif previous is not None:
            step = known - previous
        previous = known
        yield known, frame


def _batch(shown: list[tuple[int, UInt8Array]], n_decoded: int, n_late: int = 0) -> FrameBatch:
    """Stream times with their frames, uint8 (H, W, 3) → a batch."""
    pts_us = np.array([pts_us for pts_us, _ in shown], np.int64)
    return FrameBatch(pts_us, np.stack([rgb for _, rgb in shown]), n_decoded, n_late)


def _duration_us(container: InputContainer, stream: VideoStream) -> int | None:
    if stream.duration and stream.time_base:
        return ticks_to_us(stream.duration, stream.time_base)
    return container.duration  # in microseconds
