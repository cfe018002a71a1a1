"""Opening videos, and which of their streams counts; FFmpeg opens nothing but what it is given.

Chunks come from strangers: they are opened from memory only, with a demuxer we name, no protocol
at all, and after a look at what their tables claim. Files are the operator's own.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NoReturn

import av
import av.error
import av.logging
from av.codec.context import CodecContext
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from engine.errors import CorruptChunkError, RefusedChunkError, StreamError, UnreadableVideoError
from engine.video.containers import (
    SNIFF_BYTES,
    DecodeLimits,
    check_declared_samples,
    missing_header,
    sniff,
    sniff_file,
)
from engine.video.passwords import without_password
from engine.video.pixels import sane_shape
from engine.video.units import n_units_exceed

av.logging.set_level(None)  # a hostile chunk must not write into anybody's log

# What PyAV raises, besides its own errors, when a file contradicts itself.
LIBAV_ERRORS = (av.error.FFmpegError, ValueError, IndexError, OverflowError, MemoryError)

# Finding out what streams there are opens no decoder: parsers suffice, and a frame that is too
# large or damaged is then met by the one decoder whose limits we set.
_PROBE_OPTIONS = {"codec_whitelist": "none"}
_BESIDE_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
_CLAIMS_PER_FRAME = 10  # three tables of an MP4 count a frame, and the sound has samples too
# Where a container does not tell a stream's parameters, FFmpeg takes 4 KiB for each unit of a
# packet to find them. In others than these, tables and quiet sound look like units too (10 000 a
# second).
_OF_UNITS = ("h264", "hevc", "mpegts")
_UNITS_PER_FRAME, _START_CODES_PER_FRAME = 16, 64  # slices, messages and parameter sets


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
        container = sniff_file(file.read(SNIFF_BYTES))
        with _naming_what_is_missing(container, file):
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
    """The video stream that a player would show: the default one, or else the largest.

    Covers and thumbnails are pictures beside a video, and are never taken.

    Raises:
        CorruptChunkError: There is none with a decoder.
    """
    found: list[VideoStream] = []
    for stream in container.streams.video:
        codec: CodecContext | None = stream.codec_context  # None when FFmpeg has no decoder
        if codec is not None and not stream.disposition & _BESIDE_A_VIDEO:
            found.append(stream)
    if not found:
        raise CorruptChunkError("there is no video stream that FFmpeg could decode")
    return max(found, key=_prominence)  # of equal ones the first


def pixel_shape(stream: VideoStream) -> Fraction:
    """Width of a pixel by its height, as the container says, or else the codec.

    Only when a frame has been decoded the codec's word is known.
    """
    return sane_shape(stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio)


def _prominence(stream: VideoStream) -> tuple[bool, int]:
    context = stream.codec_context
    return bool(stream.disposition & Disposition.default), context.width * context.height


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
    _check_units(container, payload, limits)
    with _naming_what_is_missing(container, io.BytesIO(payload), is_chunk=True):
        return av.open(
            io.BytesIO(payload),
            "r",
            format=container,
            container_options={"protocol_whitelist": "", "max_streams": "32", **_PROBE_OPTIONS},
            metadata_errors="replace",
            io_open=_refuse_io,
            hwaccel=hardware,
        )


def _check_units(container: str, payload: bytes, limits: DecodeLimits) -> None:
    per_frame = _UNITS_PER_FRAME if container in _OF_UNITS else _START_CODES_PER_FRAME
    most_units = per_frame * limits.max_frames
    if n_units_exceed(payload, most_units):
        raise RefusedChunkError(
            f"it holds more than {most_units} units (start codes): cut shorter chunks"
        )


@contextmanager
def _naming_what_is_missing(
    container: str, file: BinaryIO, *, is_chunk: bool = False
) -> Iterator[None]:
    """Where FFmpeg cannot open a video, say what that lacks."""
    try:
        yield
    except av.error.FFmpegError as error:
        missing = missing_header(file, container, is_chunk=is_chunk)
        if missing is None:
            raise
        raise CorruptChunkError(missing) from error


def _refuse_io(url: str, _flags: int, _options: dict[str, str]) -> NoReturn:
    raise RefusedChunkError(f"the payload wants to open {url[:80]!r}")


def reason(error: BaseException) -> str:
    """An error in a few words, without FFmpeg's error number."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"FFmpeg: {text}" if isinstance(error, av.error.FFmpegError) else text


@contextmanager
def unreadable_if_libav_fails(source: Path | str) -> Iterator[None]:
    """Name the source in every error, and make it the one class a caller has to know."""
    try:
        yield
    except (OSError, StreamError, *LIBAV_ERRORS) as error:
        raise UnreadableVideoError(f"{without_password(str(source))}: {reason(error)}") from error
