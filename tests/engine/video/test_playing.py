"""Playing: the chunks of a run, one after the other, are one video to any reader of FFmpeg's."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import UInt8Array
from engine.video.cutting import CutChunk, cut_video
from engine.video.fragments import Fragment, decoding_times, lead_for
from engine.video.frames import PyAvDecoder, read_video
from tests.support.videos import a_chunk, has_encoder, make_video, picture

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1_000_000, snippet_frames=16, stride_frames=16)
DAY_TICKS = 24 * 3600 * 90_000
# Every codec and container that is cut as it is, with B-frames where there are any.
SOURCES: dict[str, dict[str, Any]] = {
    "h264.mp4": {"b_frames": 2},
    "h264.ts": {"container": "mpegts", "b_frames": 2},
    "h264.mkv": {"container": "matroska", "b_frames": 3},
    "hevc.mp4": {"codec": "hevc", "b_frames": 2},
    "hevc.ts": {"codec": "hevc", "container": "mpegts", "b_frames": 2},
    "mjpeg.avi": {"codec": "mjpeg", "container": "avi"},
    "vp9.webm": {"codec": "vp9", "container": "webm"},
    "av1.mp4": {"codec": "av1"},
}


class Pipe:
    """Bytes that can be read once, from first to last."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, n_bytes: int) -> bytes:
        return self._content.read(n_bytes)


@contextmanager
def no_errors() -> Iterator[None]:
    """FFmpeg logs no error; it does warn of each header after the first, which it skips."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as logged:
            yield
    finally:
        av.logging.set_level(None)
    assert [] == logged


def played(content: bytes, how: type[Pipe | io.BytesIO] = Pipe) -> tuple[list[Fraction], Any]:
    """Seconds and pictures that a player shows."""
    times: list[Fraction] = []
    pictures: list[NDArray[np.uint8]] = []
    with no_errors(), av.open(how(content), format="mp4") as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        for frame in container.decode(stream):
            assert frame.pts is not None
            times.append(frame.pts * stream.time_base)
            pictures.append(frame.to_ndarray(format="rgb24"))
    return times, pictures


def joined(chunks: Sequence[CutChunk]) -> bytes:
    return b"".join(chunk.payload for chunk in chunks)


def cut(video: bytes, name: str = "a.mp4", chunk_s: float = 0.05, **how: Any) -> list[CutChunk]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(video)
        return list(cut_video(Path(folder) / name, chunk_s=chunk_s, on_note=_ignored, **how))


def _ignored(_note: str) -> None:
    """Notes are another test's."""


def assert_plays(chunks: Sequence[CutChunk], wanted: Sequence[Fraction]) -> None:
    """The chunks are one video with frames at the wanted times, the pictures of each alone."""
    times, pictures = played(joined(chunks))

    assert list(wanted) == [time - times[0] for time in times]
    assert sum(chunk.n_frames for chunk in chunks) == len(times)
    alone = [shown for chunk in chunks for shown in played(chunk.payload)[1]]
    assert all(np.array_equal(*both) for both in zip(alone, pictures, strict=True))


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("transcode", ["never", "always"])
@pytest.mark.parametrize("how", [Pipe, io.BytesIO])
def test_fifty_chunks_play_as_one_video(
    name: str, transcode: str, how: type[Pipe | io.BytesIO]
) -> None:
    codec = SOURCES[name].get("codec", "h264")
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")
    video = make_video(**SOURCES[name], n_frames=200, gop=4)

    chunks = cut(video, name, 0.16, transcode=transcode)

    times, pictures = played(joined(chunks), how)
    assert 50 == len(chunks)
    assert [Fraction(index, 25) for index in range(200)] == [time - times[0] for time in times]
    alone = [shown for chunk in chunks for shown in played(chunk.payload)[1]]
    assert all(np.array_equal(*both) for both in zip(alone, pictures, strict=True))


def test_who_comes_later_sees_the_rest() -> None:
    """As a reader of a topic does, that starts at its end."""
    chunks = cut(make_video(n_frames=60, gop=3, b_frames=1))

    for n_missed in range(len(chunks)):
        times, _ = played(joined(chunks[n_missed:]))

        assert Fraction(3 * n_missed + 1, 25) == times[0]  # a frame is shown one frame late
        assert 60 - 3 * n_missed == len(times)


def test_a_lost_chunk_leaves_a_hole() -> None:
    chunks = cut(make_video(n_frames=40, gop=4, b_frames=2), chunk_s=0.16)
    kept = [*chunks[:3], *chunks[4:]]

    assert_plays(kept, [Fraction(index, 25) for index in range(40) if index // 4 != 3])


@st.composite
def footage(draw: st.DrawFn) -> dict[str, Any]:
    """What ``make_video`` takes: uneven frames, odd time bases, a late start, B-frames."""
    time_base = draw(
        st.sampled_from(
            [
                Fraction(1, 25),
                Fraction(1, 1000),
                Fraction(1, 12_800),
                Fraction(1, 90_000),
                Fraction(1001, 30_000),
            ]
        )
    )
    codec = draw(st.sampled_from(["h264", "h264", "h264", "hevc"]))
    steps = draw(st.lists(st.integers(1, 5_000), min_size=12, max_size=24))
    pts = [draw(st.integers(0, 100_000))]
    for step in steps:
        pts.append(pts[-1] + (step if time_base < Fraction(1, 1000) else 1 + step // 1000))
    return {
        "codec": codec,
        "pts": pts,
        "time_base": time_base,
        "gop": draw(st.integers(2, 8)),
        "b_frames": draw(st.integers(0, 3)),
    }


@given(how=footage(), transcode=st.sampled_from(["never", "always"]))
@settings(max_examples=40)
def test_whatever_the_footage_its_chunks_play_with_its_spacing(
    how: dict[str, Any], transcode: str
) -> None:
    chunks = cut(make_video(**how), chunk_s=1e-6, transcode=transcode)

    assert_plays(chunks, [(ticks - how["pts"][0]) * how["time_base"] for ticks in how["pts"]])


@given(how=footage())
@settings(max_examples=20)
def test_a_chunks_own_clock_changes_no_stream_time(how: dict[str, Any]) -> None:
    video = make_video(**how)
    decoder = PyAvDecoder(SQUARE, EVERY_FRAME)

    batches = [
        decoder.decode(chunk.to_chunk("cam-1", "e", index))
        for index, chunk in enumerate(cut(video, chunk_s=1e-6, transcode="never"))
    ]

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        whole = list(read_video(file.name, SQUARE, EVERY_FRAME))
    assert [us for batch in whole for us in batch.pts_us] == [
        us for batch in batches for us in batch.pts_us
    ]
    seen = [np.concatenate([batch.rgb for batch in some]) for some in (whole, batches)]
    assert np.array_equal(*seen)


def test_chunks_of_before_are_read_as_they_were() -> None:
    """Their clock starts at 0 in each chunk; some producer still sends such ones."""
    movflags = "delay_moov+default_base_moof+frag_custom"
    payload = make_video(n_frames=10, b_frames=2, movflags=movflags)

    batch = PyAvDecoder(SQUARE, EVERY_FRAME).decode(
        a_chunk(payload, start_ticks=90_000, time_base=Fraction(1, 90_000))
    )

    assert [1_000_000 + 40_000 * index for index in range(10)] == batch.pts_us.tolist()


@pytest.mark.parametrize("transcode", ["never", "always"])
def test_a_source_that_counts_anew_plays_on(transcode: str) -> None:
    video = make_video(n_frames=50, gop=5, b_frames=2, container="mpegts")

    chunks = cut(video + video, "restarted.ts", 0.2, transcode=transcode)

    times, _ = played(joined(chunks))
    assert len(times) == sum(chunk.n_frames for chunk in chunks) > 90
    assert all(before < after for before, after in pairwise(times))
    assert_decoding_times_rise(joined(chunks))


def test_b_frames_may_begin_late_and_wait_for_long() -> None:
    """The first chunk has none, and later a camera sleeps for ten seconds within a GOP."""
    first = make_video(n_frames=4, gop=4, container="mpegts")
    pts = [14_400 + 3600 * index + 900_000 * (index >= 10) for index in range(36)]
    rest = make_video(
        pts=pts, time_base=Fraction(1, 90_000), gop=12, b_frames=3, container="mpegts"
    )

    chunks = cut(first + rest, "sleepy.ts", transcode="never")

    times, _ = played(joined(chunks))
    assert 4 == len(chunks)
    wanted = [*range(0, 14_400, 3600), *pts]
    assert [Fraction(ticks, 90_000) for ticks in wanted] == [time - times[0] for time in times]
    assert_decoding_times_rise(joined(chunks))


def assert_decoding_times_rise(content: bytes) -> None:
    with av.open(Pipe(content), format="mp4") as container:
        dts = [packet.dts for packet in container.demux() if packet.size]
    assert None not in dts
    assert all(before < after for before, after in pairwise(dts))


@pytest.mark.parametrize("changed", [{"gop": 1000}, {"gop": 1000, "size": (96, 80)}])
def test_re_encoding_that_begins_within_a_run_goes_on_playing(changed: dict[str, Any]) -> None:
    """A player knows the parameters of the first chunk alone; the key frames bring others."""
    pts = [7200 + 3600 * index for index in range(60)]
    how: dict[str, Any] = {"time_base": Fraction(1, 90_000), "container": "mpegts"}
    first = make_video(pts=pts[:20], gop=5, b_frames=2, **how)
    rest = make_video(pts=pts[20:], **how, **changed)

    chunks = cut(first + rest, "changed.ts", 0.2)

    assert {(64, 48), changed.get("size", (64, 48))} == {(c.width, c.height) for c in chunks}
    assert_plays(chunks, [Fraction(index, 25) for index in range(60)])


def test_a_run_may_last_for_months() -> None:
    """A decoder gives the stream times of the header, whatever the chunk's own clock says."""
    pts = [100 * DAY_TICKS + 3600 * index for index in range(8)]
    time_base = Fraction(1, 90_000)
    with av.open(io.BytesIO(make_video(n_frames=8, b_frames=2))) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        first = min(packet.pts or 0 for packet in packets)
        shown = [pts[0] + ((packet.pts or 0) - first) * 90_000 // 12_800 for packet in packets]
        mp4 = Fragment(time_base, 8_640_000, 7200)
        mp4.copy(stream, packets, shown, pts[-1] + 3600, Fraction(1))
    payload = mp4.finish()

    batch = PyAvDecoder(SQUARE, EVERY_FRAME).decode(
        a_chunk(payload, start_ticks=pts[0], time_base=time_base)
    )

    assert [100 * 86_400 * 10**6 + 40_000 * index for index in range(8)] == batch.pts_us.tolist()
    assert [ticks + 7200 for ticks in pts] == [time * 90_000 for time in played(payload)[0]]


@st.composite
def reordered(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two chunks in a row: pts in the order of decoding, no frame before 16 that it follows."""
    chunks: list[list[int]] = []
    ticks = draw(st.integers(0, 1000))
    for _ in range(2):
        pts: list[int] = []
        while len(pts) < 40 and (not pts or draw(st.booleans())):
            gop = [
                ticks := ticks + draw(st.integers(1, 9)) for _ in range(draw(st.integers(1, 17)))
            ]
            pts += [gop[0], *draw(st.permutations(gop[1:]))]
        chunks.append(pts)
    return chunks[0], chunks[1]


@given(chunks=reordered(), time_base=st.sampled_from([Fraction(1, 25), Fraction(1, 90_000)]))
def test_decoding_times_rise_from_chunk_to_chunk_and_precede_the_picture(
    chunks: tuple[list[int], list[int]], time_base: Fraction
) -> None:
    start = min(chunks[0])
    first, second = ([ticks - start for ticks in pts] for pts in chunks)
    lead = lead_for(first, time_base)

    dts = [decoding_times(pts, lead) for pts in (first, second)]

    both = dts[0] + dts[1]
    assert both[0] >= 0
    assert all(before < after for before, after in pairwise(both))
    assert all(at <= shown + lead for at, shown in zip(both, first + second, strict=True))


@given(pts=st.lists(st.integers(0, 50), min_size=1, max_size=60), n_before=st.integers(0, 3))
@settings(max_examples=30)
def test_times_that_make_no_sense_still_make_a_chunk(pts: list[int], n_before: int) -> None:
    """Sources repeat times and tell them in any order; the decoder judges, not the muxer."""
    video = make_video(codec="mjpeg", container="avi", n_frames=1)
    with av.open(io.BytesIO(video)) as source:
        stream = source.streams.video[0]
        key = next(source.demux(stream))
        packets = [av.Packet(bytes(key)) for _ in pts]
        mp4 = Fragment(Fraction(1, 25), n_before, 16)
        mp4.copy(stream, packets, pts, max(pts) + 1, Fraction(1))  # type: ignore[arg-type]

    with av.open(io.BytesIO(mp4.finish())) as container:
        assert len(pts) == sum(1 for _ in container.decode(video=0))


def test_pictures_keep_their_order() -> None:
    """Frames are told apart by their grey, so none is shown twice or in another's place."""
    wanted: list[UInt8Array] = [picture(index, 64, 48) for index in range(28)]

    _, pictures = played(joined(cut(make_video(n_frames=28, gop=2, b_frames=1))))

    nearest = [
        int(np.argmin([np.abs(shown.astype(int) - one).mean() for one in wanted]))
        for shown in pictures
    ]
    assert list(range(28)) == nearest
