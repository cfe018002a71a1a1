"""`s2netd bench`: what this machine can do, measured through the product's own code.

Ratios are taken inside one run, because machines are noisy. Nothing here passes or fails.
"""

import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import structlog
from rich.console import Console
from rich.table import Table

from daemon.app import App
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import parse_model
from daemon.device import Device
from daemon.errors import ConfigError
from daemon.metrics import Metrics
from daemon.model import OpenModel, open_model
from daemon.overload import FlowControl, FlowLimits
from daemon.sinks.memory import MemoryEventSink
from daemon.sources.base import Delivery, Position
from daemon.state.memory import MemoryStateStore
from daemon.stream_worker import WorkerParts
from daemon.systemd import Notifier
from engine.cutting import CutChunk, cut_video, encode_video
from engine.frames import PyAvDecoder
from engine.session import StreamSession
from engine.types import Snippet, Span, VideoChunk

CAMERA_SIZE = (320, 240)
CAMERA_FPS = 25
# A live camera that is this far behind at the end of a run is falling behind.
MOST_LAG_S = 3.0
BATCH = 4


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """See `s2netd bench --help`."""

    bundle: str
    video: Path | None
    seconds: float
    cameras: str
    precision: str
    threads: int | None


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds spent in each stage of one camera's straight line.

    Attributes:
        decode_s: Codec and container.
        preprocess_s: Resize, crop, colour, sampling.
        backbone_s: I3D.
        rest_s: Windows, localizer, proposals, tracker.
        n_snippets: Snippets extracted.
        video_s: Footage processed.
    """

    decode_s: float
    preprocess_s: float
    backbone_s: float
    rest_s: float
    n_snippets: int
    video_s: float

    @property
    def total_s(self) -> float:
        """All stages."""
        return self.decode_s + self.preprocess_s + self.backbone_s + self.rest_s

    def shares(self) -> dict[str, float]:
        """Each stage's share of the whole, adding up to 1."""
        return {
            "decode_share": self.decode_s / self.total_s,
            "preprocess_share": self.preprocess_s / self.total_s,
            "backbone_share": self.backbone_s / self.total_s,
            "rest_share": self.rest_s / self.total_s,
        }


def machine() -> dict[str, str | int]:
    """What a number must stand beside."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        names = [
            line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line
        ]
        model = names[0] if names else model
        flags = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in text]
        model = f"{model} ({' '.join(flags)})" if flags else model
    return {"cpu": model, "cores": os.cpu_count() or 1, "python": platform.python_version()}


def camera_footage(folder: Path, seconds: float) -> Path:
    """A clip as a small camera sends it: 320x240, 25 fps, H.264, a key frame a second."""
    width, height = CAMERA_SIZE
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)

    def frames() -> "list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]":
        shifts = range(int(seconds * CAMERA_FPS))
        return [np.roll(scene, (i, 2 * i), axis=(0, 1)) for i in shifts]

    path = folder / "camera.mp4"
    encode_video(frames(), path, fps=CAMERA_FPS, key_frame_every=CAMERA_FPS)
    return path


def chunks_of(video: Path) -> list[VideoChunk]:
    """The clip as a producer would send it."""
    pieces: Sequence[CutChunk] = list(cut_video(str(video), chunk_s=1.0, on_note=lambda _: None))
    return [
        VideoChunk("bench", "e", i, p.start_us, p.payload, p.start_ticks, p.time_base)
        for i, p in enumerate(pieces)
    ]


def time_stages(chunks: Sequence[VideoChunk], model: OpenModel) -> StageTimes:
    """One camera, stage after stage, each timed."""
    decoder = PyAvDecoder(model.spec.geometry, model.spec.timeline)
    session = StreamSession("bench", "e", model.spec, model.labels)
    decode_s = sample_s = backbone_s = rest_s = 0.0
    n_snippets, last_us = 0, 0
    for chunk in chunks:
        at = [time.perf_counter()]
        frames = decoder.decode(chunk)
        at.append(time.perf_counter())
        snippets = session.sample(frames)
        at.append(time.perf_counter())
        features = model.extractor.extract(snippets)
        at.append(time.perf_counter())
        session.track(model.localizer.localize(session.buffer(features)))
        at.append(time.perf_counter())
        spent = np.diff(at)
        decode_s, sample_s = decode_s + spent[0], sample_s + spent[1]
        backbone_s, rest_s = backbone_s + spent[2], rest_s + spent[3]
        n_snippets, last_us = n_snippets + len(snippets), int(frames.pts_us[-1])
    convert_s = decoder.converted_s
    return StageTimes(
        decode_s - convert_s, sample_s + convert_s, backbone_s, rest_s, n_snippets, last_us / 1e6
    )


def backbone_rate(model: OpenModel, seconds: float) -> float:
    """Snippets a second of the backbone alone, in the batches the daemon would make."""
    timeline, side = model.spec.timeline, model.spec.geometry.crop_px
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (timeline.snippet_frames, side, side, 3), np.uint8)
    batch = [Snippet(i, 0, Span(i, i + 1), rgb) for i in range(BATCH)]
    model.extractor.extract(batch)
    n, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        model.extractor.extract(batch)
        n += BATCH
    return n / (time.perf_counter() - started_s)


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
    chunks: Sequence[VideoChunk], model: OpenModel, n_cameras: int, seconds: float, *, paced: bool
) -> float:
    """Seconds the whole daemon takes for ``n_cameras`` of ``seconds`` each, in memory."""
    metrics, clock = Metrics(), SystemClock()
    calls = RunningCalls(clock)
    device = Device(model.extractor, model.localizer, BATCH, metrics, calls)
    source = LoopingCameras(chunks, n_cameras, seconds, paced=paced)
    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        parts = WorkerParts(
            spec=model.spec,
            labels=model.labels,
            device=device,
            decode_pool=pool,
            sink=MemoryEventSink(),
            store=MemoryStateStore(),
            metrics=metrics,
            calls=calls,
            clock=clock,
            log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[]),
            new_decoder=lambda: PyAvDecoder(model.spec.geometry, model.spec.timeline),
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
    chunks: Sequence[VideoChunk], model: OpenModel, seconds: float, console: Console
) -> tuple[float, int]:
    """(cameras' worth of footage a second when fed as fast as it goes, live cameras carried)."""
    n_fed = 4
    fed_s = max(seconds / 2, 4)
    with console.status("feeding the daemon as fast as it takes footage"):
        spent_s = asyncio.run(serve_cameras(chunks, model, n_fed, int(fed_s), paced=False))
    capacity = n_fed * int(fed_s) / spent_s
    carried = max(int(capacity), 1)
    while carried > 1:
        with console.status(f"{carried} live cameras for {seconds:.0f} s"):
            if _keeps_up(chunks, model, carried, seconds):
                break
        carried -= 1
    return capacity, carried


def _keeps_up(
    chunks: Sequence[VideoChunk], model: OpenModel, n_cameras: int, seconds: float
) -> bool:
    spent_s = asyncio.run(serve_cameras(chunks, model, n_cameras, int(seconds), paced=True))
    return spent_s - int(seconds) < MOST_LAG_S


def run_bench(options: BenchOptions, console: Console, *, as_json: bool) -> None:
    """Measure, then print a table or JSON.

    Raises:
        ConfigError: ``--cameras`` is no number.
    """
    model = open_model(
        parse_model(
            {
                "bundle": options.bundle,
                "precision": options.precision,
                "threads": options.threads,
            }
        )
    )
    status = Console(stderr=True)
    try:
        model.warm_up()
        with tempfile.TemporaryDirectory() as folder:
            video = options.video or camera_footage(Path(folder), 20)
            results = _measure(options, model, chunks_of(video), status)
    finally:
        model.close()
    if as_json:
        console.print_json(json.dumps(results))
    else:
        console.print(_table(results))


def _measure(
    options: BenchOptions, model: OpenModel, chunks: Sequence[VideoChunk], status: Console
) -> dict[str, object]:
    results: dict[str, object] = {"machine": machine(), "model": model.description}
    with status.status("timing each stage"):
        stages = time_stages(chunks, model)
    results["stages"] = {
        **asdict(stages),
        **stages.shares(),
        "snippets_per_s": stages.n_snippets / stages.total_s,
        "real_time_factor": stages.video_s / stages.total_s,
    }
    if options.cameras != "0":
        results["cameras"] = _cameras(options, model, chunks, status)
    return results


def _cameras(
    options: BenchOptions, model: OpenModel, chunks: Sequence[VideoChunk], status: Console
) -> dict[str, float]:
    with status.status("timing the backbone alone"):
        rate = backbone_rate(model, min(options.seconds, 10))
    allowed = rate * model.spec.timeline.stride_us / 1e6
    if options.cameras == "auto":
        capacity, carried = most_cameras(chunks, model, options.seconds, status)
    elif options.cameras.isdigit():
        n = int(options.cameras)
        seconds = int(options.seconds)
        spent_s = asyncio.run(serve_cameras(chunks, model, n, seconds, paced=False))
        capacity, carried = n * seconds / spent_s, 0
    else:
        raise ConfigError(f"--cameras is {options.cameras!r}, wanted auto or a number")
    return {
        "backbone_alone": allowed,
        "whole_daemon": capacity,
        "share_of_backbone": capacity / allowed,
        "carried_live": carried,
    }


def _table(results: dict[str, object]) -> Table:
    table = Table(title="s2netd bench", show_header=False)
    for section, values in results.items():
        if isinstance(values, dict):
            for key, value in values.items():
                text = f"{value:.3f}" if isinstance(value, float) else str(value)
                table.add_row(section, key, text)
        else:
            table.add_row(section, "", str(values))
    return table
