"""What a chunk may be: its container, told from its first bytes, and what it may cost.

FFmpeg's own probing knows formats that open other files or addresses (playlists, concat scripts,
SDP), so it is never asked: the demuxer is named by ``sniff`` or the payload is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END
from typing import BinaryIO

from engine.errors import RefusedChunkError
from engine.grid import US_PER_S

CONTENT_TYPES = {
    "mov": "video/mp4",
    "mpegts": "video/mp2t",
    "matroska": "video/x-matroska",
    "avi": "video/x-msvideo",
    "mjpeg": "image/jpeg",
    "h264": "video/h264",
    "hevc": "video/h265",
}
SNIFF_BYTES = 4096

_TS_PACKET_BYTES = 188
_MP4_FIRST_BOXES = (
    *(b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide"),
    *(b"moof", b"sidx", b"emsg", b"prft", b"pdin", b"uuid"),
)
# The head of a stream; a cluster, before which a camera's earlier chunk had that.
_MATROSKA_FIRST_ELEMENTS = (b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75")
_TS_PACKETS_BYTES = (188, 192, 204)  # plain, with arrival times (.m2ts), with check bytes
_N_TS_PACKETS = 5  # so many in a row are no accident
_PACK_START = b"\x00\x00\x01\xba"
# A byte stream must begin with a parameter set, an access unit delimiter, an SEI message or an IDR
# picture, whose parameter sets came before. The H.265 headers (layer 0, temporal id 0) are no
# H.264 header that may stand first, nor vice versa.
_ANNEX_B = re.compile(
    rb"\x00{2,8}\x01(?:(?P<hevc>[\x40\x42\x46\x4e\x26\x28]\x01)"
    rb"|(?P<h264>[\x27\x47\x67\x06\x09\x25\x45\x65]))"
)
_BOX_HEADER_BYTES = 8
_MOST_KINDS = 64  # of boxes; an MP4 has a dozen
_COUNTED_BOX = re.compile(rb"stsz|stz2|trun|stts|ctts|cmov", re.DOTALL)
_ONE = (1).to_bytes(4, "big")
_SOUND_HANDLERS = {b"soun", b"url ", b"alis"}  # of sound, and of where a MOV's data lie
_PCM_FORMATS = {
    *(b"raw ", b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"fl64"),
    *(b"lpcm", b"ipcm", b"fpcm", b"ulaw", b"alaw"),
}
_MOST_PCM_SAMPLES = 60 * 192_000


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one chunk may cost.

    Attributes:
        min_side_px: Shorter sides are refused: there is nothing to see.
        max_side_px: Longer sides are refused.
        max_pixels: Pixels of one frame, 4096 x 2160; the codec allocates nothing larger.
        max_frames: Frames of the chunk.
        max_chunk_pixels: Pixels of all its frames together: 15 s of 4096 x 2160 at 30 fps.
        max_payload_bytes: Bytes of the chunk as sent.
        max_span_us: Time from first frame to last.
    """

    min_side_px: int = 16
    max_side_px: int = 8192
    max_pixels: int = 4096 * 2160
    max_frames: int = 2000
    max_chunk_pixels: int = 15 * 30 * 4096 * 2160
    max_payload_bytes: int = 64 * 2**20
    max_span_us: int = 60 * US_PER_S

    def check_size(self, width_px: int, height_px: int) -> None:
        """Refuse a frame size.

        Raises:
            RefusedChunkError: The size is outside the limits.
        """
        shorter, longer = sorted((width_px, height_px))
        if (
            shorter < self.min_side_px
            or longer > self.max_side_px
            or width_px * height_px > self.max_pixels
        ):
            raise RefusedChunkError(
                f"a frame is {width_px}x{height_px}, wanted sides of {self.min_side_px}.."
                f"{self.max_side_px} and at most {self.max_pixels} pixels"
            )


def sniff(payload: bytes) -> str:
    """FFmpeg's short name of the demuxer for a payload.

    Args:
        payload: The whole, or at least the first ``SNIFF_BYTES``.

    Returns:
        A key of ``CONTENT_TYPES``.

    Raises:
        RefusedChunkError: None of the known containers starts like this.
    """
    if payload[4:8] in _MP4_FIRST_BOXES:
        return "mov"
    if payload[:1] == b"G" and payload[_TS_PACKET_BYTES : _TS_PACKET_BYTES + 1] == b"G":
        return "mpegts"
    if payload[:4] in _MATROSKA_FIRST_ELEMENTS:
        return "matroska"
    if payload[:4] == b"RIFF" and payload[8:12] == b"AVI ":
        return "avi"
    if payload[:3] == b"\xff\xd8\xff":
        return "mjpeg"
    if annex_b := _ANNEX_B.match(payload):
        return annex_b.lastgroup or "h264"
    raise RefusedChunkError(
        f"the payload starts with {payload[:8].hex(' ') or 'nothing'}, wanted one of "
        f"{', '.join(CONTENT_TYPES)}: send closed GOPs in one of these containers"
    )


def sniff_file(head: bytes) -> str:
    """FFmpeg's short name of the demuxer for an operator's file.

    More containers than a chunk may have, and some bytes may come before the first packet.

    Args:
        head: The first ``SNIFF_BYTES``, or all if there are fewer.

    Raises:
        RefusedChunkError: None of the known containers starts like this.
    """
    if head[:4] == b"FLV\x01":
        return "flv"
    if head.lstrip()[:2] == b"--" and b"image/jpeg" in head.lower():
        return "mjpeg"  # what is between the pictures is skipped
    try:
        return sniff(head)
    except RefusedChunkError:
        if _has_ts_packets(head):
            return "mpegts"
        if _PACK_START in head:
            return "mpeg"
        if annex_b := _ANNEX_B.search(head):
            return annex_b.lastgroup or "h264"
    raise RefusedChunkError(
        f"it starts with {head[:8].hex(' ') or 'nothing'}, wanted one of "
        f"{', '.join(CONTENT_TYPES)}, flv, mpeg (PS): bring it into one of these without loss, "
        "ffmpeg -i FILE -c copy -map 0:v:0 NEW.mkv"
    )


def _has_ts_packets(head: bytes) -> bool:
    """Do some packets of one size follow each other, from wherever on?"""
    for size in _TS_PACKETS_BYTES:
        reach = (_N_TS_PACKETS - 1) * size
        for start in range(len(head) - reach):
            if head[start : start + reach + 1 : size] == b"G" * _N_TS_PACKETS:
                return True
    return False


def boxes_in(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int]]:
    """Kind of each box of an MP4's top level, and where it says that it ends.

    Args:
        file: The MP4.
        end: Its size.
    """
    at = 0
    while at + _BOX_HEADER_BYTES <= end:
        file.seek(at)
        header = file.read(2 * _BOX_HEADER_BYTES)
        size = int.from_bytes(header[:4], "big")
        size = int.from_bytes(header[8:], "big") if size == 1 else size
        at = at + size if size >= _BOX_HEADER_BYTES else end  # or it goes on to the end
        yield header[4:8], at


def missing_header(file: BinaryIO, container: str, *, is_chunk: bool = False) -> str | None:
    """What a video lacks so that it cannot be read, and what to do; None if that is not it.

    Args:
        file: All of it; it is read from its start.
        container: What it is.
        is_chunk: It is a camera's, of which an earlier chunk may have had it.
    """
    earlier = (
        ", and no chunk of its camera had one since this process serves it" if is_chunk else ""
    )
    if container == "matroska" and file.read(4) == _MATROSKA_FIRST_ELEMENTS[1]:
        return (
            f"it is a cluster without the head of its stream (EBML, Tracks){earlier}: put that "
            "in front, cat init.webm cluster.webm"
        )
    return _missing_box(file, earlier) if container == "mov" else None


def _missing_box(file: BinaryIO, earlier: str) -> str | None:
    kinds: set[bytes] = set()
    for kind, _end in boxes_in(file, file.seek(0, SEEK_END)):
        kinds.add(kind)
        if len(kinds) == _MOST_KINDS:
            break
    if b"moov" in kinds:
        return None
    if b"moof" in kinds:
        return (
            f"it is a fragment without its init segment (box moov){earlier}: put that in front, "
            "cat init.mp4 fragment.m4s"
        )
    return (
        "its index (box moov) is missing: the recording was cut off before it was finished; "
        "record MPEG-TS, Matroska or fragmented MP4, which need no end"
    )


def check_declared_samples(payload: bytes, max_samples: int) -> None:
    """Refuse an MP4 whose tables together claim more samples than allowed.

    FFmpeg fills an index entry for every sample that a fragment's header of 20 bytes claims, and
    looks for the samples later. Box nesting is ignored on purpose: FFmpeg reads these boxes
    wherever they stand, so this does too, except inside top-level media data.

    Args:
        payload: The whole MP4.
        max_samples: Of all tracks and tables; a sample is claimed by up to three tables.

    Raises:
        RefusedChunkError: It claims too many samples, or its header is compressed.
    """
    claimed, rest = 0, memoryview(payload)  # copies of it would make the work quadratic
    for start, end in _outside_media_data(payload):
        sound = list(_pcm_tracks(payload, start, end))
        for box in _COUNTED_BOX.finditer(payload, start, end):
            if box[0] == b"cmov":
                raise RefusedChunkError("the MP4's header is compressed: send it plain")
            if any(begin <= box.start() < until for begin, until in sound):
                continue
            claimed += _claimed_samples(box[0], rest[box.end() : end], max_samples)
            if claimed > max_samples:
                raise RefusedChunkError(
                    f"the MP4's tables claim {claimed} samples or more, "
                    f"wanted at most {max_samples}: cut shorter chunks"
                )


def _pcm_tracks(payload: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where tracks of plain sound (PCM, G.711) lie in a box of the top level.

    Their samples are thousands a second, all of one size, and FFmpeg keeps no entry for each. What
    else a track holds must leave no doubt, or it counts as any other.
    """
    if payload[start + 4 : start + 8] != b"moov":
        return
    at = start + _BOX_HEADER_BYTES
    while at + _BOX_HEADER_BYTES <= end:
        size = int.from_bytes(payload[at : at + 4], "big")
        if not _BOX_HEADER_BYTES <= size <= end - at:
            return
        is_track = payload[at + 4 : at + 8] == b"trak"
        if is_track and _is_pcm(payload[at + _BOX_HEADER_BYTES : at + size]):
            yield at, at + size
        at += size


def _is_pcm(track: bytes) -> bool:
    handlers = {track[box.end() + 8 :][:4] for box in re.finditer(b"hdlr", track)}
    if b"trak" in track or b"soun" not in handlers or not handlers <= _SOUND_HANDLERS:
        return False
    tables = {
        kind: [track[box.end() :][:16] for box in re.finditer(kind, track)]
        for kind in (b"stsd", b"stsz", b"stz2", b"stts", b"ctts", b"trun")
    }
    if [len(found) for found in tables.values()] != [1, 1, 0, 1, 0, 0]:
        return False
    (described,), (sizes,), (times,) = tables[b"stsd"], tables[b"stsz"], tables[b"stts"]
    most = _MOST_PCM_SAMPLES.to_bytes(4, "big")
    return (
        described[4:8] == _ONE
        and described[12:16] in _PCM_FORMATS
        and sizes[4:8] != bytes(4)
        and sizes[8:12] <= most
        and times[4:8] == times[12:16] == _ONE
        and times[8:12] <= most
    )


def _claimed_samples(box: bytes, body: memoryview, most: int) -> int:
    """Samples that one table claims, or its entries if these are more.

    Args:
        box: The table's type.
        body: What follows; it reads 0 past its end.
        most: With more entries than that, nothing is added up.
    """
    offset = 8 if box in (b"stsz", b"stz2") else 4
    entries = int.from_bytes(body[offset : offset + 4], "big")
    if box not in (b"stts", b"ctts"):
        return entries
    # Pairs (number of samples, delta); FFmpeg reads none past the end of the payload.
    runs = body[8 : 8 + 8 * entries]
    n_pairs = -(-len(runs) // 8)
    if n_pairs > most:
        return n_pairs
    # Pairs that claim nothing count too, or a payload full of such tables would be read again
    # and again.
    return max(
        n_pairs, sum(int.from_bytes(runs[at : at + 4], "big") for at in range(0, len(runs), 8))
    )


def boxes_of(payload: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each box of an MP4's top level, as far as they are whole."""
    at = 0
    while at + _BOX_HEADER_BYTES <= len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(payload[at + 8 : at + 16], "big")
        if not _BOX_HEADER_BYTES <= size <= len(payload) - at:
            return
        yield payload[at + 4 : at + 8], at, at + size
        at += size


def _outside_media_data(payload: bytes) -> Iterator[tuple[int, int]]:
    """Where top-level boxes but media data begin and end."""
    at = 0
    for kind, start, end in boxes_of(payload):
        if kind != b"mdat":
            yield start, end
        at = end
    # What remains is no box that ends inside the payload.
    if payload[at + 4 : at + 8] != b"mdat":
        yield at, len(payload)
