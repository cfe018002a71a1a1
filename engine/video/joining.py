"""Chunks of a run → one MP4 that any player plays; the pictures are copied, not encoded again."""

from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av.packet import Packet
from av.video.stream import VideoStream

from engine.errors import CorruptChunkError
from engine.types import VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.fragments import decoding_times, lead_for
from engine.video.opening import (
    open_chunk,
    pixel_shape,
    unreadable_if_libav_fails,
    video_stream,
)
from engine.video.times import timed_packets
from engine.video.units import codec_name

_TICK = Fraction(1, 90_000)
_TICKS_PER_US = Fraction(90_000, 1_000_000)


def join_chunks(
    chunks: Sequence[VideoChunk], out: Path, limits: DecodeLimits | None = None
) -> float:
    """Write chunks as one video, each at its stream time; gaps between them stay.

    Args:
        chunks: Of one run, oldest first, each with a payload.
        out: The MP4 to write.
        limits: What a chunk may claim; the usual limits if left out.

    Returns:
        How many seconds it lasts.

    Raises:
        UnreadableVideoError: A chunk cannot be read, or they cannot be one stream.
    """
    with unreadable_if_libav_fails(out), ExitStack() as sources:
        return _join(chunks, out, limits or DecodeLimits(), sources)


def _join(
    chunks: Sequence[VideoChunk], out: Path, limits: DecodeLimits, sources: ExitStack
) -> float:
    packets: list[Packet[VideoStream]] = []
    shown: list[int] = []  # in ticks, since the first chunk's first frame
    first: VideoStream | None = None
    for chunk in chunks:
        container = sources.enter_context(open_chunk(chunk.payload, limits))
        stream = video_stream(container)
        first = first or stream
        _check_same(first, stream, chunk)
        demuxed = timed_packets(container.demux(stream), stream, limits.max_pixels)
        mine = [packet for packet in demuxed if packet.size]
        packets += mine
        begin = round((chunk.start_us - chunks[0].start_us) * _TICKS_PER_US)
        # Chunks without headers may overlap by their records' times.
        shown += _shown(mine, max(begin, max(shown, default=-1) + 1), chunk)
    if first is None:
        raise CorruptChunkError("there are no chunks")
    lead = lead_for(shown, _TICK)
    options = {"movflags": "faststart", "video_track_timescale": str(_TICK.denominator)}
    with av.open(str(out), "w", format="mp4", options=options) as target:
        track = target.add_stream_from_template(first, opaque=True)
        track.codec_context.sample_aspect_ratio = pixel_shape(first)
        decoded = decoding_times(shown, lead)
        lasts = [after - at for at, after in pairwise(decoded)]
        lasts.append(lasts[-1] if lasts else 1)
        for packet, pts, dts, last in zip(packets, shown, decoded, lasts, strict=True):
            packet.stream = track
            packet.pts, packet.dts, packet.duration = pts + lead, dts, last
            packet.time_base = _TICK
            target.mux_one(packet)
    return float((max(shown) + lasts[-1]) * _TICK)


def _check_same(first: VideoStream, stream: VideoStream, chunk: VideoChunk) -> None:
    """One track of an MP4 has one set of parameters."""
    for name in ("width", "height", "extradata"):
        if getattr(first.codec_context, name) != getattr(stream.codec_context, name):
            raise CorruptChunkError(
                f"the picture's {name} changes at chunk {chunk.sequence} of run {chunk.run}"
            )
    if codec_name(first) != codec_name(stream):
        raise CorruptChunkError(f"the codec changes at chunk {chunk.sequence} of run {chunk.run}")


def _shown(packets: Sequence["Packet[VideoStream]"], begin: int, chunk: VideoChunk) -> list[int]:
    """When each packet's frame is shown, in ticks; the chunk's first one at ``begin``."""
    times: list[Fraction] = []
    for packet in packets:
        at = packet.dts if packet.pts is None else packet.pts
        if at is None or packet.time_base is None:
            raise CorruptChunkError(f"chunk {chunk.sequence} has a frame without a time")
        times.append(at * packet.time_base)
    if not times:
        raise CorruptChunkError(f"chunk {chunk.sequence} holds no frame")
    return [begin + round((at - min(times)) / _TICK) for at in times]
