"""No chunk, however hostile, costs more than it may, reaches out, or harms the next one."""

import gc
import io
import random
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from engine.errors import CorruptChunkError, RefusedChunkError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.video.containers import DecodeLimits
from engine.video.frames import PyAvDecoder, read_video
from tests.support.checkout import CHECKOUT
from tests.support.mutations import (
    CONCAT_SCRIPT,
    DASH_MANIFEST,
    PLAYLIST,
    SDP,
    crowded_chunks,
    external_data_mp4,
    frame_bomb,
    hand_made_chunks,
    mutated_chunks,
)
from tests.support.videos import a_chunk, make_video

SQUARE = FrameGeometry(resize_px=48, crop_px=48)
GRID = Grid(fps=25, snippet_frames=16, stride_frames=16)
# Made to be refused; the rest of the hand-made ones are damaged.
REFUSED = {
    "empty",
    "one-byte",
    "zeros",
    "m3u8-playlist",
    "ffconcat-script",
    "sdp",
    "dash-manifest",
    "text",
    "zip",
    "mp4-claims-100-million-samples",
    "mp4-claims-4-billion-samples",
    "mp4-fragment-claims-50-million-samples",
    "mp4-compressed-header",
    "wrong-codec-mpeg4",
    "size-bomb-annex-b",
    "sliver",
    "frame-bomb",
    "two-hours-in-two-frames",
}


def a_decoder(limits: DecodeLimits | None = None) -> PyAvDecoder:
    return PyAvDecoder(SQUARE, GRID, limits)


@pytest.mark.parametrize(
    ("name", "payload"),
    list(hand_made_chunks()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hand_made_chunks_are_refused_or_found_corrupt(name: str, payload: bytes) -> None:
    with pytest.raises(CorruptChunkError) as caught:
        a_decoder().decode(a_chunk(payload))

    assert (name in REFUSED) == isinstance(caught.value, RefusedChunkError)
    assert str(caught.value).startswith("camera cam-1, run e, chunk 0: ")


def test_damage_raises_nothing_else_and_leaves_the_decoder_as_it_was() -> None:
    decoder = a_decoder()
    good = a_chunk(make_video(n_frames=12, b_frames=2))
    before = decoder.decode(good)
    n_refused = 0

    for _, payload in mutated_chunks(seed=1, n=500):
        try:
            batch = decoder.decode(a_chunk(payload))
        except CorruptChunkError:
            n_refused += 1
        else:
            assert (np.diff(batch.pts_us) > 0).all()

    after = decoder.decode(good)
    assert 250 < n_refused < 500
    assert np.array_equal(before.rgb, after.rgb)
    assert before.pts_us.tolist() == after.pts_us.tolist()


def test_the_same_seed_gives_the_same_damage() -> None:
    assert list(mutated_chunks(3, 120)) == list(mutated_chunks(3, 120))
    assert 120 == len({name for name, _ in mutated_chunks(3, 120)})


class _Visited(socketserver.BaseRequestHandler):
    """Remembers that somebody came."""

    def handle(self) -> None:
        self.server.visits.append(self.client_address)  # type: ignore[attr-defined]


@pytest.fixture
def trap() -> Iterator[socketserver.TCPServer]:
    """A listener on loopback that nobody should call."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Visited) as server:
        server.visits = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_playlists_and_scripts_reach_neither_files_nor_addresses(
    trap: socketserver.TCPServer, tmp_path: Path
) -> None:
    """Each names a sound video and a listener: giving a frame or a call would be the leak."""
    victim = tmp_path / "victim.mp4"
    victim.write_bytes(make_video(n_frames=12))
    address = f"127.0.0.1:{trap.server_address[1]}".encode()
    decoder = a_decoder()

    for script in (PLAYLIST, CONCAT_SCRIPT, SDP, DASH_MANIFEST, external_data_mp4(make_video())):
        pointed = script.replace(b"/etc/passwd", str(victim).encode())
        for payload in (script, pointed.replace(b"127.0.0.1:9", address)):
            with pytest.raises(CorruptChunkError):
                decoder.decode(a_chunk(payload))

    assert [] == trap.visits  # type: ignore[attr-defined]


def test_limits_are_named_when_they_are_met() -> None:
    chunk = a_chunk(make_video(n_frames=12))

    with pytest.raises(RefusedChunkError, match="more than 11 frames"):
        a_decoder(DecodeLimits(max_frames=11)).decode(chunk)
    with pytest.raises(RefusedChunkError, match="bytes, wanted at most 100"):
        a_decoder(DecodeLimits(max_payload_bytes=100)).decode(chunk)
    with pytest.raises(RefusedChunkError, match="64x48"):
        a_decoder(DecodeLimits(max_pixels=64 * 47)).decode(chunk)
    with pytest.raises(RefusedChunkError, match=r"more than 0\.4 s"):
        a_decoder(DecodeLimits(max_span_us=400_000)).decode(chunk)
    with pytest.raises(RefusedChunkError, match="or 30000 pixels"):
        a_decoder(DecodeLimits(max_chunk_pixels=30_000)).decode(chunk)
    assert 12 == a_decoder(DecodeLimits(max_frames=12)).decode(chunk).n_decoded


def test_a_frame_bomb_is_stopped_at_the_limit() -> None:
    with pytest.raises(RefusedChunkError, match="more than 2000 frames"):
        a_decoder().decode(a_chunk(frame_bomb(2500)))


_HOSTILE_RUN = """
import resource, sys
from pathlib import Path
from engine.errors import CorruptChunkError
from engine.video.frames import PyAvDecoder
from engine.spec import FrameGeometry
from engine.grid import Grid
from engine.types import VideoChunk

decoder = PyAvDecoder(FrameGeometry(48, 48), Grid(25, 16, 16))
good, *hostile = sorted(Path(sys.argv[1]).iterdir())
decoder.decode(VideoChunk("cam-1", "e", 0, 0, good.read_bytes()))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in hostile:
    try:
        decoder.decode(VideoChunk("cam-1", "e", 0, 0, path.read_bytes()))
    except CorruptChunkError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_hostile_chunks_cost_little_memory_and_write_no_log(tmp_path: Path) -> None:
    """Peak memory of a process of its own; one size bomb decoded would take 370 MiB,
    one claiming fragment believed 1.7 GiB.
    """
    (tmp_path / "0").write_bytes(make_video(n_frames=12))
    for index, (_, payload) in enumerate(mutated_chunks(seed=2, n=300)):
        (tmp_path / f"1-{index:03}").write_bytes(payload)

    ran = subprocess.run(
        [sys.executable, "-c", _HOSTILE_RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=CHECKOUT,
    )

    grown_kib = int(ran.stdout)
    assert grown_kib < 100 * 1024
    assert "" == ran.stderr


def test_chunks_of_very_many_units_are_refused_and_cost_little_memory(tmp_path: Path) -> None:
    """Believed, these would take 800 MiB each."""
    (tmp_path / "0").write_bytes(make_video(n_frames=12))
    for name, payload in crowded_chunks(n_units=200_000):
        (tmp_path / f"1-{name}").write_bytes(payload)
        with pytest.raises(RefusedChunkError, match="units"):
            a_decoder().decode(a_chunk(payload))

    ran = subprocess.run(
        [sys.executable, "-c", _HOSTILE_RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=CHECKOUT,
    )

    assert int(ran.stdout) < 100 * 1024


@pytest.mark.parametrize("container", ["h264", "mpegts", "mp4", "matroska"])
def test_sound_chunks_of_many_slices_are_not_refused(container: str) -> None:
    video = make_video(container=container, n_frames=120, size=(64, 256), options={"slices": "16"})

    assert 120 == a_decoder().decode(a_chunk(video)).n_decoded


def test_nor_are_chunks_with_quiet_sound() -> None:
    """Samples of 0 and 1 look like start codes."""
    video = make_video(n_frames=50, container="matroska")
    noise = random.Random(5)  # noqa: S311 - reproducible, no secret
    samples = np.array([noise.choice((0, 0, 1, -1)) for _ in range(2 * 48_000)], np.int16)
    buffer = io.BytesIO()
    with av.open(io.BytesIO(video)) as source, av.open(buffer, "w", format="matroska") as out:
        pictures = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = pictures
                out.mux(packet)
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        out.mux([*sound.encode(frame), *sound.encode(None)])
    assert buffer.getvalue().count(b"\0\0\1") > 1000

    assert 50 == a_decoder().decode(a_chunk(buffer.getvalue())).n_decoded


def test_hostile_chunks_leave_no_file_open() -> None:
    decoder = a_decoder()
    payloads = [payload for _, payload in mutated_chunks(seed=4, n=100)]
    open_before = len(list(Path("/proc/self/fd").iterdir()))

    for payload in payloads:
        try:
            decoder.decode(a_chunk(payload))
        except CorruptChunkError:
            continue

    assert open_before == len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("codec", ["mjpeg", "h264"])
def test_a_picture_is_let_go_when_it_was_converted(codec: str, tmp_path: Path) -> None:
    """Without the help of the garbage collector, which lets hundreds of pictures gather first."""
    path = tmp_path / "key frames only.mkv"
    path.write_bytes(make_video(codec=codec, container="matroska", n_frames=20, gop=1))
    gc.collect()
    gc.disable()
    try:
        a_decoder().decode(a_chunk(path.read_bytes()))
        for _ in read_video(path, SQUARE, GRID):
            pass
        # Not isinstance, which asks objects of others for their class: some warn when they are.
        kept = [at for at in gc.get_objects() if type(at) is VideoFrame and at.width > 16]
    finally:
        gc.enable()

    assert [] == kept
