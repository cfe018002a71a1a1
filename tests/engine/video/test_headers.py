"""A camera that says once how its chunks are decoded is decoded for as long as that is known."""

from collections.abc import Callable

import numpy as np
import pytest

from engine.errors import CorruptChunkError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import VideoChunk
from engine.video.containers import boxes_of
from engine.video.frames import PyAvDecoder
from engine.video.headers import (
    MOST_BYTES,
    MOST_CAMERAS,
    Header,
    KeptHeaders,
    completed,
    init_segment,
)
from engine.video.matroska import stream_head
from engine.video.units import units_of
from tests.support.videos import make_video, picture

GEOMETRY = FrameGeometry(resize_px=48, crop_px=48)
GRID = Grid(fps=25, snippet_frames=4, stride_frames=4)
FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
CLUSTER = b"\x1f\x43\xb6\x75"
CONTAINERS = {"stream": "mpegts", "clusters": "matroska", "fragment": "mp4"}
# Start codes with the headers of parameter sets, and what makes filler of them.
SETS = {
    "h264": ((b"\x00\x00\x01\x67", b"\x00\x00\x01\x68"), b"\x00\x00\x01\x0c"),
    "hevc": (
        (b"\x00\x00\x01\x40\x01", b"\x00\x00\x01\x42\x01", b"\x00\x00\x01\x44\x01"),
        b"\x00\x00\x01\x4c\x01",
    ),
}


def without_sets(payload: bytes, codec: str) -> bytes:
    kinds, filler = SETS[codec]
    for kind in kinds:
        assert kind in payload
        payload = payload.replace(kind, filler)
    return payload


def chunks_of(codec: str, container: str, *, start: int) -> bytes:
    """Ten pictures, of which no other ten are like."""
    pictures = [picture(start + index, 64, 48) for index in range(10)]
    return make_video(codec=codec, container=container, gop=10, pictures=pictures)


def raw(codec: str) -> tuple[bytes, bytes, bytes]:
    """A first chunk, a second one that lacks what it had, and the second with it."""
    whole = chunks_of(codec, codec, start=20)
    units = [unit for unit in units_of(whole, codec, b"") if not unit.is_parameter_set]
    lacking = b"".join(b"\0\0\0\1" + unit.content for unit in units)
    return chunks_of(codec, codec, start=0), lacking, whole


def bare(codec: str) -> tuple[bytes, bytes, bytes]:
    """As ``raw``; the second one begins with a picture itself."""
    first, lacking, whole = raw(codec)
    units = [unit for unit in units_of(lacking, codec, b"") if unit.is_slice]
    return first, b"".join(b"\0\0\1" + unit.content for unit in units), whole


def stream(codec: str) -> tuple[bytes, bytes, bytes]:
    whole = chunks_of(codec, "mpegts", start=20)
    return chunks_of(codec, "mpegts", start=0), without_sets(whole, codec), whole


def fragment(codec: str) -> tuple[bytes, bytes, bytes]:
    movie = make_video(codec=codec, gop=10, n_frames=20, movflags=FRAGMENTS)
    boxes = [(kind, movie[start:end]) for kind, start, end in boxes_of(movie)]
    init = b"".join(box for kind, box in boxes if kind in {b"ftyp", b"moov"})
    first, second = (
        boxes[at][1] + boxes[at + 1][1] for at, (kind, _) in enumerate(boxes) if kind == b"moof"
    )
    return init + first, second, init + second


def clusters(codec: str) -> tuple[bytes, bytes, bytes]:
    """As a browser sends its camera: what comes before the first cluster comes once."""
    whole = chunks_of(codec, "matroska", start=20)
    return chunks_of(codec, "matroska", start=0), whole[whole.index(CLUSTER) :], whole


MAKERS: list[tuple[Callable[[str], tuple[bytes, bytes, bytes]], str]] = [
    *((raw, codec) for codec in SETS),
    *((bare, codec) for codec in SETS),
    *((stream, codec) for codec in SETS),
    *((fragment, codec) for codec in SETS),
    *((clusters, codec) for codec in (*SETS, "vp9")),
]


def chunk(payload: bytes, sequence: int) -> VideoChunk:
    return VideoChunk("gate", "r", sequence, sequence * 400_000, payload)


@pytest.mark.parametrize(("make", "codec"), MAKERS)
def test_what_only_the_first_chunk_says_holds_for_the_next(make, codec) -> None:
    first, lacking, whole = make(codec)
    decoder = PyAvDecoder(GEOMETRY, GRID)
    decoder.decode(chunk(first, 0))

    seen = decoder.decode(chunk(lacking, 1))

    wanted = PyAvDecoder(GEOMETRY, GRID).decode(chunk(whole, 1))
    assert 10 == seen.n_decoded
    assert np.array_equal(wanted.rgb, seen.rgb)
    assert np.array_equal(wanted.pts_us, seen.pts_us)
    assert 10 == decoder.decode(chunk(lacking, 2)).n_decoded


@pytest.mark.parametrize(("make", "codec"), MAKERS)
def test_what_nobody_has_said_is_named_with_the_fix(make, codec) -> None:
    _first, lacking, _whole = make(codec)
    decoder = PyAvDecoder(GEOMETRY, GRID)

    with pytest.raises(CorruptChunkError) as refusal:
        decoder.decode(chunk(lacking, 1))

    said = str(refusal.value)
    assert "since this process serves it" in said
    assert any(what in said for what in ("parameter sets", "init segment", "head of its stream"))
    assert any(fix in said for fix in ("dump_extra", "cat init.mp4", "cat init.webm"))


@pytest.mark.parametrize(("make", "codec"), MAKERS)
def test_the_newest_word_counts(make, codec) -> None:
    _first, lacking, whole = make(codec)
    other = make_video(
        codec=codec,
        container={"raw": codec, "bare": codec, "stream": "mpegts", "clusters": "matroska"}.get(
            make.__name__, "mp4"
        ),
        size=(96, 80),
        n_frames=10,
        movflags=FRAGMENTS if make is fragment else "",
    )
    decoder = PyAvDecoder(GEOMETRY, GRID)
    decoder.decode(chunk(other, 0))
    decoder.decode(chunk(whole, 1))

    assert 10 == decoder.decode(chunk(lacking, 2)).n_decoded


def test_a_chunk_that_has_its_own_is_left_as_it_is() -> None:
    kept = Header("h264", b"sets")
    for payload in (raw("h264")[0], raw("hevc")[1], fragment("h264")[0], b"nonsense", b""):
        assert payload is completed(payload, kept)
        assert payload is completed(payload, None)


def test_of_many_cameras_those_are_kept_that_spoke_last() -> None:
    kept, header = KeptHeaders(), Header("h264", b"sets")
    for number in range(MOST_CAMERAS + 2):
        kept.keep(f"camera {number}", header)
        kept.keep("camera 0", header)
    kept.keep("camera 0", None)

    assert header == kept.get("camera 0")
    assert kept.get("camera 1") is kept.get("camera 2") is kept.get("never seen") is None
    assert header == kept.get("camera 3")


def test_an_init_segment_that_is_too_large_is_not_kept() -> None:
    first, _lacking, _whole = fragment("h264")
    assert init_segment(first) is not None
    large = (MOST_BYTES + 8).to_bytes(4, "big") + b"ftyp" + bytes(MOST_BYTES)

    assert init_segment(large + first) is None
    assert init_segment(make_video()) is None  # its tables are of no use to another chunk


def test_damage_to_the_head_of_a_stream_is_no_head_and_no_error() -> None:
    first = clusters("h264")[0]
    head = stream_head(first)
    assert head is not None
    assert head == stream_head(head + first[first.index(CLUSTER) :])
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(first[: int(rng.integers(0, len(first)))])
        for at in rng.integers(0, max(len(damaged), 1), 3):
            if damaged:
                damaged[at % len(damaged)] = rng.integers(0, 256)
        found = stream_head(bytes(damaged))
        assert found is None or len(found) <= len(damaged) + 8
