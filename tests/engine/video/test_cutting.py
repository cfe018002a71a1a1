"""Cutting: the chunks of a video, decoded one by one, are the video."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import UnreadableVideoError
from engine.grid import Grid, ticks_to_us
from engine.spec import FrameGeometry
from engine.types import FrameBatch
from engine.video.arrivals import HostClocks
from engine.video.cutting import CutChunk, cut_video
from engine.video.encoding import encode_video
from engine.video.frames import PyAvDecoder, read_video
from tests.support.videos import has_encoder, make_video, picture

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
NTSC = Fraction(1, 30_000)
# B-frames, short GOPs, and every codec a chunk may have.
SOURCES: dict[str, dict[str, Any]] = {
    "h264.mp4": {"b_frames": 2},
    "h264.ts": {"container": "mpegts", "b_frames": 2},
    "h264.mkv": {"container": "matroska", "b_frames": 3},
    "ntsc.mp4": {"b_frames": 2, "time_base": NTSC, "pts": [1001 * n for n in range(100)]},
    "late-start.mp4": {"b_frames": 2, "pts": [99_999 + 512 * n for n in range(100)]},
    "variable.mp4": {"pts": [n * 400 + n % 7 * 37 for n in range(100)], "b_frames": 1},
    "turned.mp4": {"rotation_deg": 90},
    "hevc.mp4": {"codec": "hevc", "b_frames": 2},
    "hevc.ts": {"codec": "hevc", "container": "mpegts", "b_frames": 3},
    "mjpeg.avi": {"codec": "mjpeg", "container": "avi"},
    "mjpeg.mjpeg": {"codec": "mjpeg", "container": "mjpeg"},
    "vp9.webm": {"codec": "vp9", "container": "webm"},
    "av1.mp4": {"codec": "av1"},
    "av1.mkv": {"codec": "av1", "container": "matroska"},
}


def a_source(tmp_path: Path, name: str = "h264.mp4", **changes: Any) -> Path:
    how = {"n_frames": 100, "gop": 10, **SOURCES.get(name, {}), **changes}
    if not has_encoder(how.get("codec", "h264")):
        pytest.skip(f"this build of FFmpeg has no {how['codec']} encoder")
    path = tmp_path / name
    path.write_bytes(make_video(**how))
    return path


def cut(source: Path | str, chunk_s: float = 1, **how: Any) -> tuple[list[CutChunk], list[str]]:
    notes: list[str] = []
    return list(cut_video(source, chunk_s=chunk_s, on_note=notes.append, **how)), notes


def decoded(chunks: list[CutChunk]) -> list[FrameBatch]:
    decoder = PyAvDecoder(SQUARE, EVERY_FRAME)
    return [
        decoder.decode(chunk.to_chunk("cam-1", "e", index)) for index, chunk in enumerate(chunks)
    ]


def times_of(batches: list[FrameBatch]) -> list[int]:
    return [us for batch in batches for us in batch.pts_us.tolist()]


def pictures_of(batches: list[FrameBatch]) -> np.ndarray[Any, Any]:
    return np.concatenate([batch.rgb for batch in batches])


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("chunk_s", [0.5, 1, 5])
def test_the_chunks_are_the_video_frame_for_frame(
    tmp_path: Path, name: str, chunk_s: float
) -> None:
    source = a_source(tmp_path, name)

    chunks, notes = cut(source, chunk_s, transcode="never")

    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert times_of(whole) == times_of(pieces)
    assert np.array_equal(pictures_of(whole), pictures_of(pieces))
    assert [] == notes
    assert chunk_s == 5 or len(chunks) > 2


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.ts", "vp9.webm", "ntsc.mp4"])
@pytest.mark.parametrize("transcode", ["never", "always"])
def test_a_chunk_says_what_is_inside(tmp_path: Path, name: str, transcode: str) -> None:
    chunks, _ = cut(a_source(tmp_path, name), transcode=transcode)

    batches = decoded(chunks)

    for chunk, batch, after in zip(chunks, batches, [*chunks[1:], None], strict=True):
        assert chunk.n_frames == batch.n_decoded
        assert chunk.start_us == batch.pts_us[0] == ticks_to_us(chunk.start_ticks, chunk.time_base)
        assert "video/mp4" == chunk.content_type
        assert (64, 48, True) == (chunk.width, chunk.height, chunk.keyframe)
        if after is not None:
            assert after.start_us == chunk.start_us + chunk.duration_us
        else:
            assert 30_000 < chunk.start_us + chunk.duration_us - batch.pts_us[-1] < 50_000
    assert 0 == chunks[0].start_ticks


def test_a_chunk_lasts_at_least_as_long_as_was_asked(tmp_path: Path) -> None:
    """GOPs of 0.4 s make chunks of 0.8 s where 0.5 s was asked for."""
    chunks, _ = cut(a_source(tmp_path), 0.5)

    assert [800_000] * 5 == [chunk.duration_us for chunk in chunks]


def test_nothing_is_re_encoded_where_key_frames_are_near(tmp_path: Path) -> None:
    source = a_source(tmp_path)

    assert cut(source, transcode="never") == cut(source, transcode="auto")


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("mpeg4.avi", {"codec": "mpeg4", "container": "avi"}, "its codec is mpeg4"),
        ("raw.h264", {"container": "h264", "b_frames": 2}, "h264 in h264 has no frame times"),
        ("b.avi", {"container": "avi", "b_frames": 2}, "h264 in avi has no frame times"),
    ],
)
def test_what_cannot_be_cut_is_re_encoded_and_said(
    tmp_path: Path, name: str, changes: dict[str, Any], why: str
) -> None:
    source = a_source(tmp_path, name, **changes)

    chunks, notes = cut(source)

    assert 1 == len(notes)
    assert why in notes[0]
    assert [1_000_000] * 4 == [chunk.duration_us for chunk in chunks]
    assert {"h264"} == {chunk.codec for chunk in chunks}
    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert times_of(whole) == times_of(pieces)
    assert np.abs(pictures_of(whole).astype(int) - pictures_of(pieces)).mean() < 3
    with pytest.raises(UnreadableVideoError, match=f"{why}.*allow transcoding"):
        cut(source, transcode="never")


def test_a_long_gop_is_re_encoded_or_stays_whole(tmp_path: Path) -> None:
    source = a_source(tmp_path, gop=1000)

    encoded, notes = cut(source, 1, transcode="auto")
    whole, silent = cut(source, 1, transcode="never")

    assert 4 == len(encoded)
    assert ["re-encoded with H.264, for its key frames are more than 2 chunks apart"] == notes
    assert [100] == [chunk.n_frames for chunk in whole]
    assert [] == silent
    assert times_of(decoded(whole)) == times_of(decoded(encoded))


@pytest.mark.parametrize("transcode", ["never", "always"])
def test_chunks_are_cut_to_what_their_reader_takes(tmp_path: Path, transcode: str) -> None:
    source = a_source(tmp_path)
    whole, _ = cut(source, 10, transcode=transcode)
    most = len(whole[0].payload) // 3

    chunks, notes = cut(source, 10, transcode=transcode, most_bytes=lambda: most)

    assert 1 == len(whole)
    assert all(len(chunk.payload) <= most for chunk in chunks)
    assert 1 == sum(f"takes {most} bytes" in note for note in notes)
    assert times_of(decoded(whole)) == times_of(decoded(chunks))
    unbound, silent = cut(source, 10, transcode="never", most_bytes=lambda: 10**9)
    assert 1 == len(unbound)
    assert [] == silent


@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska"])
@pytest.mark.parametrize("freeze_s", [3, 6, 30])
@pytest.mark.parametrize("at", [41, 45, 49, 50])
def test_a_freeze_makes_no_gop_too_long(
    tmp_path: Path, container: str, freeze_s: int, at: int
) -> None:
    """Wherever in a GOP the camera stands still, what follows is copied as before."""
    times = [n * 40 + (freeze_s * 1000 if n >= at else 0) for n in range(100)]
    source = a_source(
        tmp_path, pts=times, container=container, time_base=Fraction(1, 1000), b_frames=2
    )

    chunks, notes = cut(source, 1)

    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert [] == notes
    assert times_of(whole) == times_of(pieces)
    assert np.array_equal(pictures_of(whole), pictures_of(pieces))


@pytest.mark.parametrize(
    "times",
    [
        [n * 5000 for n in range(30)],  # a picture every 5 s
        [n * 40 + (50_000 if n >= 45 else 0) for n in range(100)],  # longer than a chunk may be
        [n * 40 + (3000 if n >= 43 else 0) + (3000 if n >= 47 else 0) for n in range(100)],
    ],
)
def test_what_a_chunk_may_not_hold_or_a_copy_would_delay_is_encoded(
    tmp_path: Path, times: list[int]
) -> None:
    source = a_source(tmp_path, pts=times, container="matroska", time_base=Fraction(1, 1000))

    chunks, notes = cut(source, 1)

    assert ["re-encoded"] == [note.split(" with ")[0] for note in notes[:1]]
    assert len(times) == sum(chunk.n_frames for chunk in chunks)
    assert times_of(list(read_video(source, SQUARE, EVERY_FRAME))) == times_of(decoded(chunks))


@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_camera_whose_gops_are_short_again_is_copied_again(
    tmp_path: Path, container: str, b_frames: int
) -> None:
    times = [n * 40 + (3000 if n >= 43 else 0) + (3000 if n >= 47 else 0) for n in range(200)]
    source = a_source(
        tmp_path, pts=times, container=container, time_base=Fraction(1, 1000), b_frames=b_frames
    )

    chunks, notes = cut(source, 1)

    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert ["re-encoded with H.264", "copied again"] == [note.split(",")[0] for note in notes]
    assert times_of(whole) == times_of(pieces)
    whole_rgb, pieces_rgb = pictures_of(whole), pictures_of(pieces)
    same = [bool(np.array_equal(a, b)) for a, b in zip(whole_rgb, pieces_rgb, strict=True)]
    assert all(same[:20])
    assert all(same[-90:])
    assert not all(same)
    joined = tmp_path / "joined.mp4"
    joined.write_bytes(b"".join(chunk.payload for chunk in chunks))
    played = times_of(list(read_video(joined, SQUARE, EVERY_FRAME)))
    n_dropped = len(times_of(whole)) - len(played)
    assert n_dropped <= (1 if b_frames else 0)  # where copying begins a player may drop one
    assert set(played) <= set(times_of(whole))


def test_an_open_gop_is_not_cut(tmp_path: Path) -> None:
    """Its leading pictures refer to the GOP before; a chunk must not start with them."""
    source = a_source(
        tmp_path,
        codec="hevc",
        b_frames=3,
        options={"x265-params": "log-level=none:open-gop=1:keyint=10:min-keyint=10:scenecut=0"},
    )

    chunks, _ = cut(source, 0.5, transcode="never")

    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert 1 == len(chunks)
    assert np.array_equal(pictures_of(whole), pictures_of(pieces))


def test_where_no_key_frame_is_an_idr_picture_it_is_re_encoded(tmp_path: Path) -> None:
    """As a broadcast is, recorded from its middle on."""
    video = make_video(
        container="mpegts",
        n_frames=100,
        b_frames=2,
        options={"x264-params": "open-gop=1:keyint=10:scenecut=0"},
    )
    source = tmp_path / "open.ts"
    source.write_bytes(video[188 * (len(video) // 188 // 3) :])

    chunks, notes = cut(source, 0.5)

    assert "re-encoded with H.264, for its key frames are no IDR pictures" in notes
    assert any("before the first key frame" in note for note in notes)
    assert len(chunks) > 3
    assert times_of(decoded(chunks))
    with pytest.raises(UnreadableVideoError, match=r"open\.ts: there is no key frame"):
        cut(source, transcode="never")


@pytest.mark.parametrize("transcode", ["never", "always"])
def test_when_the_clock_jumps_back_stream_time_goes_on(tmp_path: Path, transcode: str) -> None:
    """A camera that restarts begins to count anew."""
    video = a_source(tmp_path, "h264.ts", n_frames=50).read_bytes()
    source = tmp_path / "restarted.ts"
    source.write_bytes(video + video)

    chunks, notes = cut(source, 0.5, transcode=transcode)

    times = times_of(decoded(chunks))
    assert ["the source's clock stepped by -2.0 s; stream time goes on from where it was"] == [
        note for note in notes if "clock" in note
    ]
    assert [40_000 * index for index in range(100)] == times
    assert times == times_of(list(read_video(source, SQUARE, EVERY_FRAME, on_note=notes.append)))
    assert "the source's clock stepped" in notes[-1]


@pytest.mark.parametrize("transcode", ["never", "auto", "always"])
@pytest.mark.parametrize("jump_s", [120, 7 * 3600])
def test_when_the_clock_jumps_ahead_no_frame_lasts_so_long(
    tmp_path: Path, transcode: str, jump_s: int
) -> None:
    """An MP4 cannot even say that a frame lasts for seven hours."""
    pts = [3600 * index + (index >= 50) * jump_s * 90_000 for index in range(100)]
    source = tmp_path / "ahead.ts"
    source.write_bytes(
        make_video(container="mpegts", pts=pts, time_base=Fraction(1, 90_000), gop=10)
    )

    chunks, _ = cut(source, 0.4, transcode=transcode)

    assert times_of(list(read_video(source, SQUARE, EVERY_FRAME))) == times_of(decoded(chunks))
    assert max(chunk.duration_us for chunk in chunks) < 1_000_000
    assert 100 == sum(chunk.n_frames for chunk in chunks)


def test_full_range_colours_survive_re_encoding(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (255, 255, 255), (30, 200, 120), (128, 128, 128)]
    source = a_source(
        tmp_path,
        "mjpeg.avi",
        pictures=[np.full((48, 64, 3), colour, np.uint8) for colour in colours],
    )

    chunks, _ = cut(source, transcode="always")

    seen = pictures_of(decoded(chunks)).mean(axis=(1, 2))
    assert np.abs(seen - colours).max() < 3


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_rotation_survives_re_encoding(tmp_path: Path, turned: int) -> None:
    source = a_source(tmp_path, rotation_deg=turned)

    chunks, _ = cut(source, transcode="always")

    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert np.abs(pictures_of(whole).astype(int) - pictures_of(pieces)).mean() < 4


def test_a_truncated_file_gives_what_is_there_and_then_says_so(tmp_path: Path) -> None:
    source = a_source(tmp_path, "h264.mkv")
    video = source.read_bytes()
    source.write_bytes(video[: len(video) * 2 // 3])

    chunks, _ = cut(source, 0.5)

    assert 2 <= len(chunks) < 5
    assert times_of(decoded(chunks)) == [
        40_000 * index for index in range(sum(chunk.n_frames for chunk in chunks))
    ]


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideoError, match=r"gone\.mp4: No such file"):
        cut(tmp_path / "gone.mp4")
    playlist = tmp_path / "list.m3u8"
    playlist.write_bytes(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    with pytest.raises(UnreadableVideoError, match="starts with 23 45 58"):
        cut(playlist)


def test_a_video_made_here_can_be_cut_anywhere_asked(tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"

    encode_video((picture(n, 64, 48) for n in range(50)), path, fps=25, key_frame_every=5)

    chunks, notes = cut(path, 0.2)
    assert [200_000] * 10 == [chunk.duration_us for chunk in chunks]
    assert [] == notes


class _Served(http.server.BaseHTTPRequestHandler):
    """One video under /video, a playlist under /list, and /stuck sends a part and then nothing."""

    def __init__(self, *args: Any, video: bytes, released: threading.Event) -> None:
        self._video, self._released = video, released
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.path == "/gone":
            self.send_error(404)
            return
        body = self._video if self.path != "/list" else b"#EXTM3U\n#EXTINF:1,\nvideo\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/stuck":
            self.wfile.write(body[: len(body) * 2 // 3])
            self.wfile.flush()
            self._released.wait(240)
            return
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Stay silent."""


class _Multipart(http.server.BaseHTTPRequestHandler):
    def __init__(self, *args: Any, video: bytes) -> None:
        self._video = video
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=ffmpeg")
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # FFmpeg looks first, and comes again
            self.wfile.write(self._video)

    def log_message(self, *_args: object) -> None:
        """Stay silent."""


@pytest.fixture
def camera() -> Iterator[tuple[str, bytes]]:
    """A camera that serves MPEG-TS over HTTP: its address, and the video."""
    video = make_video(container="mpegts", n_frames=100, gop=10, b_frames=2)
    released = threading.Event()
    handler = partial(_Served, video=video, released=released)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", video
        released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def jpeg_camera() -> Iterator[str]:
    """The address of a camera that serves 60 pictures as multipart JPEG."""
    video = make_video(codec="mjpeg", container="mpjpeg", n_frames=60, time_base=Fraction(1, 1000))
    handler = partial(_Multipart, video=video)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_an_http_camera_gives_the_same_chunks_as_its_file(
    camera: tuple[str, bytes], tmp_path: Path
) -> None:
    address, video = camera
    (tmp_path / "video.ts").write_bytes(video)

    from_url, notes = cut(f"{address}/video", 0.5, live=True)

    from_file, _ = cut(tmp_path / "video.ts", 0.5)
    assert times_of(decoded(from_file)) == times_of(decoded(from_url))
    assert np.array_equal(pictures_of(decoded(from_file)), pictures_of(decoded(from_url)))
    assert [] == notes


@pytest.mark.parametrize("fps", [1, 5, 30])
def test_motion_jpeg_runs_as_fast_as_it_arrives(jpeg_camera: str, fps: int) -> None:
    """A clock that the test makes go on by the camera's period at each picture."""
    arrivals_s = (1000 + number / fps for number in count())
    now_s = 0.0
    chunks: list[CutChunk] = []

    def steady_s() -> float:
        nonlocal now_s
        now_s = next(arrivals_s)
        return now_s

    with pytest.raises(UnreadableVideoError):  # FFmpeg calls the end of such a stream an error
        chunks.extend(
            cut_video(
                jpeg_camera,
                chunk_s=1,
                on_note=lambda _note: None,
                live=True,
                clocks=HostClocks(steady_s, lambda: round(now_s * 1e6)),
            )
        )

    times = times_of(decoded(chunks))
    assert 59 <= len(times) <= 60
    wanted = [round(index * 1e6 / fps) for index in range(len(times))]
    assert wanted == pytest.approx(times, abs=12)


def test_a_camera_that_falls_silent_fails_after_its_last_whole_chunk(
    camera: tuple[str, bytes],
) -> None:
    source = camera[0].replace("//", "//user:secret@") + "/stuck"
    running = cut_video(source, chunk_s=0.5, on_note=lambda _note: None, read_timeout_s=5)
    chunks: list[CutChunk] = []

    with pytest.raises(UnreadableVideoError, match=r"http://\*\*\*@127\.0\.0\.1.*/stuck: "):
        chunks.extend(running)

    times = times_of(decoded(chunks))
    assert 3 <= len(chunks) <= 5
    assert [40_000 * index for index in range(len(times))] == times


@pytest.mark.parametrize(("path", "why"), [("gone", "404"), ("list", "Invalid data")])
def test_an_address_without_a_video_is_named(
    camera: tuple[str, bytes], path: str, why: str
) -> None:
    """A playlist is not followed: what is read is what was named."""
    with pytest.raises(UnreadableVideoError, match=f"/{path}: .*{why}"):
        cut(f"{camera[0]}/{path}")


def test_a_chunk_is_one_fragment_with_a_header(tmp_path: Path) -> None:
    """Any player can show it by itself, and the next one can stand right behind it."""
    chunks, _ = cut(a_source(tmp_path))

    for chunk in chunks:
        assert [b"ftyp", b"moov", b"moof", b"mdat"] == list(boxes(chunk.payload))


def boxes(payload: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(payload):
        yield payload[at + 4 : at + 8]
        at += int.from_bytes(payload[at : at + 4], "big")


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("chunk_s", [0.5, 1, 5])
def test_a_real_camera_recording_is_cut_without_loss(shared_clips: Path, chunk_s: float) -> None:
    source = shared_clips / "one-by-one-person-detection.mp4"

    chunks, notes = cut(source, chunk_s, transcode="never")

    whole, pieces = list(read_video(source, SQUARE, EVERY_FRAME)), decoded(chunks)
    assert times_of(whole) == times_of(pieces)
    assert np.array_equal(pictures_of(whole), pictures_of(pieces))
    assert [] == notes
