"""What lies beside the pictures of H.264 and H.265, and must not cost a picture.

Damage in pictures is refused (``explode``), which to FFmpeg means damage anywhere: one message
that is a byte too long would make a camera unreadable. So before a packet is decoded, messages
that cannot be read or are not needed, and parameter sets that no decoder takes, are marked as
filler, which decoders pass over.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import av.error
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.stream import VideoStream

from engine.errors import RefusedChunkError
from engine.video.numbering import (
    MARKING_BYTES,
    PictureNumbers,
    first_number,
    is_first_slice,
    is_referred_to,
    is_slice,
)
from engine.video.units import (
    BESIDE_PICTURES,
    MOST_UNITS,
    UNIT_CODECS,
    Unit,
    codec_name,
    parameter_units,
    spans_of,
    units_of,
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
    "hevc": frozenset({_RECOVERY_POINT, _ORIENTATION, _CHECKSUM}),
}
_HARMLESS = {"h264": frozenset({0, 1}), "hevc": frozenset[int]()}
_LEAST_BYTES = {_ENCODER: 16, _CHECKSUM: 5}
# Different parameter sets of a stream that are judged, and the bytes of one: a hostile stream may
# have others, which are left to its decoder.
_MOST_JUDGED, _MOST_SET_BYTES = 64, 1024
_MOST_MESSAGES = 64  # of a unit; cameras send a handful
FoundT = TypeVar("FoundT")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the units of a packet say of its picture.

    Attributes:
        has_picture: There is something to decode.
        is_reference: Other pictures may refer to it.
        n_missing: So many pictures that others refer to were lost before it.
        number: The picture's, where the codec numbers them.
        recovers_at: At the picture of this number all is right again, whatever came before.
        is_recovery_point: From here decoding may begin, though all is right only later.
    """

    has_picture: bool = True
    is_reference: bool = True
    n_missing: int = 0
    number: int | None = None
    recovers_at: int | None = None
    is_recovery_point: bool = False


_UNSEEN, _NO_PICTURE = Seen(), Seen(has_picture=False)


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
        self._numbers = PictureNumbers()
        if self._codec in UNIT_CODECS and context.extradata:
            units = _few(parameter_units(stream))
            bad = [unit for unit in units if not self._is_sound(unit)]
            if bad:
                context.extradata = _marked(context.extradata, bad)
            for unit in units if self._codec == "h264" else ():
                self._numbers.learn(unit.content)
        self._extradata = context.extradata or b""

    @property
    def lacks_parameter_sets(self) -> bool:
        """Has nothing said yet how pictures are to be decoded?"""
        return self._codec in UNIT_CODECS and not self._sets

    @property
    def sets(self) -> bytes:
        """The parameter sets that are sound, so far, behind start codes."""
        return self._sets

    def mend(self, packet: "Packet[VideoStream]") -> Seen:
        """Mark a packet's units, and tell what they say.

        Raises:
            RefusedChunkError: It holds more units than ``MOST_UNITS``.
        """
        if self._codec not in UNIT_CODECS or not packet.size:
            return _UNSEEN
        payload = bytes(packet)
        spans = _few(spans_of(payload, self._codec, self._extradata))
        headers = BESIDE_PICTURES[self._codec]
        beside = [
            Unit(self._codec, payload, start, end)
            for start, end in spans
            if start < len(payload) and payload[start] in headers
        ]
        judged = [(unit, self._is_sound(unit)) for unit in beside]
        sound = [unit for unit, is_sound in judged if is_sound]
        if len(sound) < len(beside):
            packet.update(_marked(payload, (unit for unit, is_sound in judged if not is_sound)))
        # A packet of messages alone is no picture; of anything that is none, the decoder judges.
        if beside and sum(unit.is_sei for unit in beside) == len(spans):
            return _NO_PICTURE
        if self._codec == "h264":
            return self._numbered(payload, spans, sound)
        counts = [_recovery_count(unit) for unit in sound if unit.is_sei]
        return Seen(is_recovery_point=any(count is not None for count in counts))

    def _numbered(
        self, payload: bytes, spans: Sequence[tuple[int, int]], sound: Sequence[Unit]
    ) -> Seen:
        """What the headers of an H.264 packet's slices and messages say."""
        for unit in sound:
            if unit.is_parameter_set:
                self._numbers.learn(unit.content)
        n_missing, is_reference, n_slices = 0, False, 0
        for start, _ in spans:
            head = payload[start : start + MARKING_BYTES]
            if is_slice(head):
                n_slices += 1
                is_reference = is_reference or is_referred_to(head)
                if is_first_slice(head):
                    begins = n_slices == 1
                    n_missing += self._numbers.n_missing_before(head, begins_packet=begins)
        counts = (_recovery_count(unit) for unit in sound if unit.is_sei)
        count = next((count for count in counts if count is not None), None)
        return Seen(
            is_reference=is_reference or not n_slices,
            n_missing=n_missing,
            number=self._numbers.newest,
            recovers_at=None if count is None else self._numbers.after(count),
        )

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


def is_recovery_point(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Does a message say that decoding may begin here, though all is right only later?"""
    codec = codec_name(stream)
    if codec not in UNIT_CODECS:
        return False
    units = units_of(bytes(packet), codec, stream.codec_context.extradata or b"")
    return any(_recovery_count(unit) is not None for unit in units if unit.is_sei)


def mend_header(stream: VideoStream) -> None:
    """Mark parameter sets in a stream's header that no decoder takes as filler."""
    MetadataFilter(stream)


def is_sound_sei(unit: Unit) -> bool:
    """Can all messages of a unit be read, and does a picture need one of them?"""
    wanted = _WANTED[unit.codec]
    welcome = wanted | _HARMLESS[unit.codec]
    kinds: set[int] = set()
    for n_before, (kind, content) in enumerate(_messages_of(unit)):
        if content is None or len(content) < _LEAST_BYTES.get(kind, 0):
            return False
        if kind not in welcome or n_before == _MOST_MESSAGES:
            return False
        kinds.add(kind)
    return not wanted.isdisjoint(kinds)


def _recovery_count(unit: Unit) -> int | None:
    """After how many pictures that others refer to all is right again, if a message says so."""
    for kind, content in _messages_of(unit):
        if kind == _RECOVERY_POINT and content is not None:
            return first_number(content)
    return None


def _messages_of(unit: Unit) -> Iterator[tuple[int, bytes | None]]:
    """Each message's kind and content, which is None where the unit ends before."""
    content = unit.content[_N_HEADER[unit.codec] :].replace(b"\x00\x00\x03", b"\x00\x00")
    at = 0
    while len(content) - at > 2:  # noqa: PLR2004 - a byte of kind, of size and of the unit's end
        kind, at = _counted_up(content, at)
        size, at = _counted_up(content, at)
        yield kind, content[at : at + size] if size <= len(content) - at else None
        at += size


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
