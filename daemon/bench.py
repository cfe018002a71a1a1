"""`s2netd bench`: what this machine can do, measured through the product's own code.

Ratios are taken inside one run, because machines are noisy. Nothing here passes or fails.
"""

import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from daemon.bench_batching import compare_batches
from daemon.bench_cameras import most_cameras, serve_cameras
from daemon.bench_model import BenchModel, opened
from daemon.bench_stages import backbone_rate, camera_footage, chunks_of, time_stages
from daemon.config import ModelConfig, parse_model
from daemon.errors import ConfigError
from engine.types import VideoChunk


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """See `s2netd bench --help`."""

    bundle: str
    video: Path | None
    seconds: float
    cameras: str
    compare_batch: bool
    batch: int
    backend: str
    precision: str
    threads: int | None


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


def run_bench(options: BenchOptions, console: Console, *, as_json: bool) -> None:
    """Measure, then print a table or JSON.

    Raises:
        ConfigError: ``--cameras`` is no number, or none where batches are to be compared.
    """
    n_cameras = int(options.cameras) if options.cameras.isdecimal() else None
    if n_cameras is None and options.cameras != "auto":
        raise ConfigError(f"--cameras is {options.cameras!r}, wanted auto or a number")
    if options.compare_batch and not n_cameras:
        raise ConfigError(
            f"--cameras is {options.cameras!r}, wanted how many cameras --compare-batch is for"
        )
    status = Console(stderr=True)
    with opened(_config(options)) as bench, tempfile.TemporaryDirectory() as folder:
        video = options.video or camera_footage(Path(folder), 20)
        results = _measure(options, bench, chunks_of(video), status)
    if as_json:
        console.print_json(json.dumps(results))
    else:
        console.print(_table(results))


def _config(options: BenchOptions) -> ModelConfig:
    return parse_model(
        {
            "bundle": options.bundle,
            "backend": options.backend,
            "precision": options.precision,
            "threads": options.threads,
            "max_batch": options.batch,
        }
    )


def _measure(
    options: BenchOptions, bench: BenchModel, chunks: Sequence[VideoChunk], status: Console
) -> dict[str, object]:
    results: dict[str, object] = {"machine": machine(), "model": bench.model.description}
    with status.status("timing each stage"):
        stages = bench.run(partial(time_stages, chunks, bench.model))
    results["stages"] = {
        **asdict(stages),
        **stages.shares(),
        "snippets_per_s": stages.n_snippets / stages.total_s,
        "real_time_factor": stages.video_s / stages.total_s,
    }
    if options.compare_batch:
        with status.status("calls of many cameras against calls of one"):
            results["batching"] = compare_batches(
                bench.new_device, bench.model, int(options.cameras), bench.batch, options.seconds
            )
    elif options.cameras != "0":
        results["cameras"] = _cameras(options, bench, chunks, status)
    return results


def _cameras(
    options: BenchOptions, bench: BenchModel, chunks: Sequence[VideoChunk], status: Console
) -> dict[str, float]:
    with status.status("timing the backbone alone"):
        seconds = min(options.seconds, 10)
        rate = bench.run(partial(backbone_rate, bench.model, bench.batch, seconds))
    allowed = rate * bench.model.spec.timeline.stride_us / 1e6
    if options.cameras == "auto":
        capacity, carried = most_cameras(chunks, bench, options.seconds, status)
    else:
        n, seconds = int(options.cameras), int(options.seconds)
        spent_s = asyncio.run(serve_cameras(chunks, bench, n, seconds, paced=False))
        capacity, carried = n * seconds / spent_s, 0
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
