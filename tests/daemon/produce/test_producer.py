"""`s2netd produce`: what a camera's footage becomes on a transport, and when."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from rich.console import Console

import daemon.produce.feed
from daemon.errors import ConfigError
from daemon.outages import Outages
from daemon.produce.footage import source_files
from daemon.produce.options import ProduceOptions
from daemon.produce.producer import Producer, open_target
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import chunk_record
from engine.errors import UnreadableVideoError
from engine.types import VideoChunk
from engine.video.frames import PyAvDecoder
from tests.support.footage import colour_clip
from tests.support.owner import Owner
from tests.support.scripted import a_spec
from tests.support.videos import make_video

NOW_US = 1_750_000_000_000_000


class AClock:
    """Reads what the test says, and remembers what was published whenever it was read.

    Args:
        chunks: The folder that is published to.
        times_s: What it reads, one time after the other; the last one for good.
        on_read: Called with the number of times it was read before.
    """

    def __init__(
        self,
        chunks: Path,
        times_s: list[float],
        on_read: Callable[[int], None] = lambda _n: None,
    ) -> None:
        self._chunks = chunks
        self._times_s = times_s
        self._on_read = on_read
        self.published: list[int] = []

    def monotonic_s(self) -> float:
        n_reads = len(self.published)
        self.published.append(len(list(self._chunks.glob("*/*.mp4"))))
        self._on_read(n_reads)
        return self._times_s[min(n_reads, len(self._times_s) - 1)]

    def unix_us(self) -> int:
        return NOW_US


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    """What it prints can be read in ``tmp_path/"notes"``."""
    with (tmp_path / "notes").open("w") as file:
        yield Console(file=file, width=300)


def notes(tmp_path: Path, console: Console) -> str:
    console.file.flush()
    return (tmp_path / "notes").read_text()


async def published(chunks: Path) -> list[VideoChunk]:
    """All chunks, as a daemon would get them."""
    source = DirectoryChunkSource(DirectorySourceSettings(chunks, follow=False))
    await source.start(Owner())
    found = [delivery.chunk async for delivery in source.deliveries()]
    await source.close()
    assert None not in found
    return [chunk for chunk in found if chunk is not None]


def runs_of(chunks: list[VideoChunk]) -> list[list[VideoChunk]]:
    """Chunks of one run together, in the order in which they came."""
    runs: dict[str, list[VideoChunk]] = {}
    for chunk in chunks:
        runs.setdefault(chunk.run, []).append(chunk)
    return list(runs.values())


def options_for(source: object, chunks: Path, **changes: object) -> ProduceOptions:
    return ProduceOptions(source=str(source), camera="gate", to=f"dir:{chunks}", **changes)


async def test_every_run_is_an_run_that_ends_with_an_end_marker(tmp_path, console):
    clip = colour_clip(tmp_path / "clip.mp4", [(2.4, 220, 0)], gop=25)
    producer = Producer(options_for(clip, tmp_path / "chunks"), console)
    await producer.run()
    await Producer(options_for(clip, tmp_path / "chunks"), console).run()

    first, second = runs_of(await published(tmp_path / "chunks"))
    for run in (first, second):
        assert [0, 1, 2, 3] == [chunk.sequence for chunk in run]
        assert [0, 1_000_000, 2_000_000, 2_400_000] == [chunk.start_us for chunk in run]
        assert [False, False, False, True] == [chunk.is_end for chunk in run]
        assert {None} == {chunk.anchor_us for chunk in run}  # nobody knows when it was filmed
    payloads = [chunk.payload for chunk in first]
    assert b"" == payloads[-1]
    assert (3, sum(map(len, payloads))) == (producer.n_chunks, producer.n_bytes)


async def test_the_chunks_of_a_run_play_as_one_video(tmp_path, console):
    """Record after record, or file after file: ``cat chunks/gate/*.mp4 | ffplay -``."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(make_video(n_frames=100, gop=10, b_frames=2))
    chunks = tmp_path / "chunks"
    await Producer(options_for(clip, chunks, chunk_s=0.4), console).run()

    files = b"".join(path.read_bytes() for path in sorted(chunks.glob("gate/*.mp4")))
    records = b"".join(
        chunk_record(chunk, ChunkFacts(), site="here").value for chunk in await published(chunks)
    )

    assert files == records
    with av.open(io.BytesIO(files)) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    assert [index / 25 for index in range(100)] == pytest.approx(
        [time_s - times_s[0] for time_s in times_s]
    )


async def test_every_file_of_a_folder_is_an_run_in_the_order_of_names(tmp_path, console):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, red in (("b.MP4", 140), ("a.mp4", 60), ("c.mp4", 220)):
        colour_clip(folder / name, [(0.48, red, 0)])
    (folder / "notes.txt").write_text("no video")
    await Producer(options_for(folder, tmp_path / "chunks"), console).run()

    runs = runs_of(await published(tmp_path / "chunks"))
    decoder = PyAvDecoder(a_spec().geometry, a_spec().grid)
    reds = [int(decoder.decode(run[0]).rgb[0, 0, 0, 0]) for run in runs]
    assert [2, 2, 2] == [len(run) for run in runs]
    assert all(run[-1].is_end for run in runs)
    assert all(abs(red - want) < 10 for red, want in zip(reds, (60, 140, 220), strict=True))


async def test_at_real_time_no_chunk_is_published_before_its_last_frame_was_captured(
    tmp_path, console
):
    clip = colour_clip(tmp_path / "clip.mp4", [(3, 220, 0)], gop=25)
    chunks = tmp_path / "chunks"
    # It starts at 100 s; the chunks end at 101, 102 and 103 s, and the third one is late already.
    clock = AClock(chunks, [100, 100.95, 101.95, 107])
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    await Producer(options_for(clip, chunks, realtime=True), console, clock).run()

    assert [0, 0, 1, 2] == clock.published  # it asks for the time before it publishes
    assert loop.time() - started_s >= 2 * 0.05  # and waits for what is left
    (run,) = runs_of(await published(chunks))
    assert 4 == len(run)
    assert {NOW_US} == {chunk.anchor_us for chunk in run[:-1]}


async def test_stop_cuts_a_wait_short_and_ends_the_run_after_the_chunk_in_hand(tmp_path, console):
    clip = colour_clip(tmp_path / "clip.mp4", [(20, 220, 0)], gop=250)
    chunks = tmp_path / "chunks"
    producer: Producer

    def stop_at_the_first_chunk(n_reads: int) -> None:
        if n_reads == 1:
            producer.stop()

    clock = AClock(chunks, [100_000, 0], stop_at_the_first_chunk)
    options = options_for(clip, chunks, realtime=True, loop=True, chunk_s=10.0)
    producer = Producer(options, console, clock)
    async with asyncio.timeout(240):  # the wait would be a day
        await producer.run()

    (run,) = runs_of(await published(chunks))
    assert [False, True] == [chunk.is_end for chunk in run]
    assert 10_000_000 == run[-1].start_us


async def test_a_loop_goes_on_until_it_is_stopped(tmp_path, console):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        colour_clip(folder / name, [(0.48, 220, 0)])
    chunks = tmp_path / "chunks"
    producer: Producer

    def stop_at_the_sixth_file(n_reads: int) -> None:
        if n_reads == 5:
            producer.stop()

    clock = AClock(chunks, [0], stop_at_the_sixth_file)
    producer = Producer(options_for(folder, chunks, loop=True), console, clock)
    await producer.run()

    runs = runs_of(await published(chunks))
    assert 5 == len(runs) == producer.n_chunks
    assert [True] * 5 == [run[-1].is_end for run in runs]


async def test_numbers_go_on_where_an_earlier_run_stopped(tmp_path, console):
    clip = colour_clip(tmp_path / "clip.mp4", [(0.48, 220, 0)])
    for _ in range(3):
        await Producer(options_for(clip, tmp_path / "chunks"), console).run()

    numbers = [int(path.stem) for path in (tmp_path / "chunks" / "gate").glob("*.json")]
    assert list(range(min(numbers), min(numbers) + 6)) == sorted(numbers)


async def test_re_encoding_is_said_aloud_and_can_be_forbidden(tmp_path, console):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(make_video(codec="mpeg4", n_frames=30))
    await Producer(options_for(clip, tmp_path / "chunks"), console).run()

    said = notes(tmp_path, console)
    assert f"{clip}: re-encoded with H.264, for its codec is mpeg4" in said
    assert "\n\n" not in said
    never = options_for(clip, tmp_path / "more", transcode="never")
    with pytest.raises(UnreadableVideoError, match="allow transcoding"):
        await Producer(never, console).run()
    assert [] == list((tmp_path / "more").glob("*/*"))


async def test_an_unreadable_file_does_not_keep_the_others_back(tmp_path, console):
    folder = tmp_path / "recordings"
    folder.mkdir()
    colour_clip(folder / "a.mp4", [(0.48, 220, 0)])
    (folder / "b.mp4").write_text("no video")
    colour_clip(folder / "c.mp4", [(0.48, 220, 0)])
    with pytest.raises(UnreadableVideoError, match=r"1 of 3 files.*\n  .*b\.mp4: "):
        await Producer(options_for(folder, tmp_path / "chunks"), console).run()

    runs = runs_of(await published(tmp_path / "chunks"))
    assert [[False, True]] * 2 == [[chunk.is_end for chunk in run] for run in runs]
    assert "b.mp4" in notes(tmp_path, console)


@pytest.mark.parametrize("to", ["", "dir", "dir:", "kafka:", "s3:bucket", "chunks"])
def test_a_target_that_is_none_is_refused(to):
    with pytest.raises(ConfigError, match="wanted dir:PATH or kafka:TOPIC"):
        open_target(to, "127.0.0.1:9092", site="s", outages=Outages())


def test_security_is_read_before_anything_is_sent(tmp_path):
    path = tmp_path / "security.yaml"
    path.write_text("protocol: SASL_SSL\n")

    with pytest.raises(ConfigError, match=r"security\.yaml: .*sasl_password_file must be given"):
        open_target("kafka:chunks", "127.0.0.1:9092", site="s", outages=Outages(), security=path)
    with pytest.raises(ConfigError, match=r"--security is .*, but --to is dir:chunks"):
        open_target("dir:chunks", "127.0.0.1:9092", site="s", outages=Outages(), security=path)


def test_a_folder_without_videos_says_what_was_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no video file; looked for .*\.mkv"):
        source_files(str(tmp_path))


class Camera(ThreadingHTTPServer):
    """An HTTP camera; ``answers`` says what each connection gets, after that it is out of order.

    Args:
        answers: A connection's footage; None is an error.
        on_exhausted: Called when all answers were given and one more is wanted.
    """

    daemon_threads = True

    def __init__(self, answers: list[bytes | None], on_exhausted: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), _CameraHandler)
        self.answers = answers
        self.on_exhausted = on_exhausted


class _CameraHandler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        if not self.server.answers:
            self.server.on_exhausted()
        footage = self.server.answers.pop(0) if self.server.answers else None
        if footage is None:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        self.wfile.write(footage)  # and the connection closes: the camera is gone

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(camera: Camera) -> Iterator[str]:
    thread = threading.Thread(target=camera.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{camera.server_port}/stream.ts"
    finally:
        camera.shutdown()
        camera.server_close()
        thread.join()


@asynccontextmanager
async def a_camera(answers: list[bytes | None]) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Address of a camera, and what is set when it has nothing more to give."""
    loop, exhausted = asyncio.get_running_loop(), asyncio.Event()
    camera = Camera(answers, lambda: _tell(loop, exhausted))
    with serving(camera) as url:
        yield url, exhausted


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


async def test_a_live_camera_that_drops_out_is_connected_to_again(tmp_path, console, monkeypatch):
    monkeypatch.setattr(daemon.produce.feed, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(daemon.produce.feed, "LAST_RETRY_S", 0.02)
    footage = make_video(container="mpegts", n_frames=50, gop=12)
    chunks = tmp_path / "chunks"
    async with a_camera([None, footage, None, footage[: len(footage) * 3 // 4]]) as (url, gone):
        producer = Producer(options_for(url, chunks), console, AClock(chunks, [0]))
        running = asyncio.create_task(producer.run())
        await gone.wait()
        producer.stop()
        await running

    whole, broken_off = runs_of(await published(chunks))
    for run in (whole, broken_off):
        assert run[-1].is_end
        assert 0 == run[0].start_us == run[0].sequence
        # All has come at once, so only the last picture was taken just now.
        anchors_us = [chunk.anchor_us for chunk in run[:-1]]
        assert anchors_us == sorted(anchors_us, reverse=True)
        assert NOW_US == pytest.approx(anchors_us[-1] + run[-1].start_us, abs=100_000)
    # The last frame of a connection that breaks may be half a frame, so it is left out.
    assert 1_960_000 <= whole[-1].start_us <= 2_000_000
    assert 960_000 <= broken_off[-1].start_us < 2_000_000
    assert 2 <= notes(tmp_path, console).count("connecting again in")


async def test_stopping_does_not_wait_for_a_camera_that_is_away(tmp_path, console):
    async with a_camera([]) as (url, gone):
        producer = Producer(options_for(url, tmp_path / "chunks"), console)
        running = asyncio.create_task(producer.run())
        await gone.wait()
        producer.stop()
        async with asyncio.timeout(240):
            await running

    assert 0 == producer.n_chunks
    assert [] == list((tmp_path / "chunks").glob("*/*"))
