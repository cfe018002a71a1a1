"""Inside a packet: the units of H.264 and H.265, where they lie and what they are."""

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from av.packet import Packet
from av.video.stream import VideoStream

UNIT_CODECS = ("h264", "hevc")
_NO_KIND = -1
MOST_UNITS = 4096  # of a packet; no camera sends so many
_START_CODE = b"\x00\x00\x01"
_START_CODES = re.compile(_START_CODE)  # finds them three times as fast as bytes.find
_H264_SLICES, _H264_IDR, _H264_SETS, _H264_SEI = range(1, 6), 5, (7, 8), (6,)
_HEVC_SLICES, _HEVC_IDR, _HEVC_SETS, _HEVC_SEI = range(32), (19, 20), (32, 33, 34), (39, 40)
# First bytes of the headers of parameter sets and messages.
BESIDE_PICTURES = {
    "h264": frozenset(byte for byte in range(256) if byte & 0x1F in _H264_SETS + _H264_SEI),
    "hevc": frozenset(byte for byte in range(256) if byte >> 1 & 0x3F in _HEVC_SETS + _HEVC_SEI),
}
# Parameter sets of the other codec, which this one has no use for: a VPS; an SPS of any profile.
_OTHERS_SETS = {
    "h264": ("hevc", re.compile(_START_CODE + rb"\x40\x01")),
    "hevc": ("h264", re.compile(_START_CODE + rb"[\x27\x47\x67][\x42\x4d\x58\x64\x6e\x7a\xf4]")),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of a packet or of a stream's parameters.

    Attributes:
        codec: ``h264`` or ``hevc``.
        payload: What it is a unit of.
        start: Where its header begins.
        end: Where it ends.
    """

    codec: str
    payload: bytes
    start: int
    end: int

    @property
    def content(self) -> bytes:
        """Header and all, without the zeros that may follow."""
        return self.payload[self.start : self.end].rstrip(b"\x00")

    @property
    def kind(self) -> int:
        """The type that its header tells."""
        if not self.start < min(self.end, len(self.payload)):
            return _NO_KIND
        header = self.payload[self.start]
        return header & 0x1F if self.codec == "h264" else header >> 1 & 0x3F

    @property
    def is_slice(self) -> bool:
        """Is it a part of a picture? Those of further layers are not shown."""
        if self.codec == "h264":
            return self.kind in _H264_SLICES
        header = self.payload[self.start : self.start + 2]
        is_base = int.from_bytes(header, "big") >> 3 & 0x3F == 0
        return self.kind in _HEVC_SLICES and is_base

    @property
    def is_idr(self) -> bool:
        """Is it a part of a picture from which nothing refers back?"""
        return self.kind == _H264_IDR if self.codec == "h264" else self.kind in _HEVC_IDR

    @property
    def is_parameter_set(self) -> bool:
        """Does it say how pictures are to be decoded?"""
        return self.kind in (_H264_SETS if self.codec == "h264" else _HEVC_SETS)

    @property
    def is_sei(self) -> bool:
        """Does it tell something beside the pictures?"""
        return self.kind in (_H264_SEI if self.codec == "h264" else _HEVC_SEI)


def codec_name(stream: VideoStream) -> str:
    """The codec, whichever decoder FFmpeg picked for it: ``av1``, not ``libdav1d``."""
    return stream.codec_context.codec.canonical_name


def is_cut_point(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Can decoding start here with nothing before it, and lose nothing?

    In H.264 and H.265 only IDR pictures promise that; other key frames may be followed by
    pictures that refer across them.
    """
    if not packet.is_keyframe:
        return False
    if codec_name(stream) not in UNIT_CODECS:
        return True
    units = units_of(bytes(packet), codec_name(stream), stream.codec_context.extradata or b"")
    slices = (unit for unit in units if unit.is_slice)
    first = next(slices, None)
    return first is not None and first.is_idr


def changed_codec(packet: "Packet[VideoStream]", stream: VideoStream) -> str | None:
    """The codec of a packet that tells how pictures of another codec are decoded; else None.

    A camera may be set to another codec, and recorders append one file to another; FFmpeg goes on
    under the first one's name.
    """
    codec, extradata = codec_name(stream), stream.codec_context.extradata or b""
    if codec not in _OTHERS_SETS or extradata[:1] == b"\x01":  # such a file says it elsewhere
        return None
    other, sets = _OTHERS_SETS[codec]
    return other if sets.search(bytes(packet)) else None


def needs_hidden(gop: Sequence["Packet[VideoStream]"]) -> bool:
    """Does an edit list hide pictures of a GOP which may be needed for others that are shown?"""
    first_hidden = next((n for n, packet in enumerate(gop) if packet.is_discard), len(gop))
    return not all(packet.is_discard for packet in gop[first_hidden:])


def lacks_parameters(key: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Does neither a stream's header nor its first key frame hold parameter sets?"""
    codec = codec_name(stream)
    if codec not in UNIT_CODECS or any(parameter_units(stream)):
        return False
    units = units_of(bytes(key), codec, stream.codec_context.extradata or b"")
    return not any(unit.is_parameter_set for unit in units)


def with_parameters(key: "Packet[VideoStream]", stream: VideoStream) -> "Packet[VideoStream]":
    """A key frame of H.264 with the parameter sets of its stream's header before it."""
    extradata = stream.codec_context.extradata or b""
    n_length = extradata[4] % 4 + 1 if extradata[:1] == b"\x01" else 0
    sets = (unit.content for unit in parameter_units(stream))
    prefixed = b"".join(
        (len(content).to_bytes(n_length, "big") if n_length else b"\x00" + _START_CODE) + content
        for content in sets
    )
    return with_payload(key, prefixed + bytes(key))


def with_payload(packet: "Packet[VideoStream]", payload: bytes) -> "Packet[VideoStream]":
    """The same packet with other bytes, and not marked as incomplete."""
    whole = cast("Packet[VideoStream]", Packet(payload))
    whole.pts, whole.dts, whole.duration = packet.pts, packet.dts, packet.duration
    whole.stream, whole.time_base = packet.stream, packet.time_base
    whole.is_keyframe = packet.is_keyframe
    return whole


def units_of(payload: bytes, codec: str, extradata: bytes) -> Iterator[Unit]:
    """The first units of a packet, ``MOST_UNITS`` of them; arguments as of ``spans_of``."""
    spans = islice(spans_of(payload, codec, extradata), MOST_UNITS)
    return (Unit(codec, payload, start, end) for start, end in spans)


def is_crowded(payload: bytes, codec: str, extradata: bytes) -> bool:
    """Does a packet hold more than ``MOST_UNITS``? FFmpeg takes up to 4 KiB for each.

    Arguments as of ``spans_of``, but of any codec.
    """
    if codec not in UNIT_CODECS:
        return False
    return next(islice(spans_of(payload, codec, extradata), MOST_UNITS, None), None) is not None


def n_units_exceed(payload: bytes, most: int) -> bool:
    """Are there more start codes in a raw stream? No more is read than it takes to know."""
    return next(islice(_START_CODES.finditer(payload), most, None), None) is not None


def spans_of(payload: bytes, codec: str, extradata: bytes) -> Iterator[tuple[int, int]]:
    """Where the units of a packet begin, with their headers, and where they end.

    Args:
        payload: The packet's.
        codec: ``h264`` or ``hevc``.
        extradata: The stream's, which tells how units are set apart.
    """
    if extradata[:1] != b"\x01":
        yield from _behind_start_codes(payload)
        return
    # avcC or hvcC: a length before each, of a size told at byte 4 or 21
    n_length = ((extradata[21:] if codec == "hevc" else extradata[4:])[:1] or b"\x03")[0] % 4 + 1
    at = 0
    while at + n_length < len(payload):
        start = at + n_length
        at = start + int.from_bytes(payload[at:start], "big")
        yield start, at


def parameter_units(stream: VideoStream) -> Iterator[Unit]:
    """The parameter sets that a stream's header holds."""
    codec, extradata = codec_name(stream), stream.codec_context.extradata or b""
    if extradata[:1] != b"\x01":
        for start, end in _behind_start_codes(extradata):
            yield Unit(codec, extradata, start, end)
    elif codec == "h264":
        at = 5
        for mask in (0x1F, 0xFF):  # of the number of SPS and of PPS
            n_units = (extradata[at : at + 1] or b"\x00")[0] & mask
            at = yield from _counted(extradata, codec, at + 1, n_units)
    else:
        at = 23
        for _ in range((extradata[22:23] or b"\x00")[0]):
            n_units = int.from_bytes(extradata[at + 1 : at + 3], "big")
            at = yield from _counted(extradata, codec, at + 3, n_units)


def _counted(payload: bytes, codec: str, at: int, n_units: int) -> Generator[Unit, None, int]:
    """Units with lengths of two bytes; returns where they end."""
    for _ in range(n_units):
        start = at + 2
        if start > len(payload):
            break
        at = start + int.from_bytes(payload[at:start], "big")
        yield Unit(codec, payload, start, at)
    return at


def _behind_start_codes(payload: bytes) -> Iterator[tuple[int, int]]:
    start: int | None = None
    for found in _START_CODES.finditer(payload):
        if start is not None:
            yield start, found.start()
        start = found.end()
    if start is not None:
        yield start, len(payload)
