"""What a camera says once of how its chunks are to be decoded, kept for those that lack it.

Some cameras send parameter sets, the init segment of fragments, or the head of a WebM stream, with
their first chunk only. A chunk that has its own needs nothing of this.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from av.packet import Packet
from av.video.stream import VideoStream

from engine.errors import RefusedChunkError
from engine.video.containers import boxes_of, sniff
from engine.video.matroska import is_cluster, stream_head
from engine.video.units import UNIT_CODECS, codec_name, lacks_parameters, units_of, with_payload

MOST_BYTES = 16_384  # of a header; they have some hundred
MOST_CAMERAS = 1024  # names come from outside

_FRAGMENT, _CLUSTERS = "mov", "matroska"
_INIT_BOXES = (b"ftyp", b"moov")


@dataclass(frozen=True, slots=True)
class Header:
    """A camera's, for chunks that lack theirs.

    Attributes:
        kind: ``mov``: an init segment; ``matroska``: what comes before clusters; ``h264``,
            ``hevc``: parameter sets behind start codes.
        payload: Its bytes.
    """

    kind: str
    payload: bytes


class KeptHeaders:
    """The newest header of each camera; of those that were used last, so many.

    Whoever decodes a camera's chunks, with whichever model, finds what was said before.
    """

    def __init__(self) -> None:
        self._headers: OrderedDict[str, Header] = OrderedDict()

    def get(self, camera: str) -> Header | None:
        """A camera's, if it has said any."""
        return self._headers.get(camera)

    def keep(self, camera: str, header: Header | None) -> None:
        """Keep what a camera has said; None: it has said nothing new."""
        if header is not None:
            self._headers[camera] = header
            self._headers.move_to_end(camera)
            while len(self._headers) > MOST_CAMERAS:
                self._headers.popitem(last=False)


def completed(payload: bytes, kept: Header | None) -> bytes:
    """A chunk with the kept header in front, if it lacks its own and begins with it."""
    if kept is None:
        return payload
    try:
        container = sniff(payload)
    except RefusedChunkError:
        return payload
    if container != kept.kind:
        return payload
    if container == _FRAGMENT:
        kinds = {kind for kind, _start, _end in boxes_of(payload)}
        return kept.payload + payload if b"moof" in kinds and b"moov" not in kinds else payload
    if container == _CLUSTERS:
        return kept.payload + payload if is_cluster(payload) else payload
    return payload if _begins_with_sets(payload, container) else kept.payload + payload


def with_sets(
    packets: Iterable["Packet[VideoStream]"], stream: VideoStream, kept: Header | None
) -> Iterator["Packet[VideoStream]"]:
    """The packets; the first one with the kept parameter sets, if the stream has none."""
    packets = iter(packets)
    first = next(packets, None)
    if first is None:
        return
    if (
        kept is not None
        and kept.kind == codec_name(stream)
        and first.is_keyframe
        and lacks_parameters(first, stream)
    ):
        first = with_payload(first, kept.payload + bytes(first))
    yield from chain([first], packets)


def init_segment(payload: bytes) -> Header | None:
    """The init segment of a fragmented MP4, or the head of a Matroska stream.

    Returns:
        None if it has none, or one that is too large.
    """
    head = stream_head(payload)
    if head is not None:
        return Header(_CLUSTERS, head) if len(head) <= MOST_BYTES else None
    boxes = list(boxes_of(payload))
    if {b"moov", b"moof"} <= {kind for kind, _start, _end in boxes}:
        init = b"".join(payload[start:end] for kind, start, end in boxes if kind in _INIT_BOXES)
        if len(init) <= MOST_BYTES:
            return Header(_FRAGMENT, init)
    return None


def parameter_sets(stream: VideoStream, sets: bytes) -> Header | None:
    """Parameter sets of a stream, behind start codes; None if they are of no use to others."""
    codec = codec_name(stream)
    has_own = any(name in stream.container.format.name for name in (_FRAGMENT, _CLUSTERS))
    is_stream = codec in UNIT_CODECS and not has_own
    return Header(codec, sets) if is_stream and 0 < len(sets) <= MOST_BYTES else None


def _begins_with_sets(payload: bytes, codec: str) -> bool:
    """Are there parameter sets before the first picture of a byte stream?"""
    for unit in units_of(payload, codec, b""):
        if unit.is_slice or unit.is_parameter_set:
            return unit.is_parameter_set
    return False
