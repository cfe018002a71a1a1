"""`s2netd bench` without `--device`: measures stages and cameras through the daemon's own code.

Ratios are taken within one run, because machines are noisy. Nothing here passes or fails.
"""

import asyncio
import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from daemon.bench.cameras.batches import compare_batches
from daemon.bench.cameras.day import DAY_S, day_footage
from daemon.bench.cameras.decoding import Decoding, decode_config, stage_decoder
from daemon.bench.cameras.model import BenchModel, opened
from daemon.bench.cameras.overload import Load, overload
from daemon.bench.cameras.stages import (
    Footage,
    backbone_rate,
    camera_footage,
    footage_of,
    parse_size,
    time_stages,
)
from daemon.bench.cameras.whole_daemon import most_cameras, serve_cameras
from daemon.config import DecodeConfig, ModelConfig, parse_model
from daemon.errors import ConfigError
from engine.backends.names import check_name
from engine.video.frames import probe_video

# Length of the footage that is made on the spot; if more is needed, it is shown again and again.
_DRAWN_S = 20
SURGE_S, AFTER_S = 180.0, 60.0


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
    gpu: int = 0
    decode: str = "none"
    isolation: str = "process"
    resolution: str = "320x240"
    footage: str = "moving"
    rung: str = "full"
    motion_gate: str = "off"
    under_load: str = "full"
    surge: float = 1


@dataclass(frozen=True, slots=True)
class _Shown:
    footage: Footage
    facts: str


def machine() -> dict[str, str | int]:
    """What one must know of the machine to compare its figures: CPU, cores, Python."""
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
        ConfigError: ``--cameras`` is neither a number nor ``auto``, or is no number though batches
            are to be compared; or the value of another option is not known.
    """
    check_name("--footage", options.footage, ("moving", "day"), ConfigError)
    if options.footage == "day":
        options = replace(options, seconds=max(options.seconds, DAY_S))
    n_cameras = int(options.cameras) if options.cameras.isdecimal() else None
    if n_cameras is None and options.cameras != "auto":
        raise ConfigError(f"--cameras is {options.cameras!r}, wanted auto or a number")
    if options.compare_batch and not n_cameras:
        raise ConfigError(
            f"--cameras is {options.cameras!r}, wanted how many cameras --compare-batch is for"
        )
    if options.surge > 1 and not n_cameras:
        raise ConfigError(f"--cameras is {options.cameras!r}, wanted how many --surge multiplies")
    size = parse_size(options.resolution)
    decode = decode_config(options.decode, options.gpu, options.isolation)
    status = Console(stderr=True)
    with opened(_config(options)) as bench, tempfile.TemporaryDirectory() as folder:
        video = options.video
        if video is None:
            with status.status(f"drawing footage, {options.resolution}"):
                video = _drawn(Path(folder), options.footage, size)
        results = _measure(
            options, bench, _Shown(footage_of(video), _facts(video)), decode, status
        )
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
            "gpu": options.gpu,
            "economy": {
                "rung": options.rung,
                "motion_gate": options.motion_gate,
                "under_load": options.under_load,
            },
        }
    )


def _drawn(folder: Path, kind: str, size: tuple[int, int]) -> Path:
    if kind == "day":
        return day_footage(folder, size)
    return camera_footage(folder, _DRAWN_S, size)


def _facts(video: Path) -> str:
    facts = probe_video(video)
    fps = "" if facts.fps is None else f", {float(facts.fps):g} fps"
    return f"{facts.width}x{facts.height}{fps}, {facts.codec}"


def _measure(
    options: BenchOptions,
    bench: BenchModel,
    shown: _Shown,
    decode: DecodeConfig,
    status: Console,
) -> dict[str, object]:
    results: dict[str, object] = {
        "machine": machine(),
        "model": bench.model.description,
        **({"precision": bench.model.choice} if bench.model.choice else {}),
        "footage": shown.facts,
        "economy": f"{options.rung}, motion gate {options.motion_gate}",
        "stages": _stages(bench, shown.footage, decode, status),
    }
    if options.compare_batch:
        with status.status("calls of many cameras against calls of one"):
            results["batching"] = compare_batches(
                bench.new_device, bench.model, int(options.cameras), bench.batch, options.seconds
            )
    elif options.surge > 1:
        results["surge"] = _surge(options, bench, shown.footage, Decoding(decode), status)
    elif options.cameras != "0":
        results["cameras"] = _cameras(options, bench, shown.footage, Decoding(decode), status)
    return results


def _surge(
    options: BenchOptions,
    bench: BenchModel,
    footage: Footage,
    decoding: Decoding,
    status: Console,
) -> dict[str, float | str]:
    n_cameras = int(options.cameras)
    n_more = round(n_cameras * (options.surge - 1))
    load = Load(n_cameras, n_more, SURGE_S, AFTER_S)
    with status.status(f"{n_cameras + n_more} cameras, then {n_cameras}, for 4 minutes"):
        return asyncio.run(overload(footage, bench, load, decoding))


def _stages(
    bench: BenchModel, footage: Footage, decode: DecodeConfig, status: Console
) -> dict[str, float | str]:
    decoder, where = stage_decoder(decode, bench.model.spec, footage.chunks[0])
    with status.status("timing each stage"):
        stages = bench.run(partial(time_stages, footage.chunks, bench.model, decoder))
    return {
        **asdict(stages),
        **stages.shares(),
        "snippets_per_s": stages.n_snippets / stages.total_s,
        "looked_at": stages.n_looks / max(stages.n_snippets, 1),
        "real_time_factor": stages.video_s / stages.total_s,
        "decoded_on": where,
    }


def _cameras(
    options: BenchOptions,
    bench: BenchModel,
    footage: Footage,
    decoding: Decoding,
    status: Console,
) -> dict[str, float | str]:
    stride_us = bench.model.spec.grid.stride_us
    with status.status("timing the backbone alone"):
        seconds = min(options.seconds, 10)
        rate = bench.run(partial(backbone_rate, bench.model, bench.batch, seconds))
    allowed, live = rate * stride_us / 1e6, {}
    if options.cameras == "auto":
        served, carried = most_cameras(footage, bench, options.seconds, status, decoding)
        live = {"carried_live": carried}
    else:
        n_cameras = int(options.cameras)
        with status.status(f"feeding the daemon {n_cameras} cameras"):
            running = serve_cameras(
                footage, bench, n_cameras, options.seconds, paced=False, decoding=decoding
            )
            served = asyncio.run(running)
    return {
        "backbone_alone": allowed,
        "whole_daemon": served.cameras(stride_us),
        "share_of_backbone": served.cameras(stride_us) / allowed,
        "snippets": served.n_snippets,
        **live,
        **decoding.figures(),
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
