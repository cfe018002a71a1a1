"""One daemon with so many cameras: CPU, how late its loop is, and memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from typing_extensions import override

from daemon.bench.cameras.stages import Footage
from daemon.bench.cameras.whole_daemon import LoopingCameras
from daemon.decoding.base import Decoded
from daemon.journal.memory import MemoryJournal
from daemon.sources.base import Delivery, Position
from engine.types import FrameBatch, VideoChunk
from tests.support.daemons import TestDaemon

FPS = 25
_N_BEFORE = 3  # chunks of each camera before anything is measured
_LOOK_S = 0.02
_BUSY_EVERY = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What so many cameras cost.

    Attributes:
        n_cameras: How many.
        cpu_ms: CPU time of the process for each chunk.
        late_p50_ms: By how much the event loop was late, half the time.
        late_p99_ms: And 99 % of it.
        late_most_ms: And at the worst.
        idle_mb: Memory of the process once all cameras had sent a few chunks.
    """

    n_cameras: int
    cpu_ms: float
    late_p50_ms: float
    late_p99_ms: float
    late_most_ms: float
    idle_mb: float

    def plain(self) -> dict[str, float]:
        """It for JSON."""
        return asdict(self)


class StandInDecoder:
    """Gives a second of red or black pictures."""

    async def decode(self, chunk: VideoChunk) -> Decoded:
        """See ``ChunkDecoder``."""
        pts_us = chunk.start_us + np.arange(FPS) * (1_000_000 // FPS)
        rgb = np.zeros((FPS, 2, 2, 3), np.uint8)
        rgb[..., 0] = 0 if chunk.sequence % _BUSY_EVERY else 255
        return Decoded(FrameBatch(pts_us, rgb, FPS), 0.0)

    def close(self) -> None:
        """See ``ChunkDecoder``."""


class Meter:
    """Sees what the process spends, and how late the loop is, while the cameras send."""

    def __init__(self) -> None:
        self.idle_mb = self.cpu_s = 0.0
        self.late_s: list[float] = []
        self._watching: asyncio.Task[None] | None = None
        self._began_s = 0.0

    def begin(self) -> None:
        """All cameras are known now."""
        self.idle_mb = _memory_mb()
        self._began_s = time.process_time()
        self._watching = asyncio.create_task(self._watch())

    async def end(self) -> None:
        """The cameras have sent all."""
        self.cpu_s = time.process_time() - self._began_s
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self) -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            self.late_s.append(time.monotonic() - before_s - _LOOK_S)


class StandInCameras(LoopingCameras):
    """Cameras that send a chunk each second, each at its own moment.

    Args:
        n_cameras: How many.
        n_chunks: Of each camera, while the meter looks.
        meter: Told when that begins and ends.
    """

    def __init__(self, n_cameras: int, n_chunks: int, meter: Meter) -> None:
        one = VideoChunk("", "run", 0, 0, b"stands in for a video")
        super().__init__(
            Footage((one,), (1_000_000,)), n_cameras, _N_BEFORE + n_chunks, paced=True
        )
        self._meter = meter
        self._reached: dict[str, int] = {}

    @override
    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        for number in range(_N_BEFORE):
            for camera in range(self._n_cameras):
                yield self._delivery(camera, number)
        await self._until_done(_N_BEFORE)
        self._meter.begin()
        began_s = time.monotonic()
        for number in range(_N_BEFORE, len(self._chunks)):
            for camera in range(self._n_cameras):
                due_s = began_s + number - _N_BEFORE + camera / self._n_cameras
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
                yield self._delivery(camera, number)
        await self._until_done(len(self._chunks))
        await self._meter.end()

    @override
    def reached(self, partition: str, next_offset: int) -> None:
        """See ``ChunkSource``."""
        self._reached[partition] = max(self._reached.get(partition, 0), next_offset)

    def _delivery(self, camera: int, number: int) -> Delivery:
        name, (chunk, _end_s) = f"camera-{camera}", self._chunks[number]
        return Delivery(Position(name, number), name, replace(chunk, camera=name))

    async def _until_done(self, n_chunks: int) -> None:
        """Until so many chunks of each camera went through the daemon."""
        while sum(done >= n_chunks for done in self._reached.values()) < self._n_cameras:
            await asyncio.sleep(_LOOK_S)


async def measured(n_cameras: int, seconds: int) -> Cost:
    """Let the whole daemon serve so many cameras for so many seconds."""
    meter = Meter()
    source = StandInCameras(n_cameras, seconds, meter)
    await TestDaemon(source, MemoryJournal(), new_decoder=lambda _spec: StandInDecoder()).serve()
    late_ms = sorted(1e3 * late_s for late_s in meter.late_s)
    return Cost(
        n_cameras=n_cameras,
        cpu_ms=1e3 * meter.cpu_s / (n_cameras * seconds),
        late_p50_ms=late_ms[len(late_ms) // 2],
        late_p99_ms=late_ms[len(late_ms) * 99 // 100],
        late_most_ms=late_ms[-1],
        idle_mb=meter.idle_mb,
    )


def _memory_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kib) / 1000
