"""What ``bench_device`` measured, and how it is shown: a table, or Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from engine.backends.device_bench import Timing


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What was measured of one bundle.

    Attributes:
        bundle: Its name and digits of its digest.
        description: Backend, precision and device.
        backbone: By batch size; a row is a snippet.
        localizer: By batch size; a row is a window.
        backbone_gflop: Of one snippet.
        backbone_tflops: At the fastest batch size, called in turns with the products.
        matmul_tflops: Of a chain of large matrix products in the same precision (f32 for int8),
            called in turns with the backbone.
        matmul_share: How much of that the backbone reaches, 0..1 (more where a convolution's
            faster form needs less arithmetic than is counted).
        memory_mib: What both networks took: of the GPU, or of this process on the CPU.
        leaked_mib: What ``leak_batches`` calls took and did not give back.
        leak_batches: How many.
        graph_gain: How many times as fast a batch of one is with CUDA graphs; 0: no GPU.
        overlap_gain: How many times as fast many batches are if copies overlap; 0: no GPU.
    """

    bundle: str
    description: str
    backbone: tuple[Timing, ...]
    localizer: tuple[Timing, ...]
    backbone_gflop: float
    backbone_tflops: float
    matmul_tflops: float
    matmul_share: float
    memory_mib: float
    leaked_mib: float
    leak_batches: int
    graph_gain: float
    overlap_gain: float


def table(figures: DeviceFigures) -> Table:
    """Of one bundle, for a terminal."""
    shown = Table(title=f"{figures.bundle}: {figures.description}")
    for column in ("network", "batch", "rows/s", "p50 ms", "p99 ms", "calls"):
        shown.add_column(column, justify="left" if column == "network" else "right")
    for name, timings in (("backbone", figures.backbone), ("localizer", figures.localizer)):
        for timing in timings:
            shown.add_row(name, *_cells(timing))
    shown.add_section()
    for name, value in _summary(figures):
        shown.add_row(name, value)
    return shown


def _cells(timing: Timing) -> list[str]:
    return [
        str(timing.batch),
        f"{timing.rows_per_s:.1f}",
        f"{timing.p50_ms:.2f}",
        f"{timing.p99_ms:.2f}",
        str(timing.n_calls),
    ]


def _summary(figures: DeviceFigures) -> list[tuple[str, str]]:
    rows = [
        ("one snippet, GFLOP", f"{figures.backbone_gflop:.1f}"),
        ("backbone, TFLOP/s", f"{figures.backbone_tflops:.3f}"),
        ("matrix products, TFLOP/s", f"{figures.matmul_tflops:.3f}"),
        ("backbone's share of them", f"{figures.matmul_share:.0%}"),
        ("memory, MiB", f"{figures.memory_mib:.0f}"),
        (f"more after {figures.leak_batches} batches, MiB", f"{figures.leaked_mib:.1f}"),
    ]
    if figures.graph_gain:
        rows.append(("gain of CUDA graphs, one row", f"{figures.graph_gain:.2f}x"))
        rows.append(("gain of overlap, many batches", f"{figures.overlap_gain:.2f}x"))
    return rows


def markdown(figures: Sequence[DeviceFigures]) -> str:
    """A report of all bundles, as Markdown."""
    lines = ["# What a device does with a bundle", ""]
    lines += ["Measured by `s2netd bench --device`: copies and padding are in every number.", ""]
    for one in figures:
        lines += [f"## {one.bundle}: {one.description}", ""]
        lines += ["| network | batch | rows/s | p50 ms | p99 ms | calls |", "|---|" + "--:|" * 5]
        for name, timings in (("backbone", one.backbone), ("localizer", one.localizer)):
            lines += [f"| {name} | {' | '.join(_cells(timing))} |" for timing in timings]
        lines += ["", "| | |", "|---|--:|"]
        lines += [f"| {name} | {value} |" for name, value in _summary(one)]
        lines.append("")
    return "\n".join(lines)
