"""What hostile or careless senders send, made here: bombs, slow pictures, large chunks."""

import time
from functools import cache

from engine.errors import StreamError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.frames import PyAvDecoder

WIDTH, HEIGHT = 4096, 2160  # the largest that is allowed
BIG_CHUNK_BYTES = 6 * 2**20
MOST_HEADER_BYTES = 15 * 2**19  # 7.5 MiB: with it, the record is just not too large

_N_BLOCKS = (WIDTH // 8) * (HEIGHT // 8)
_MOST_RUN = 2**15 - 1  # of blocks without a coefficient, which one code says
_MOST_SEGMENT_BYTES = 2**16 - 3
_TRIAL_SCANS = 2000


def progressive_jpeg(n_scans: int, n_bytes: int = 0) -> bytes:
    """A grey picture of ``n_scans`` scans that say nothing: each makes its reader see all blocks.

    Of 4096 x 2160 pixels. It is all inside the standard (ITU-T T.81, G.1.2.2).

    Args:
        n_scans: How many.
        n_bytes: Comments make the file at least as large as that.
    """
    tables = _segment(0xDB, bytes([0]) + bytes([1] * 64))
    size = HEIGHT.to_bytes(2, "big") + WIDTH.to_bytes(2, "big")
    frame = _segment(0xC2, bytes([8]) + size + bytes([1, 1, 0x11, 0]))
    one_code = bytes([1] + [0] * 15)  # the code "0"
    dc = _segment(0xC4, bytes([0x00]) + one_code + bytes([0]))
    ac = _segment(0xC4, bytes([0x10]) + one_code + bytes([0xE0]))
    first = _segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(-(-_N_BLOCKS // 8))
    scan = _segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + _nothing()
    comments = _segment(0xFE, bytes(_MOST_SEGMENT_BYTES)) * -(-n_bytes // _MOST_SEGMENT_BYTES)
    scans = first + scan * n_scans
    return b"\xff\xd8" + comments + tables + frame + dc + ac + scans + b"\xff\xd9"


@cache
def jpeg_that_takes(seconds: float, n_bytes: int = 0) -> bytes:
    """A picture that takes about so many seconds of this machine's computing."""
    return progressive_jpeg(round(seconds / _scan_s()), n_bytes)


def claiming_mp4() -> bytes:
    """An MP4 whose only table claims two thousand million samples."""
    runs = (1).to_bytes(4, "big") + (2**31 - 1).to_bytes(4, "big") + (1).to_bytes(4, "big")
    table = _box(b"stts", bytes(4) + runs)
    return _box(b"ftyp", b"isom" + bytes(4)) + _box(b"moov", table)


@cache
def _scan_s() -> float:
    began_s = time.process_time()
    _decode(progressive_jpeg(_TRIAL_SCANS))
    return (time.process_time() - began_s) / _TRIAL_SCANS


def _decode(payload: bytes) -> None:
    chunk = VideoChunk("trial", "trial", 0, 0, payload)
    try:
        PyAvDecoder(FrameGeometry(64, 64), Grid(25, 16, 16), DecodeLimits()).decode(chunk)
    except StreamError as error:
        raise AssertionError(f"the picture is none: {error}") from error


def _nothing() -> bytes:
    """A scan's data in which no block has a coefficient: runs of blocks, by their codes."""
    n_left, bits = _N_BLOCKS, ""
    while n_left:
        # 0 is the code of a run of 2**14 blocks and as many more as the next 14 bits say.
        run = min(n_left, _MOST_RUN)
        n_left -= run
        bits += f"0{max(run - 2**14, 0):014b}"
    bits += "1" * (-len(bits) % 8)
    raw = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return raw.replace(b"\xff", b"\xff\x00")


def _box(name: bytes, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + name + body


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body
