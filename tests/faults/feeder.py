"""Cameras that run: chunks of 13 frames of scripted footage, paced, each acknowledged.

13 frames end inside a snippet, so that a camera that is taken over always needs frames again: with
12, which end on the snippet grid, half of what can go wrong stays hidden. The footage is 64x48
pixels of one colour; how red or green they are says what happens. Something happens for 2 to 15 s
at a time, so that at most moments an event is open.
"""

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from daemon.cancellation import own_cancellation
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import Record, chunk_record
from engine.types import VideoChunk
from engine.video.cutting import CutChunk, cut_video
from tests.faults.checker import Mark
from tests.support.footage import FPS, colour_clip

GOP = 13
CHUNK_S = GOP / FPS
SPEED = 2.0  # times real time
N_CAMERAS = 8
LAP_S = 40.0  # a camera's producer begins a new run after so much footage
_PATIENCE_S = 600.0  # with a broker that does not acknowledge

Footage = Sequence[Sequence[CutChunk]]


def cameras_over(partitions: int, n_cameras: int = N_CAMERAS) -> list[str]:
    """Names that spread evenly over all partitions of the chunks."""
    quota = -(-n_cameras // partitions)
    names: dict[int, list[str]] = defaultdict(list)
    number = 0
    while sum(map(len, names.values())) < n_cameras:
        name = f"cam-{number}"
        number += 1
        of_partition = names[partition_of(name, partitions)]
        if len(of_partition) < quota:
            of_partition.append(name)
    return sorted(name for of_partition in names.values() for name in of_partition)


def partition_of(camera: str, partitions: int) -> int:
    """Where every client puts a camera's chunks."""
    return (murmur2(camera.encode()) & 0x7FFFFFFF) % partitions


def make_footage(
    folder: Path, n_clips: int = N_CAMERAS, chunk_s: float = CHUNK_S, fps: int = FPS
) -> Footage:
    """Clips of a lap each, cut into chunks; the same ones every time."""
    return [
        _cut(folder / f"clip-{number}.mp4", list(_scripted(number)), chunk_s, fps)
        for number in range(n_clips)
    ]


def still_footage(folder: Path, chunk_s: float = CHUNK_S, fps: int = FPS) -> Footage:
    """A lap in which nothing happens, cut into chunks."""
    return [_cut(folder / "still.mp4", [(LAP_S, 0, 0)], chunk_s, fps)]


def _cut(
    path: Path, blocks: list[tuple[float, int, int]], chunk_s: float, fps: int
) -> list[CutChunk]:
    colour_clip(path, blocks, gop=GOP, fps=fps)
    return list(cut_video(path, chunk_s=chunk_s, on_note=lambda _note: None, transcode="never"))


def _scripted(number: int) -> Iterator[tuple[float, int, int]]:
    rng = random.Random(number)  # noqa: S311 - the same footage every time, no secret
    left_s = LAP_S
    while left_s > 2:
        quiet_s, busy_s = rng.uniform(0.9, 1.8), rng.choice((2.2, 3.5, 6.0, 10.0, 15.0))
        red, green = rng.choice(((220, 0), (0, 230), (200, 230)))
        yield quiet_s, 0, 0
        yield min(busy_s, left_s), red, green
        left_s -= quiet_s + busy_s


@dataclass(slots=True)
class _Camera:
    name: str
    number: int
    lap: int = 0
    sent: int = 0  # of the lap's chunks
    end_us: int = 0
    anchor_us: int | None = None  # Unix time of the run's beginning
    is_silent: bool = False
    last: VideoChunk | None = None


class Link(Protocol):
    """Where cameras send to."""

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End, whatever is on its way."""

    async def send(self, record: Record) -> "asyncio.Future[Any]":
        """Send a record; what is written tells its ``partition`` and ``offset``."""


class KafkaLink:
    """A topic.

    Args:
        bootstrap: Address of the broker.
        topic: Of the chunks.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            # A broker that hangs or is gone is waited for: what is acknowledged is what counts.
            request_timeout_ms=1_200_000,
            max_batch_size=2**20,
            metadata_max_age_ms=1000,
        )

    async def start(self) -> None:
        """See ``Link``."""
        await self._producer.start()

    async def stop(self) -> None:
        """See ``Link``."""
        await self._producer.stop()

    async def send(self, record: Record) -> "asyncio.Future[Any]":
        """See ``Link``."""
        with own_cancellation("sending a chunk"):
            written: asyncio.Future[Any] = await self._producer.send(
                self._topic, record.value, key=record.key, headers=record.headers
            )
        return written


class Feeder:
    """Sends what cameras show until it is told to end.

    Args:
        link: Where to.
        footage: What is shown.
        cameras: Who shows it.
        name: Of the runs.
        is_live: Cameras run at real time, and say when it was that they saw something. Otherwise
            they have no clock, and run at ``SPEED``.

    Attributes:
        acknowledged: Partition → its end, as far as the broker has acknowledged it.
        unacknowledged: Records that are on their way.
    """

    def __init__(
        self,
        link: Link,
        footage: Footage,
        cameras: Sequence[str],
        *,
        name: str,
        is_live: bool = False,
    ) -> None:
        self.acknowledged: dict[int, list[Mark]] = defaultdict(list)
        self.unacknowledged = 0
        self._link = link
        self._footage = footage
        self._name = name
        self._is_live = is_live
        self._cameras = {name: _Camera(name, number) for number, name in enumerate(cameras)}
        self._is_ending = asyncio.Event()
        self._failure: BaseException | None = None
        self._all_there = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Feeder"]:
        """Cameras show something until the end of the block, and end all their runs there."""
        await self._link.start()
        # No TaskGroup: what the block raises must come through as it is.
        playing = [asyncio.create_task(self._play(camera)) for camera in self._cameras.values()]
        try:
            yield self
            self._is_ending.set()
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.gather(*playing)
                await self._settled()
        finally:
            for task in playing:
                task.cancel()
            await asyncio.gather(*playing, return_exceptions=True)
            with contextlib.suppress(TimeoutError):  # without a broker, it would wait for one
                async with asyncio.timeout(10):
                    await self._link.stop()

    def silence(self, *cameras: str) -> None:
        """They show nothing more, as if unplugged; a run that was begun is not ended."""
        for camera in cameras:
            self._cameras[camera].is_silent = True

    def wake(self, *cameras: str) -> None:
        """They go on in the run they were in."""
        for camera in cameras:
            self._cameras[camera].is_silent = False

    def abandon(self) -> None:
        """No run that was begun gets an end mark."""
        for camera in self._cameras.values():
            camera.is_silent, camera.sent = True, 0

    def last_sent(self, camera: str) -> VideoChunk | None:
        """What a camera has sent last; None: nothing, or an end mark."""
        return self._cameras[camera].last

    async def put(self, record: Record) -> None:
        """Send a record as any foreign program might."""
        await self._send(record)

    async def _play(self, camera: _Camera) -> None:
        loop = asyncio.get_running_loop()
        step_s = CHUNK_S if self._is_live else CHUNK_S / SPEED
        due_s = loop.time() + camera.number * step_s / len(self._cameras)
        while await self._comes(due_s):
            due_s += step_s
            if not camera.is_silent:
                await self._send_next(camera)
        if camera.sent:
            await self._end_run(camera)

    async def _comes(self, due_s: float) -> bool:
        """True at that time; False as soon as all is to end."""
        try:
            async with asyncio.timeout_at(due_s):
                await self._is_ending.wait()
        except TimeoutError:
            return True
        return not self._is_ending.is_set()

    async def _send_next(self, camera: _Camera) -> None:
        clip = self._footage[(camera.number + camera.lap) % len(self._footage)]
        if camera.sent == len(clip):
            await self._end_run(camera)
            clip = self._footage[(camera.number + camera.lap) % len(self._footage)]
        piece = clip[camera.sent]
        if self._is_live and not camera.sent:
            camera.anchor_us = time.time_ns() // 1000 - piece.duration_us  # it is just over
        run = self._run(camera)
        chunk = piece.to_chunk(camera.name, run, camera.sent, camera.anchor_us)
        camera.sent += 1
        camera.end_us = piece.start_us + piece.duration_us
        camera.last = chunk
        await self._send(chunk_record(chunk, ChunkFacts(), site="default"))

    async def _end_run(self, camera: _Camera) -> None:
        run, sequence = self._run(camera), camera.sent
        end = VideoChunk(camera.name, run, sequence, camera.end_us, b"", is_end=True)
        await self._send(chunk_record(end, ChunkFacts(), site="default"))
        camera.lap += 1
        camera.sent = 0
        camera.last = None

    def _run(self, camera: _Camera) -> str:
        return f"{self._name}-{camera.lap}"

    async def _send(self, record: Record) -> None:
        written = await self._link.send(record)
        self.unacknowledged += 1
        written.add_done_callback(self._acknowledge)

    def _acknowledge(self, written: asyncio.Future) -> None:  # type: ignore[type-arg]
        self.unacknowledged -= 1
        if not self.unacknowledged:
            self._all_there.set()
        if written.cancelled() or written.exception() is not None:
            self._failure = self._failure or written.exception() or RuntimeError("not written")
            return
        there = written.result()
        at_s = asyncio.get_running_loop().time()
        self.acknowledged[there.partition].append(Mark(at_s, there.offset + 1))

    async def _settled(self) -> None:
        while self.unacknowledged:
            self._all_there.clear()
            await self._all_there.wait()
        if self._failure is not None:
            raise self._failure
