"""What a chunk may be: its container, told from its first bytes, and what it may cost.

FFmpeg's own probing knows formats that open other files or addresses (playlists, concat scripts,
SDP), so it is never asked: the demuxer is named by ``sniff`` or the payload is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
_MP4_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide")
# A byte stream must begin with a parameter set, an access unit delimiter or an SEI message. The
# H.265 headers (layer 0, temporal id 0) are no H.264 header that may stand first, nor vice versa.
_ANNEX_B = re.compile(
    rb"\x00{2,8}\x01(?:(?P<hevc>[\x40\x42\x46\x4e]\x01)|(?P<h264>[\x27\x47\x67\x06\x09]))"
)
_BOX_HEADER_BYTES = 8
_COUNTED_BOX = re.compile(rb"stsz|stz2|trun|stts|ctts|cmov", re.DOTALL)


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
    if payload[:4] == b"\x1a\x45\xdf\xa3":
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
        for box in _COUNTED_BOX.finditer(payload, start, end):
            if box[0] == b"cmov":
                raise RefusedChunkError("the MP4's header is compressed: send it plain")
            claimed += _claimed_samples(box[0], rest[box.end() : end], max_samples)
            if claimed > max_samples:
                raise RefusedChunkError(
                    f"the MP4's tables claim {claimed} samples or more, "
                    f"wanted at most {max_samples}: cut shorter chunks"
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


def _outside_media_data(payload: bytes) -> Iterator[tuple[int, int]]:
    """Where top-level boxes but media data begin and end."""
    at = 0
    while at + 8 <= len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(payload[at + 8 : at + 16], "big")
        if not _BOX_HEADER_BYTES <= size <= len(payload) - at:
            break
        if payload[at + 4 : at + 8] != b"mdat":
            yield at, at + size
        at += size
    # What remains is no box that ends inside the payload.
    if payload[at + 4 : at + 8] != b"mdat":
        yield at, len(payload)
