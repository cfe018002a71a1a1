"""The door: containers are known by their first bytes, and their tables are not believed."""

import os
import struct

import pytest

from engine.errors import RefusedChunkError
from engine.video.containers import CONTENT_TYPES, DecodeLimits, check_declared_samples, sniff
from tests.support.mutations import claiming_mp4
from tests.support.videos import ENCODERS, has_encoder, make_video


@pytest.mark.parametrize(
    ("codec", "muxer", "wanted"),
    [
        ("h264", "mp4", "mov"),
        ("h264", "mov", "mov"),
        ("h264", "mpegts", "mpegts"),
        ("h264", "matroska", "matroska"),
        ("vp9", "webm", "matroska"),
        ("mjpeg", "avi", "avi"),
        ("mjpeg", "mjpeg", "mjpeg"),
        ("h264", "h264", "h264"),
        ("hevc", "hevc", "hevc"),
    ],
)
def test_containers_are_known_by_their_first_bytes(codec: str, muxer: str, wanted: str) -> None:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")

    payload = make_video(codec=codec, container=muxer, n_frames=2)

    assert wanted == sniff(payload)
    assert wanted in CONTENT_TYPES


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("00000001 67 64", "h264"),
        ("000001 09 10", "h264"),
        ("00000001 06 05", "h264"),
        ("00000001 40 01", "hevc"),
        ("000001 46 01 10", "hevc"),
    ],
)
def test_byte_streams_are_told_apart_by_their_first_unit(start: str, wanted: str) -> None:
    assert wanted == sniff(bytes.fromhex(start) + bytes(100))


@pytest.mark.parametrize(
    "payload",
    [b"", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"v=0\r\n", b"G" + bytes(500), bytes(9)],
)
def test_anything_else_is_refused_with_its_first_bytes(payload: bytes) -> None:
    with pytest.raises(RefusedChunkError, match=payload[:8].hex(" ") or "nothing"):
        sniff(payload)


def test_tables_may_claim_what_the_limit_allows() -> None:
    """12 sizes and 12 durations."""
    video = make_video(n_frames=12)

    check_declared_samples(video, 24)
    with pytest.raises(RefusedChunkError, match="claim 24 samples or more, wanted at most 23"):
        check_declared_samples(video, 23)


def test_many_small_claims_are_one_large_one() -> None:
    run = b"\x00\x00\x00\x10trun" + struct.pack(">II", 0, 1000)

    check_declared_samples(run * 2, 2000)
    with pytest.raises(RefusedChunkError, match="3000 samples"):
        check_declared_samples(run * 50, 2000)


@pytest.mark.parametrize("box", [b"stsz", b"stz2", b"trun", b"stts", b"ctts"])
def test_claims_are_found_wherever_they_stand(box: bytes) -> None:
    counted = {
        b"stsz": struct.pack(">III", 0, 1, 9_999),
        b"stz2": struct.pack(">III", 0, 8, 9_999),
    }
    runs = struct.pack(">IIII", 0, 1, 9_999, 1)
    body = counted.get(box, runs if box in (b"stts", b"ctts") else struct.pack(">II", 0, 9_999))
    stray = (
        b"\x00\x00\x00\x08free" + b"\x00\x00\x7f\xff" + b"junk" + b"\x00\x00\x00\x00" + box + body
    )

    with pytest.raises(RefusedChunkError, match="9999 samples"):
        check_declared_samples(stray, 2000)


def test_media_data_is_not_searched() -> None:
    """Encoded pictures may contain any bytes."""
    claim = b"stsz" + struct.pack(">III", 0, 1, 9_999)
    mdat = (8 + len(claim)).to_bytes(4, "big") + b"mdat" + claim

    check_declared_samples(b"\x00\x00\x00\x08free" + mdat, 2000)
    with pytest.raises(RefusedChunkError, match="9999"):
        check_declared_samples(mdat.replace(b"mdat", b"moov"), 2000)


def test_a_huge_claim_is_refused() -> None:
    with pytest.raises(RefusedChunkError, match=r"claim 42949672\d\d samples"):
        check_declared_samples(claiming_mp4(make_video(n_frames=2), 0xFFFF_FFFF), 2000)


@pytest.mark.parametrize(
    ("width", "height"), [(15, 400), (400, 15), (8193, 16), (4097, 2160), (16_000, 16_000)]
)
def test_sizes_outside_the_limits_are_refused(width: int, height: int) -> None:
    with pytest.raises(RefusedChunkError, match=f"{width}x{height}"):
        DecodeLimits().check_size(width, height)


def test_sizes_at_the_limits_are_taken() -> None:
    for width, height in ((16, 16), (4096, 2160), (2160, 4096), (8192, 1080)):
        DecodeLimits().check_size(width, height)


@pytest.mark.parametrize("codec", ENCODERS)
def test_footage_is_made_without_becoming_real_time(codec: str) -> None:
    """Else the tests after it, and every process they start, would starve the machine."""
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    before = os.sched_getscheduler(0)

    make_video(codec=codec, container="matroska", n_frames=2)

    assert before == os.sched_getscheduler(0)


def test_tables_that_claim_nothing_are_not_read_again_and_again():
    table = b"stts" + bytes(4) + (2**16).to_bytes(4, "big") + bytes(8 * 100)
    with pytest.raises(RefusedChunkError, match="tables claim"):
        check_declared_samples(b"\x00\x00\x00\x08free" + table * 1000, 20_000)
