"""Measures how many cameras the whole daemon carries, in memory: without broker and files."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle

import structlog
from rich.console import Console

from daemon.app import App
from daemon.bench.cameras.decoding import Decoding
from daemon.bench.cameras.model import BenchModel
from daemon.bench.cameras.stages import Footage
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.decoding.opening import NewDecoder
from daemon.decoding.opening import decoding as open_decoding
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.journal.memory import MemoryJournal
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot
from daemon.outages import Outages
from daemon.partitions import Serving
from daemon.sources.base import ChunkSource, Delivery, PartitionOwner, Position
from daemon.stream.flow import FlowControl, FlowLimits
from daemon.stream.stages import WorkerParts
from daemon.systemd import Notifier
from daemon.watch import Watch
from engine.types import VideoChunk

# If the daemon ends a measurement so many seconds late, it does not keep up with its live cameras.
MOST_LAG_S = 3.0
# Cameras fed as fast as the daemon takes footage, at first, to estimate how many it carries.
_LEAST_FED = 4
# Of less footage, its beginning and its end, where cameras wait, would be most of the time.
_LEAST_FED_S = 4.0


@dataclass(frozen=True, slots=True)
class Served:
    """What the daemon did in one measurement.

    Attributes:
        spent_s: Seconds from the start to the end of the last camera's work.
        footage_s: Seconds of footage of each camera.
        n_snippets: How many snippets of all cameras went through the backbone.
    """

    spent_s: float
    footage_s: float
    n_snippets: int

    def cameras(self, stride_us: int) -> float:
        """How many live cameras would have given these snippets, one every ``stride_us`` each.

        The length of footage would overstate it, for its beginning and its end make no whole
        snippets.
        """
        return self.n_snippets / self.spent_s * stride_us / 1e6


class LoopingCameras:
    """A source of cameras that all show the same chunks again and again.

    Args:
        footage: The clip that they show.
        n_cameras: How many cameras there are.
        seconds: How many seconds of footage each camera gives at least.
        paced: Give footage at its own pace; otherwise as fast as it is taken.

    Attributes:
        footage_s: How many seconds of footage each camera gives, in whole chunks.
    """

    def __init__(self, footage: Footage, n_cameras: int, seconds: float, *, paced: bool) -> None:
        self._n_cameras = n_cameras
        self._paced = paced
        self._paused: set[str] = set()
        self._changed = asyncio.Event()
        self._chunks: list[tuple[VideoChunk, float]] = []  # each with its end, in seconds
        self.footage_s = 0.0
        self._loop(footage, seconds)

    def _loop(self, footage: Footage, seconds: float) -> None:
        """Repeat the clip until it is long enough; stream time goes on from loop to loop."""
        start_us = 0
        for chunk, duration_us in cycle(zip(footage.chunks, footage.durations_us, strict=True)):
            if start_us >= seconds * 1e6:
                break
            again = replace(
                chunk,
                sequence=len(self._chunks),
                start_us=start_us,
                start_ticks=None,
                time_base=None,
            )
            start_us += duration_us
            self._chunks.append((again, start_us / 1e6))
        self.footage_s = start_us / 1e6

    async def start(self, owner: PartitionOwner) -> None:
        """See ``ChunkSource``; each camera is a partition."""
        for camera in range(self._n_cameras):
            await owner.take(f"camera-{camera}", fallback=0)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``; gives each camera's next chunk in turn."""
        started_s = time.monotonic()
        for number, (chunk, end_s) in enumerate(self._chunks):
            if self._paced:
                await asyncio.sleep(max(started_s + end_s - time.monotonic(), 0))
            for camera in range(self._n_cameras):
                name = f"camera-{camera}"
                while name in self._paused and not self._paced:
                    self._changed.clear()
                    await self._changed.wait()
                yield Delivery(Position(name, number), name, replace(chunk, camera=name))

    def reached(self, partition: str, next_offset: int) -> None:
        """See ``ChunkSource``; nobody wants to know."""

    def renounce(self, partition: str) -> None:
        """See ``ChunkSource``; nobody else takes them."""

    def is_caught_up(self, _partition: str) -> bool:
        """See ``ChunkSource``; there is always more, until the end."""
        return False

    def is_blind(self, _partition: str) -> bool:
        """See ``ChunkSource``; there is nobody who might not answer."""
        return False

    def n_behind(self, _partition: str) -> int | None:
        """See ``ChunkSource``; nobody wants to know."""
        return None

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.discard(partition)
        self._changed.set()

    async def close(self) -> None:
        """See ``ChunkSource``; there is nothing to close."""


async def serve_cameras(
    footage: Footage,
    bench: BenchModel,
    n_cameras: int,
    seconds: float,
    *,
    paced: bool,
    decoding: Decoding,
) -> Served:
    """Let the whole daemon serve ``n_cameras``, each for ``seconds`` or a little more."""
    metrics = Metrics()
    source = LoopingCameras(footage, n_cameras, seconds, paced=paced)
    async with started(bench, source, decoding, metrics) as app:
        started_s = time.perf_counter()
        await app.serve()
        spent_s = time.perf_counter() - started_s
    return Served(spent_s, source.footage_s, _n_snippets(metrics))


@asynccontextmanager
async def started(
    bench: BenchModel, source: ChunkSource, decoding: Decoding, metrics: Metrics
) -> AsyncIterator[App]:
    """The whole daemon, without endpoints and systemd: started, to be served."""
    device = bench.new_device(BatchPolicy(bench.batch), metrics)
    calls = RunningCalls(SystemClock())
    async with open_decoding(decoding.config, metrics, calls, decoding.log) as new_decoder:
        app = _an_app(bench, device, metrics, calls, new_decoder, source)
        await app.start()
        yield app
    device.close()


def _an_app(
    bench: BenchModel,
    device: Device,
    metrics: Metrics,
    calls: RunningCalls,
    new_decoder: NewDecoder,
    source: ChunkSource,
) -> App:
    parts = WorkerParts(
        models=ModelSlot(bench.model),
        device=device,
        metrics=metrics,
        calls=calls,
        clock=SystemClock(),
        log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[]),
        new_decoder=new_decoder,
    )
    return App(
        source=source,
        journal=MemoryJournal(),
        device=device,
        parts=parts,
        flow=FlowControl(FlowLimits()),
        notifier=Notifier({}),
        watch=Watch(Notifier({}), calls, Outages(parts.log), metrics),
        serving=Serving(drain_timeout_s=600),
    )


def _n_snippets(metrics: Metrics) -> int:
    samples = (sample for metric in metrics.snippets.collect() for sample in metric.samples)
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


def most_cameras(
    footage: Footage, bench: BenchModel, seconds: float, console: Console, decoding: Decoding
) -> tuple[Served, int]:
    """Find out how many live cameras the daemon carries, with ``seconds`` of each.

    Returns:
        What it did when it was fed as fast as it goes, and how many live cameras it carried.
    """
    stride_us = bench.model.spec.grid.stride_us
    each_s = max(seconds, _LEAST_FED_S)

    def feed(n_cameras: int) -> Served:
        with console.status(f"feeding {n_cameras} cameras as fast as the daemon takes footage"):
            return asyncio.run(
                serve_cameras(footage, bench, n_cameras, each_s, paced=False, decoding=decoding)
            )

    served = fed_enough(feed, stride_us)
    carried = int(served.cameras(stride_us))
    while carried:
        with console.status(f"{carried} live cameras for {seconds:.0f} s"):
            if _keeps_up(footage, bench, carried, seconds, decoding):
                break
        carried -= 1
    return served, carried


def fed_enough(feed: Callable[[int], Served], stride_us: int) -> Served:
    """Feed cameras until they are more than they are worth; give what that measured.

    A camera's chunk waits for its own looks, so a machine that carries more cameras than it is
    fed waits, too, and seems to carry fewer.
    """
    n_fed, served = _LEAST_FED, feed(_LEAST_FED)
    while (worth := served.cameras(stride_us)) > n_fed:
        n_fed = math.ceil(1.5 * worth)
        served = feed(n_fed)
    return served


def _keeps_up(
    footage: Footage, bench: BenchModel, n_cameras: int, seconds: float, decoding: Decoding
) -> bool:
    served = asyncio.run(
        serve_cameras(footage, bench, n_cameras, seconds, paced=True, decoding=decoding)
    )
    return served.spent_s - served.footage_s < MOST_LAG_S
