"""``python -m tests.faults.soak --minutes 30``: does a daemon that runs on and on grow?

One daemon, a tiny model, live cameras that begin a new run after each lap. What the daemon takes
is looked at from outside every few seconds: in /proc, and in its metrics. Whatever grows with time
or with runs shows as a slope over the second half, when all that grows only once has grown.
"""

import argparse
import asyncio
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.bench import (
    Bench,
    a_bench,
    a_daemon,
    end_on_sigterm,
    options_of,
    say,
    write_page,
)
from tests.faults.daemons import Daemon, Place, RowError
from tests.faults.feeder import CHUNK_S, LAP_S, Feeder, KafkaLink
from tests.faults.proxy import free_port
from tests.faults.trend import slope_of

EVERY_S = 5.0
_TOLD_EVERY = 12  # samples
_HEAD = (
    "| what | at the start | halfway | at the end | least to most in the second half "
    "| slope in the second half, per hour |"
)
_LEAST = 4  # samples that a slope needs


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon takes at one moment, and what it has done so far."""

    at_s: float  # since it was ready
    rss_mib: float
    files: int
    threads: int
    tasks: float
    chunks: float
    revisions: float
    steps: float


# In the order of the plot: what, and in which unit.
TAKEN = {
    "rss_mib": ("resident memory", "MiB"),
    "files": ("open files", "number"),
    "threads": ("threads", "number"),
    "tasks": ("asyncio tasks", "number"),
}


@dataclass(slots=True)
class Outcome:
    """What was seen until the end, or until somebody had enough."""

    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False


async def soak(options: argparse.Namespace, outcome: Outcome) -> None:
    """Fill the outcome, sample by sample."""
    end_on_sigterm()
    async with a_bench(options.cameras, options.partitions) as bench:
        port, chunks = free_port(), await bench.chunks_topic()
        async with a_daemon(bench, chunks, "soak", http_port=port) as (daemon, place):
            await daemon.ready()
            feeder = Feeder(
                KafkaLink(place.bootstrap, chunks),
                bench.footage,
                bench.cameras,
                name="soak",
                is_live=True,
            )
            async with feeder.running():
                await _watch(daemon, port, options.minutes * 60, outcome)
            await asyncio.wait_for(bench.until_committed(place), 60)
            outcome.notes += await _checked(bench, place, feeder)


async def _watch(daemon: Daemon, port: int, seconds: float, outcome: Outcome) -> None:
    began_s = time.monotonic()
    for number in range(int(seconds / EVERY_S) + 1):
        await asyncio.sleep(began_s + number * EVERY_S - time.monotonic())
        if daemon.status() is not None:
            raise RowError(f"the daemon ended by itself, with status {daemon.status()}")
        sample = await asyncio.to_thread(_sample, daemon.pid, port, began_s)
        outcome.samples.append(sample)
        if number % _TOLD_EVERY == 0:
            say(
                f"{sample.at_s / 60:.0f} min: {sample.rss_mib:.1f} MiB, {sample.files} files, "
                f"{sample.threads} threads, {sample.tasks:.0f} tasks, {sample.chunks:.0f} chunks, "
                f"{sample.revisions:.0f} revisions, {sample.steps:.0f} steps"
            )


def _sample(pid: int, port: int, began_s: float) -> Sample:
    # First the process, for to be asked takes a thread and a socket of it.
    at_s = time.monotonic() - began_s
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    of = dict(line.split(":", 1) for line in status.splitlines())
    n_files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    told = _metrics(port)
    return Sample(
        at_s=at_s,
        rss_mib=int(of["VmRSS"].split()[0]) / 1024,
        files=n_files,
        threads=int(of["Threads"]),
        tasks=told["s2netd_tasks"],
        chunks=told["s2netd_chunks_total"],
        revisions=told["s2netd_events_total"],
        steps=told["s2netd_steps_total"],
    )


def _metrics(port: int) -> dict[str, float]:
    """Name → its value, over all labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    totals: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] += sample.value
    return totals


async def _checked(bench: Bench, place: Place, feeder: Feeder) -> list[str]:
    sent = sum(marks[-1].offset for marks in feeder.acknowledged.values())
    done = sum((await bench.cluster.committed(place.group, place.chunks)).values())
    told = len(await bench.cluster.records(place.events, committed_only=True))
    return [f"{sent} records sent, {done} of them committed at the end, {told} revisions told."]


def page(options: argparse.Namespace, outcome: Outcome, picture: Path | None) -> list[str]:
    """The report's lines."""
    samples = outcome.samples
    if not samples:
        return ["Nothing was seen.", *outcome.notes]
    half = _second_half(samples)
    last, minutes = samples[-1], samples[-1].at_s / 60
    lines = [
        (
            f"One daemon, a tiny model, {options.cameras} live cameras on {options.partitions} "
            f"partitions: chunks of {CHUNK_S:.2f} s, a new run after each lap of {LAP_S:g} s. "
            f"{minutes:.1f} min, a sample every {EVERY_S:g} s: {last.chunks:.0f} chunks, "
            f"{last.revisions:.0f} revisions, {last.steps:.0f} steps."
        ),
        "",
        _HEAD,
        "|---|---|---|---|---|---|",
        *(_row(name, samples, half) for name in TAKEN),
        "",
        (
            f"Slopes are by least squares over the last {len(half)} samples, ± one standard "
            "error, which is widened by how far a sample resembles the one before it."
        ),
        "",
        *outcome.notes,
    ]
    if picture is not None:
        lines += ["", f"![what the daemon takes over time]({picture.name})"]
    return lines


def _second_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[len(samples) // 2 :]


def _row(name: str, samples: Sequence[Sample], half: Sequence[Sample]) -> str:
    title, unit = TAKEN[name]
    values = [float(getattr(sample, name)) for sample in half]
    at = (samples[0], half[0], samples[-1])
    slope = "too few samples"
    if len(half) >= _LEAST:
        found = slope_of([sample.at_s / 3600 for sample in half], values)
        slope = f"{round(found.value, 2) + 0.0:+.2f} ± {found.error:.2f}"  # and no -0.00
    shown = (f"{getattr(sample, name):.4g}" for sample in at)
    spread = f"{min(values):.4g} to {max(values):.4g}"
    return f"| {title}, {unit} | {' | '.join(shown)} | {spread} | {slope} |"


def draw(
    samples: Sequence[Any], path: Path, taken: Mapping[str, tuple[str, str]] = TAKEN
) -> Path | None:
    """All that is taken over time, one below the other; None without matplotlib.

    Args:
        samples: Each with ``at_s`` and all that is in ``taken``.
        path: The picture.
        taken: As ``TAKEN``.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        say("no picture: pip install matplotlib")
        return None
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    minutes = [sample.at_s / 60 for sample in samples]
    axes = figure.subplots(len(taken), sharex=True)
    for axis, (name, (title, unit)) in zip(axes, taken.items(), strict=True):
        axis.plot(minutes, [getattr(sample, name) for sample in samples], linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(unit)
        axis.set_ylim(0, 1.15 * max(getattr(sample, name) for sample in samples))
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes since the daemon was ready")
    figure.savefig(path, dpi=80)
    return path


def main() -> int:
    """Measure, and print the report: of what there is, if somebody has enough."""
    options = options_of(__doc__, cameras=8, partitions=4, minutes=30.0).parse_args()
    outcome = Outcome()
    try:
        asyncio.run(soak(options, outcome))
    except (KeyboardInterrupt, asyncio.CancelledError):
        outcome.notes.append("Interrupted before its time.")
    except (RowError, TimeoutError, OSError) as error:
        outcome.notes.append(f"Failed: {type(error).__name__}: {error}")
        outcome.failed = True
    picture = None
    if options.report and len(outcome.samples) > 1:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        picture = draw(outcome.samples, options.report.with_suffix(".png"))
    write_page(
        "A daemon that runs on",
        "tests.faults.soak",
        page(options, outcome, picture),
        options.report,
    )
    return int(outcome.failed)


if __name__ == "__main__":
    raise SystemExit(main())
