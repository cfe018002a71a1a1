"""What lies beside the pictures of H.264 and H.265, and must not cost a picture.

Damage in pictures is refused (``explode``), which to FFmpeg means damage anywhere: one message
that is a byte too long would make a camera unreadable. So before a packet is decoded, messages
that cannot be read or are not needed, and parameter sets that no decoder takes, are marked as
filler, which decoders pass over.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import av.error
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.stream import VideoStream

from engine.errors import RefusedChunkError
from engine.video.units import (
    BESIDE_PICTURES,
    MOST_UNITS,
    UNIT_CODECS,
    Unit,
    codec_name,
    parameter_units,
    spans_of,
)

# A damaged frame is an error, not a green smear that the model would have to judge.
STRICT = {"err_detect": "crccheck+explode"}
_FILLER = {"h264": b"\x0c", "hevc": b"\x4c"}  # first bytes of headers
_N_HEADER = {"h264": 1, "hevc": 2}
# SEI messages that matter to a picture: who encoded it (bugs that decoders know of), where
# decoding may begin, how it is turned, its checksum. 0 and 1 are often in one unit with these.
_ENCODER, _RECOVERY_POINT, _ORIENTATION, _CHECKSUM = 5, 6, 47, 132
_WANTED = {
    "h264": frozenset({_ENCODER, _RECOVERY_POINT, _ORIENTATION}),
    "hevc": frozenset({_ORIENTATION, _CHECKSUM}),
}
_HARMLESS = {"h264": frozenset({0, 1}), "hevc": frozenset[int]()}
_LEAST_BYTES = {_ENCODER: 16, _CHECKSUM: 5}
# Different parameter sets of a stream that are judged, and the bytes of one: a hostile stream may
# have others, which are left to its decoder.
_MOST_JUDGED, _MOST_SET_BYTES = 64, 1024
_MOST_MESSAGES = 64  # of a unit; cameras send a handful
FoundT = TypeVar("FoundT")


class MetadataFilter:
    """Marks in a stream's packets as filler what could only do harm.

    Args:
        stream: Theirs. Parameter sets in its header that no decoder takes are marked too.

    Raises:
        RefusedChunkError: The header holds more parameter sets than a packet may hold units.
    """

    def __init__(self, stream: VideoStream) -> None:
        context = stream.codec_context
        self._codec, self._decoder_name = codec_name(stream), context.codec.name
        self._judged: dict[bytes, bool] = {}
        self._sets = b""  # those that are sound, behind start codes
        if self._codec in UNIT_CODECS and context.extradata:
            bad = [unit for unit in _few(parameter_units(stream)) if not self._is_sound(unit)]
            if bad:
                context.extradata = _marked(context.extradata, bad)
        self._extradata = context.extradata or b""

    @property
    def lacks_parameter_sets(self) -> bool:
        """Has nothing said yet how pictures are to be decoded?"""
        return self._codec in UNIT_CODECS and not self._sets

    @property
    def sets(self) -> bytes:
        """The parameter sets that are sound, so far, behind start codes."""
        return self._sets

    def mend(self, packet: "Packet[VideoStream]") -> bool:
        """Mark a packet's units; False if there is nothing to decode.

        Raises:
            RefusedChunkError: It holds more units than ``MOST_UNITS``.
        """
        if self._codec not in UNIT_CODECS or not packet.size:
            return True
        payload = bytes(packet)
        spans = _few(spans_of(payload, self._codec, self._extradata))
        headers = BESIDE_PICTURES[self._codec]
        beside = [
            Unit(self._codec, payload, start, end)
            for start, end in spans
            if start < len(payload) and payload[start] in headers
        ]
        if not beside:  # as in most packets
            return True
        bad = [unit for unit in beside if not self._is_sound(unit)]
        if bad:
            packet.update(_marked(payload, bad))
        # A packet of messages alone is no picture; of anything that is none, the decoder judges.
        return sum(unit.is_sei for unit in beside) < len(spans)

    def _is_sound(self, unit: Unit) -> bool:
        if unit.is_sei:
            return is_sound_sei(unit)
        if not unit.is_parameter_set:
            return True
        content = unit.content
        if content not in self._judged:
            if len(self._judged) >= _MOST_JUDGED or len(content) > _MOST_SET_BYTES:
                return True
            sets = self._sets + b"\x00\x00\x00\x01" + content
            self._judged[content] = _is_taken(self._decoder_name, sets)
            if self._judged[content]:
                self._sets = sets
        return self._judged[content]


@lru_cache(maxsize=64)  # a camera's sets are the same in each of its chunks
def _is_taken(decoder_name: str, sets: bytes) -> bool:
    """Does a decoder take these parameter sets, the last of them too?"""
    decoder = CodecContext.create(decoder_name, "r")
    decoder.extradata = sets + bytes(64)  # FFmpeg reads ahead, and must find the same each time
    decoder.options = STRICT
    try:
        decoder.open()
    except (av.error.FFmpegError, OSError):
        return False
    return True


def mend_header(stream: VideoStream) -> None:
    """Mark parameter sets in a stream's header that no decoder takes as filler."""
    MetadataFilter(stream)


def is_sound_sei(unit: Unit) -> bool:
    """Can all messages of a unit be read, and does a picture need one of them?"""
    content = unit.content[_N_HEADER[unit.codec] :].replace(b"\x00\x00\x03", b"\x00\x00")
    wanted = _WANTED[unit.codec]
    kinds: list[int] = []
    at = 0
    while len(content) - at > 2:  # noqa: PLR2004 - a byte of kind, of size and of the unit's end
        kind, at = _counted_up(content, at)
        size, at = _counted_up(content, at)
        is_readable = _LEAST_BYTES.get(kind, 0) <= size <= len(content) - at
        is_welcome = kind in wanted or kind in _HARMLESS[unit.codec]
        if not (is_readable and is_welcome) or len(kinds) == _MOST_MESSAGES:
            return False
        kinds.append(kind)
        at += size
    return not wanted.isdisjoint(kinds)


def _counted_up(content: bytes, at: int) -> tuple[int, int]:
    """A number as SEI messages write it, 255 for each byte of ones, and where it ends.

    One that is more than all of ``content`` is not read to its end.
    """
    total = 0
    while content[at : at + 1] == b"\xff" and total <= len(content):
        total, at = total + 255, at + 1
    return total + (content[at : at + 1] or b"\x00")[0], at + 1


def _marked(payload: bytes, units: Iterable[Unit]) -> bytes:
    """A payload whose units are called filler."""
    changed = bytearray(payload)
    for unit in units:
        if unit.kind >= 0:
            changed[unit.start : unit.start + 1] = _FILLER[unit.codec]
    return bytes(changed)


def _few(found: Iterable[FoundT]) -> list[FoundT]:
    """All that was found, unless that is more than a packet may hold."""
    first = list(islice(found, MOST_UNITS + 1))
    if len(first) > MOST_UNITS:
        raise RefusedChunkError(
            f"a packet or its stream's header holds more than {MOST_UNITS} units, and no camera "
            "sends so many"
        )
    return first
