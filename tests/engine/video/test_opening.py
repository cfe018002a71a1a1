"""What real recorders write is opened: which stream, which container, and what is said if not."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from engine.errors import CorruptChunkError, RefusedChunkError, UnreadableVideoError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.video.containers import check_declared_samples, sniff_file
from engine.video.cutting import cut_video
from engine.video.frames import PyAvDecoder, probe_video, read_video
from tests.support.videos import a_chunk, make_video

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
N_FRAMES = 20
TS_BYTES = 188


def times_of(path: Path) -> list[int]:
    return [us for batch in read_video(path, SQUARE, EVERY_FRAME) for us in batch.pts_us.tolist()]


def decoded(payload: bytes) -> list[int]:
    times: list[int] = PyAvDecoder(SQUARE, EVERY_FRAME).decode(a_chunk(payload)).pts_us.tolist()
    return times


def two_streams(
    sizes: list[tuple[int, int]],
    dispositions: list[Disposition],
    container: str = "matroska",
) -> bytes:
    """A video with two streams of 5 pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        streams: list[VideoStream] = []
        for (width, height), disposition in zip(sizes, dispositions, strict=True):
            is_cover = bool(disposition & Disposition.attached_pic)
            stream = output.add_stream("mjpeg" if is_cover else "libx264", rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if is_cover else "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for stream in streams:
            is_cover = bool(stream.disposition & Disposition.attached_pic)
            for index in range(1 if is_cover else 5):
                rgb = np.full((stream.height, stream.width, 3), 40 * index, np.uint8)
                frame = VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return buffer.getvalue()


NONE = Disposition(0)
SMALL, LARGE = (32, 32), (96, 64)


@pytest.mark.parametrize(
    ("sizes", "dispositions", "container", "wanted"),
    [
        ([LARGE, SMALL], [Disposition.attached_pic, Disposition.default], "mp4", SMALL),
        ([SMALL, LARGE], [NONE, NONE], "matroska", LARGE),
        ([LARGE, SMALL], [NONE, NONE], "matroska", LARGE),
        ([SMALL, LARGE], [Disposition.default, NONE], "matroska", SMALL),
        ([SMALL, LARGE], [NONE, NONE], "mpegts", LARGE),
    ],
)
def test_the_stream_is_the_one_that_a_player_shows(
    sizes: list[tuple[int, int]],
    dispositions: list[Disposition],
    container: str,
    wanted: tuple[int, int],
    tmp_path: Path,
) -> None:
    path = tmp_path / "two"
    path.write_bytes(two_streams(sizes, dispositions, container))

    facts = probe_video(path)

    assert wanted == (facts.width, facts.height)
    assert 5 == len(times_of(path))
    chunks = list(cut_video(path, chunk_s=1, on_note=lambda _note: None))
    assert [(*wanted, 5)] == [(chunk.width, chunk.height, chunk.n_frames) for chunk in chunks]


def test_a_cover_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mkv"
    path.write_bytes(two_streams([LARGE], [Disposition.attached_pic], "mp4"))

    with pytest.raises(UnreadableVideoError, match="no video stream"):
        times_of(path)


def packets_of(ts: bytes) -> list[bytes]:
    return [ts[at : at + TS_BYTES] for at in range(0, len(ts), TS_BYTES)]


WAYS: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
    "m2ts": ("h264", "mpegts", lambda ts: b"".join(b"\0\1\2\3" + p for p in packets_of(ts))),
    "204 bytes": ("h264", "mpegts", lambda ts: b"".join(p + bytes(16) for p in packets_of(ts))),
    "half a packet first": ("h264", "mpegts", lambda ts: ts[100:TS_BYTES] + ts),
    "a header first": ("h264", "mpegts", lambda ts: b"HTTP/1.1 200 OK\r\n" * 60 + ts),
    "program stream": ("h264", "mpeg", bytes),
    "program stream, 40 bytes first": ("h264", "mpeg", lambda ps: b"IMKH" + bytes(36) + ps),
    "flv": ("h264", "flv", bytes),
    "raw, junk first": ("h264", "h264", lambda raw: b"junk" + raw),
    "multipart": ("mjpeg", "mpjpeg", bytes),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_recorders_write_is_read(way: str, tmp_path: Path) -> None:
    codec, container, change = WAYS[way]
    # Large enough that no pack of a program stream holds two pictures.
    noise = np.random.default_rng(0).integers(0, 255, (N_FRAMES, 96, 128, 3), np.uint8)
    video = make_video(
        codec=codec,
        container=container,
        pictures=list(noise),
        size=(128, 96),
        time_base=Fraction(1, 1000),
    )
    path = tmp_path / "recorded"
    path.write_bytes(change(video))

    times = times_of(path)

    assert [40_000 * index for index in range(N_FRAMES)] == pytest.approx(times, abs=12)
    decoder = PyAvDecoder(SQUARE, EVERY_FRAME)
    pieces = cut_video(path, chunk_s=0.4, on_note=lambda _note: None)
    chunks = [piece.to_chunk("cam-1", "e", index) for index, piece in enumerate(pieces)]
    assert times == [us for chunk in chunks for us in decoder.decode(chunk).pts_us.tolist()]


def test_a_chunk_may_not_be_all_that_a_file_may_be() -> None:
    for container in ("flv", "mpeg"):
        with pytest.raises(RefusedChunkError, match="wanted one of"):
            decoded(make_video(container=container, n_frames=2, time_base=Fraction(1, 1000)))


@pytest.mark.parametrize("head", [b"", b"0&\xb2u" + bytes(9), b"GIF89a", b"OggS" + bytes(99)])
def test_an_unknown_container_is_told_how_to_bring_it_over(head: bytes) -> None:
    with pytest.raises(RefusedChunkError, match="ffmpeg -i FILE -c copy"):
        sniff_file(head)


def with_sound(codec: str, rate: int, seconds: int) -> bytes:
    """A MOV with 5 pictures and plain sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as output:
        stream = output.add_stream("libx264", rate=25)
        sound = output.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        assert isinstance(sound, AudioStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound.layout = "mono"
        for index in range(5):
            frame = VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for second in range(seconds):
            samples = AudioFrame.from_ndarray(
                np.zeros((1, rate), np.int16), format="s16", layout="mono"
            )
            samples.sample_rate, samples.pts, samples.time_base = (
                rate,
                second * rate,
                Fraction(1, rate),
            )
            output.mux(sound.encode(samples))
        output.mux(sound.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("codec", "rate"),
    [("pcm_s16le", 48_000), ("pcm_s16be", 44_100), ("pcm_mulaw", 8000), ("pcm_alaw", 8000)],
)
@pytest.mark.parametrize("seconds", [1, 10])
def test_plain_sound_in_a_chunk_counts_nothing(codec: str, rate: int, seconds: int) -> None:
    assert 5 == len(decoded(with_sound(codec, rate, seconds)))


def changed(video: bytes, old: bytes, new: bytes, *, last: bool = True) -> bytes:
    at = video.rindex(old) if last else video.index(old)
    return video[:at] + new + video[at + len(old) :]


SOUND = with_sound("pcm_s16le", 48_000, 1)
SIZES = struct.pack(">4sIII", b"stsz", 0, 2, 48_000)
RUNS = struct.pack(">4sIIII", b"stts", 0, 1, 48_000, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"soun", b"vide"),
        (b"sowt", b"avc1"),
        (SIZES, struct.pack(">4sIII", b"stsz", 0, 0, 48_000)),
        (SIZES, struct.pack(">4sIII", b"stsz", 0, 2, 0xFFFF_FFFF)),
        (RUNS, struct.pack(">4sIIII", b"stts", 0, 1, 48_000, 2)),
        (RUNS, struct.pack(">4sIIII", b"stts", 0, 2, 48_000, 1)),
        (b"dhlrurl ", b"dhlrvide"),
        (b"smhd", b"trak"),
        (b"smhd", b"stsd"),
    ],
)
def test_what_only_looks_like_sound_is_counted(old: bytes, new: bytes) -> None:
    check_declared_samples(SOUND, 20_000)
    with pytest.raises(RefusedChunkError, match="samples"):
        check_declared_samples(changed(SOUND, old, new), 20_000)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    video = make_video()
    path = tmp_path / "cut off.mp4"
    path.write_bytes(video[: video.index(b"moov") - 4])

    with pytest.raises(UnreadableVideoError, match="cut off before it was finished"):
        times_of(path)
    path.write_bytes(video[: len(video) // 2])
    with pytest.raises(UnreadableVideoError, match="cut off before it was finished"):
        list(cut_video(path, chunk_s=1, on_note=lambda _note: None))
    with pytest.raises(CorruptChunkError, match="cut off before it was finished"):
        decoded(path.read_bytes())


@pytest.mark.parametrize("first", [b"moof", b"styp", b"sidx"])
def test_a_missing_init_segment_is_named(first: bytes, tmp_path: Path) -> None:
    video = make_video(movflags="frag_keyframe+empty_moov+default_base_moof")
    fragment = video[video.index(b"moof") - 4 :]
    if first != b"moof":
        fragment = (16).to_bytes(4, "big") + first + bytes(8) + fragment
    path = tmp_path / "1.m4s"
    path.write_bytes(fragment)

    with pytest.raises(UnreadableVideoError, match="without its init segment"):
        times_of(path)
    with pytest.raises(CorruptChunkError, match="without its init segment"):
        decoded(fragment)


def test_an_open_gop_is_named() -> None:
    open_gops = {"x264-params": "open-gop=1:keyint=10:scenecut=0"}
    video = make_video(container="mpegts", n_frames=40, b_frames=2, options=open_gops)
    with av.open(io.BytesIO(video)) as source:
        keys = [packet.pos for packet in source.demux(video=0) if packet.is_keyframe]
    first_packets = video[: 3 * TS_BYTES]  # tables

    with pytest.raises(CorruptChunkError, match=r"begins with an open GOP.*IDR picture"):
        decoded(first_packets + video[keys[1] :])


def test_missing_parameter_sets_are_named() -> None:
    video = make_video(container="mpegts", n_frames=5)
    for header in (b"\0\0\1\x67", b"\0\0\1\x68"):
        video = video.replace(header, b"\0\0\1\x0c")

    with pytest.raises(CorruptChunkError, match="no parameter sets"):
        decoded(video)
