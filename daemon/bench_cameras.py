"""How many cameras the whole daemon carries, in memory: without a broker and without files."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog
from rich.console import Console

from daemon.app import App
from daemon.batching import BatchPolicy
from daemon.bench_model import BenchModel
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.metrics import Metrics
from daemon.overload import FlowControl, FlowLimits
from daemon.serving import ModelSlot
from daemon.sinks.memory import MemoryEventSink
from daemon.sources.base import Delivery, Position
from daemon.state.memory import MemoryStateStore
from daemon.stream_worker import WorkerParts
from daemon.systemd import Notifier
from engine.frames import PyAvDecoder
from engine.types import VideoChunk

# A live camera that is this far behind at the end of a run is falling behind.
MOST_LAG_S = 3.0


class LoopingCameras:
    """A source of ``n`` cameras that show the same chunks again and again.

    Args:
        chunks: One clip.
        n_cameras: How many cameras.
        seconds: How much footage each gives.
        paced: At the footage's own pace, or as fast as it is taken.
    """

    def __init__(
        self, chunks: Sequence[VideoChunk], n_cameras: int, seconds: float, *, paced: bool
    ) -> None:
        self._chunks = chunks
        self._n_cameras = n_cameras
        self._seconds = seconds
        self._paced = paced
        self._paused: set[str] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Every camera's next chunk in turn."""
        started_s = time.monotonic()
        for number in range(int(self._seconds)):
            if self._paced:
                await asyncio.sleep(max(started_s + number + 1 - time.monotonic(), 0))
            for camera in range(self._n_cameras):
                name = f"camera-{camera}"
                while name in self._paused and not self._paced:
                    self._changed.clear()
                    await self._changed.wait()
                yield Delivery(Position(name, number), name, self._chunk(name, number))

    def _chunk(self, name: str, number: int) -> VideoChunk:
        chunk = self._chunks[number % len(self._chunks)]
        # Time goes on from loop to loop; a chunk of this footage is one second long.
        start_us = number * 1_000_000
        return replace(
            chunk,
            stream_id=name,
            sequence=number,
            start_us=start_us,
            start_ticks=None,
            time_base=None,
        )

    async def commit(self, _position: Position) -> None:
        """Nothing to remember."""

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.discard(partition)
        self._changed.set()

    async def close(self) -> None:
        """Nothing to close."""


async def serve_cameras(
    chunks: Sequence[VideoChunk], bench: BenchModel, n_cameras: int, seconds: float, *, paced: bool
) -> float:
    """Seconds the whole daemon takes for ``n_cameras`` of ``seconds`` each, in memory."""
    metrics, clock = Metrics(), SystemClock()
    device = bench.new_device(BatchPolicy(bench.batch), metrics)
    source = LoopingCameras(chunks, n_cameras, seconds, paced=paced)
    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        parts = WorkerParts(
            models=ModelSlot(bench.model),
            device=device,
            decode_pool=pool,
            sink=MemoryEventSink(),
            store=MemoryStateStore(),
            metrics=metrics,
            calls=RunningCalls(clock),
            clock=clock,
            log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[]),
            new_decoder=lambda spec: PyAvDecoder(spec.geometry, spec.timeline),
        )
        app = App(
            source=source,
            device=device,
            parts=parts,
            flow=FlowControl(FlowLimits()),
            notifier=Notifier({}),
            drain_timeout_s=600,
        )
        started_s = time.perf_counter()
        await app.serve()
        spent_s = time.perf_counter() - started_s
    device.close()
    return spent_s


def most_cameras(
    chunks: Sequence[VideoChunk], bench: BenchModel, seconds: float, console: Console
) -> tuple[float, int]:
    """(cameras' worth of footage a second when fed as fast as it goes, live cameras carried)."""
    n_fed = 4
    fed_s = max(seconds / 2, 4)
    with console.status("feeding the daemon as fast as it takes footage"):
        spent_s = asyncio.run(serve_cameras(chunks, bench, n_fed, int(fed_s), paced=False))
    capacity = n_fed * int(fed_s) / spent_s
    carried = max(int(capacity), 1)
    while carried > 1:
        with console.status(f"{carried} live cameras for {seconds:.0f} s"):
            if _keeps_up(chunks, bench, carried, seconds):
                break
        carried -= 1
    return capacity, carried


def _keeps_up(
    chunks: Sequence[VideoChunk], bench: BenchModel, n_cameras: int, seconds: float
) -> bool:
    spent_s = asyncio.run(serve_cameras(chunks, bench, n_cameras, int(seconds), paced=True))
    return spent_s - int(seconds) < MOST_LAG_S
