"""Encoded video → frames: the right pictures at the right times, from any listed format."""

import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engine.errors import CorruptChunkError, UnreadableVideoError
from engine.grid import Grid, ticks_to_us
from engine.spec import FrameGeometry
from engine.types import FrameBatch, UInt8Array
from engine.video.frames import PyAvDecoder, probe_video, read_video
from engine.video.pixels import encode_jpeg
from tests.support.videos import a_chunk, has_encoder, make_video, picture

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
MODEL_GRID = Grid(fps=25, snippet_frames=16, stride_frames=16)
FORMATS = [
    ("h264", "mp4"),
    ("h264", "mpegts"),
    ("h264", "matroska"),
    ("h264", "avi"),
    ("h264", "h264"),
    ("hevc", "mp4"),
    ("hevc", "mpegts"),
    ("hevc", "hevc"),
    ("mjpeg", "avi"),
    ("mjpeg", "matroska"),
    ("mjpeg", "mjpeg"),
    ("vp9", "webm"),
    ("av1", "mp4"),
    ("av1", "matroska"),
]
COLOURS = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 0), (0, 255, 0), (30, 200, 120)]


def a_decoder(geometry: FrameGeometry = SQUARE, grid: Grid = EVERY_FRAME) -> PyAvDecoder:
    return PyAvDecoder(geometry, grid)


def joined(batches: list[FrameBatch]) -> tuple[list[int], UInt8Array]:
    times = [us for batch in batches for us in batch.pts_us.tolist()]
    return times, np.concatenate([batch.rgb for batch in batches])


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def need(codec: str) -> None:
    if not has_encoder(codec):
        pytest.skip(f"this build of FFmpeg has no {codec} encoder")


@pytest.mark.parametrize(("codec", "container"), FORMATS)
@pytest.mark.parametrize("b_frames", [0, 2])
def test_every_format_gives_every_frame_at_its_time(
    codec: str, container: str, b_frames: int
) -> None:
    need(codec)
    chunk = a_chunk(
        make_video(codec=codec, container=container, n_frames=20, b_frames=b_frames),
        start_us=3_000_000,
    )

    batch = a_decoder().decode(chunk)

    assert [3_000_000 + 40_000 * index for index in range(20)] == batch.pts_us.tolist()
    assert (20, 48, 48, 3) == batch.rgb.shape
    assert np.uint8 == batch.rgb.dtype
    assert batch.rgb.flags.c_contiguous
    assert 20 == batch.n_decoded
    wanted = np.stack([picture(index, 64, 48)[:, 8:56] for index in range(20)])
    assert np.abs(wanted.astype(int) - batch.rgb).mean() < 12


def test_frames_whose_time_does_not_rise_are_left_out_and_counted() -> None:
    chunk = a_chunk(make_video(n_frames=10), start_ticks=0, time_base=Fraction(1, 10))

    batch = a_decoder().decode(chunk)

    assert [0, 100_000, 200_000, 300_000, 400_000] == batch.pts_us.tolist()
    assert (10, 5) == (batch.n_decoded, batch.n_late)


@pytest.mark.parametrize(
    "geometry",
    [
        FrameGeometry(48, 48),
        FrameGeometry(64, 48),
        FrameGeometry(56, 48),
        FrameGeometry(48, 48, "pad"),
    ],
    ids=lambda geometry: f"{geometry.fit}-{geometry.resize_px}-{geometry.crop_px}",
)
@pytest.mark.parametrize(
    ("codec", "container"), [("h264", "mp4"), ("mjpeg", "avi"), ("vp9", "webm"), ("av1", "mp4")]
)
def test_colours_are_those_that_were_filmed(
    codec: str, container: str, geometry: FrameGeometry
) -> None:
    """Within the codec's own error, whatever short cut a size would invite."""
    need(codec)
    pictures = [np.full((64, 96, 3), colour, np.uint8) for colour in COLOURS]
    video = make_video(codec=codec, container=container, pictures=pictures, size=(96, 64))

    batch = a_decoder(geometry).decode(a_chunk(video))

    seen = batch.rgb[:, 16:32].mean(axis=(1, 2))
    assert np.abs(seen - COLOURS).max() < 3


def test_the_centre_is_cropped() -> None:
    """A frame three wide: left red, middle green, right blue."""
    rgb = np.zeros((48, 144, 3), np.uint8)
    rgb[:, :48, 0] = rgb[:, 48:96, 1] = rgb[:, 96:, 2] = 255

    batch = a_decoder().decode(a_chunk(make_video(pictures=[rgb], size=(144, 48))))

    assert batch.rgb[0, :, 2:-2].mean(axis=(0, 1)) == pytest.approx([0, 255, 0], abs=6)


def test_padding_keeps_the_whole_picture_between_black_bars() -> None:
    rgb = np.full((32, 64, 3), 200, np.uint8)
    geometry = FrameGeometry(resize_px=40, crop_px=48, fit="pad")

    batch = a_decoder(geometry).decode(a_chunk(make_video(pictures=[rgb], size=(64, 32))))

    shown = np.zeros((48, 48), bool)
    shown[14:34, 4:44] = True
    assert not batch.rgb[0][~shown].any()
    assert np.abs(batch.rgb[0][shown].astype(int) - 200).max() < 8


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_rotation_is_honoured(degrees: int, turns: int, tmp_path: Path) -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:24, :, 0] = rgb[24:, :32, 1] = rgb[24:, 32:, 2] = 255
    video = make_video(pictures=[rgb] * 2, size=(64, 48), rotation_deg=degrees)
    path = tmp_path / "turned.mp4"
    path.write_bytes(video)

    batch = a_decoder().decode(a_chunk(video))

    wanted = np.rot90(rgb[:, 8:56], turns)
    assert np.abs(wanted.astype(int) - batch.rgb[0]).mean() < 8
    facts = probe_video(path)
    assert ((48, 64) if turns % 2 else (64, 48)) == (facts.width, facts.height)


@pytest.mark.parametrize("size", [(65, 49), (17, 16), (16, 300), (301, 47)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_odd_and_narrow_sizes_come_out_square(size: tuple[int, int], fit: str) -> None:
    geometry = FrameGeometry(48, 48, "pad" if fit == "pad" else "crop")
    video = make_video(codec="mjpeg", container="mjpeg", n_frames=3, size=size)

    batch = a_decoder(geometry).decode(a_chunk(video))

    assert (3, 48, 48, 3) == batch.rgb.shape


def test_times_come_from_the_sources_own_ticks() -> None:
    """At 29.97 fps a frame has the same time whether ticks start at 0 or in the middle."""
    time_base = Fraction(1, 30_000)
    pts = [1001 * index for index in range(60)]
    first = make_video(pts=pts[:30], time_base=time_base)
    second = make_video(pts=[ticks - pts[30] for ticks in pts[30:]], time_base=time_base)
    decoder = a_decoder()

    times, _ = joined(
        [
            decoder.decode(a_chunk(first, start_ticks=0, time_base=time_base)),
            decoder.decode(a_chunk(second, start_ticks=pts[30], time_base=time_base)),
        ]
    )

    assert [ticks_to_us(ticks, time_base) for ticks in pts] == times


def test_a_variable_frame_rate_keeps_its_times() -> None:
    pts = [0, 100, 7_000, 7_001, 9_999, 30_000]

    batch = a_decoder().decode(a_chunk(make_video(pts=pts, time_base=Fraction(1, 12_800))))

    assert [ticks_to_us(ticks, Fraction(1, 12_800)) for ticks in pts] == batch.pts_us.tolist()


def test_frames_nobody_would_see_are_counted_but_not_converted() -> None:
    video = make_video(n_frames=100, fps=100)

    batch = a_decoder(grid=MODEL_GRID).decode(a_chunk(video))

    assert [*range(0, 1_000_000, 40_000), 990_000] == batch.pts_us.tolist()
    assert 100 == batch.n_decoded


def test_codec_size_and_rate_may_change_between_chunks() -> None:
    decoder = a_decoder()
    for codec, container, size, fps in (
        ("h264", "mp4", (64, 48), 25),
        ("mjpeg", "avi", (80, 80), 10),
        ("h264", "mpegts", (160, 96), 50),
        ("vp9", "webm", (64, 48), 25),
    ):
        need(codec)
        video = make_video(codec=codec, container=container, size=size, fps=fps, n_frames=10)

        batch = decoder.decode(a_chunk(video))

        assert [index * 1_000_000 // fps for index in range(10)] == batch.pts_us.tolist()
    decoder.close()


def test_threads_change_nothing() -> None:
    chunk = a_chunk(make_video(n_frames=40, b_frames=2, size=(128, 96)))

    one = PyAvDecoder(SQUARE, EVERY_FRAME, threads=1).decode(chunk)
    four = PyAvDecoder(SQUARE, EVERY_FRAME, threads=4).decode(chunk)

    assert one.pts_us.tolist() == four.pts_us.tolist()
    assert np.array_equal(one.rgb, four.rgb)


def test_a_decoder_gives_the_same_after_an_error() -> None:
    video = make_video(n_frames=12, container="mpegts")
    decoder = a_decoder()
    before = decoder.decode(a_chunk(video))

    with pytest.raises(CorruptChunkError, match="camera cam-1, run e, chunk 7: "):
        decoder.decode(a_chunk(video[:188] + bytes(len(video)), sequence=7))

    after = decoder.decode(a_chunk(video))
    assert np.array_equal(before.rgb, after.rgb)


def test_a_file_gives_what_its_one_chunk_gives(tmp_path: Path) -> None:
    video = make_video(n_frames=90, fps=30, b_frames=2)
    path = tmp_path / "video.mp4"
    path.write_bytes(video)

    batches = list(read_video(path, SQUARE, MODEL_GRID, batch_frames=16))

    times, rgb = joined(batches)
    whole = a_decoder(grid=MODEL_GRID).decode(a_chunk(video))
    assert whole.pts_us.tolist() == times
    assert np.array_equal(whole.rgb, rgb)
    assert [16] * (len(batches) - 1) == [len(batch.pts_us) for batch in batches[:-1]]
    assert 90 == sum(batch.n_decoded for batch in batches)


@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska"])
@pytest.mark.parametrize("seed", [0, 1, 3])  # noise 2 is sound H.264 in places, by chance
def test_a_damaged_part_of_a_file_is_left_out_up_to_the_next_key_frame(
    tmp_path: Path, container: str, seed: int
) -> None:
    sound = make_video(n_frames=60, gop=12, container=container, size=(128, 96))
    damaged = bytearray(sound)
    noise = random.Random(seed).randbytes(900)  # noqa: S311 - reproducible, no secret
    damaged[len(sound) // 2 : len(sound) // 2 + 900] = noise
    files = {"sound": sound, "damaged": bytes(damaged)}
    for name, video in files.items():
        (tmp_path / name).write_bytes(video)
    notes: list[str] = []

    wanted = joined(list(read_video(tmp_path / "sound", SQUARE, EVERY_FRAME)))
    times, rgb = joined(
        list(read_video(tmp_path / "damaged", SQUARE, EVERY_FRAME, on_note=notes.append))
    )

    lost = sorted(set(wanted[0]) - set(times))
    kept = [wanted[0].index(us) for us in times]
    assert 1 <= len(lost) <= 24
    assert lost[-1] % (12 * 40_000) == 11 * 40_000  # the last frame before a key frame
    assert np.array_equal(wanted[1][kept], rgb)
    # A Matroska reader may find its own way to the next cluster and tell nobody.
    assert container == "matroska" or any("key frame: " in note for note in notes)


@pytest.mark.parametrize(
    "content", [b"", b"no video at all", b"\x00\x00\x00\x18ftypisom" + bytes(99)]
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(content)

    with pytest.raises(UnreadableVideoError, match=r"no\.mp4: "):
        list(read_video(path, SQUARE, EVERY_FRAME))
    with pytest.raises(UnreadableVideoError, match=r"no\.mp4: "):
        probe_video(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideoError, match="No such file"):
        probe_video(tmp_path / "missing.mp4")


def test_a_path_is_never_taken_for_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    Path("http:", "host.mp4").write_bytes(make_video(n_frames=3))

    assert 3 == probe_video("http:/host.mp4").n_frames


def test_probe_tells_what_the_container_knows(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(make_video(n_frames=50))

    facts = probe_video(path)

    assert (64, 48, "h264") == (facts.width, facts.height, facts.codec)
    assert 25 == facts.fps
    assert 2_000_000 == facts.duration_us
    assert 50 == facts.n_frames


def test_nothing_stays_open_when_a_reader_stops_early(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(make_video(n_frames=50))
    open_before = n_open_files()

    for _ in range(5):
        frames = read_video(path, SQUARE, EVERY_FRAME, batch_frames=2)
        next(frames)
        frames.close()  # type: ignore[attr-defined]

    assert open_before == n_open_files()


def test_a_thumbnail_is_a_jpeg_of_the_picture() -> None:
    rgb = picture(3, 96, 64)

    jpeg = encode_jpeg(rgb)

    again = a_decoder(FrameGeometry(96, 96, "pad")).decode(a_chunk(jpeg)).rgb[0, 16:80]
    assert np.abs(rgb.astype(int) - again).mean() < 8
    assert len(jpeg) < rgb.size // 3


@pytest.mark.shared_data
@pytest.mark.slow
def test_every_real_clip_is_read_from_end_to_end(shared_clips: Path) -> None:
    geometry = FrameGeometry(resize_px=256, crop_px=224)
    for path in sorted(shared_clips.iterdir()):
        facts = probe_video(path)
        notes: list[str] = []

        batches = list(read_video(path, geometry, MODEL_GRID, on_note=notes.append))

        times = [us for batch in batches for us in batch.pts_us.tolist()]
        assert [] == notes, path.name
        assert times == sorted(set(times))
        assert facts.duration_us is not None
        assert abs(times[-1] - facts.duration_us) < 150_000, path.name
