"""What ``bench_device`` measured, and how it is shown: a table, or Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from engine.backends.rates import Timing


@dataclass(frozen=True, slots=True)
class NetworkFigures:
    """What was measured of one network.

    Attributes:
        precision: What its arithmetic is in on this device.
        open_s: Seconds until it was open, its plan included; warming up is not.
        origin: Where its plan came from: ``built`` or ``from the cache``; empty on the CPU.
        timings: By batch size.
        leak_rows: Rows of each of the ``leak_batches`` calls.
        before_mib: Memory in use before these: of the GPU, or of this process on the CPU.
        after_mib: And after them.
    """

    precision: str
    open_s: float
    origin: str
    timings: tuple[Timing, ...]
    leak_rows: int
    before_mib: float
    after_mib: float


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What was measured of one bundle.

    Attributes:
        bundle: Its name and digits of its digest.
        description: Backend, precision and device.
        backbone: A row is a snippet.
        localizer: A row is a window.
        backbone_gflop: Of one snippet; of int8 in 10⁹ integer operations, as below.
        backbone_tflops: At the fastest batch size, called in turns with the products.
        matmul_precision: What the products are in: the backbone's precision, unless the device
            cannot multiply matrices in int8.
        matmul_tflops: Of a chain of large matrix products, called in turns with the backbone.
        matmul_share: How much of that the backbone reaches, 0..1 (more where a convolution's
            faster form needs less arithmetic than is counted).
        memory_mib: What both networks took: of the GPU, or of this process on the CPU.
        leak_batches: Calls of each network between its two figures of memory.
        graph_gain: How many times as fast a batch of one is with CUDA graphs; 0: no GPU.
        overlap_gain: How many times as fast many batches are if copies overlap; 0: no GPU.
    """

    bundle: str
    description: str
    backbone: NetworkFigures
    localizer: NetworkFigures
    backbone_gflop: float
    backbone_tflops: float
    matmul_precision: str
    matmul_tflops: float
    matmul_share: float
    memory_mib: float
    leak_batches: int
    graph_gain: float
    overlap_gain: float

    @property
    def networks(self) -> tuple[tuple[str, NetworkFigures], ...]:
        """Both, with what they are called."""
        return (("backbone", self.backbone), ("localizer", self.localizer))


def table(figures: DeviceFigures) -> Table:
    """Of one bundle, for a terminal."""
    shown = Table(title=f"{figures.bundle}: {figures.description}")
    for column in ("network", "batch", "rows/s", "p50 ms", "p99 ms", "calls"):
        shown.add_column(column, justify="left" if column == "network" else "right")
    for name, network in figures.networks:
        for timing in network.timings:
            shown.add_row(name, *_cells(timing))
    facts = Table(show_header=False)
    facts.add_column()
    facts.add_column(justify="right")
    for name, value in _summary(figures):
        facts.add_row(name, value)
    both = Table.grid()
    both.add_row(shown)
    both.add_row(facts)
    return both


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
        (f"{name} in {network.precision}, opened in", _opened(network))
        for name, network in figures.networks
    ]
    rows += [
        ("one snippet, GFLOP", f"{figures.backbone_gflop:.1f}"),
        (_speed("backbone", figures.backbone.precision), f"{figures.backbone_tflops:.3f}"),
        (_speed("matrix products", figures.matmul_precision), f"{figures.matmul_tflops:.3f}"),
        ("backbone's share of them", f"{figures.matmul_share:.0%}"),
        ("memory of both networks, MiB", f"{figures.memory_mib:.0f}"),
    ]
    rows += [
        (
            f"MiB before and after {figures.leak_batches} batches of {network.leak_rows}, {name}",
            f"{network.before_mib:.1f}, {network.after_mib:.1f}",
        )
        for name, network in figures.networks
    ]
    if figures.graph_gain:
        rows.append(("gain of CUDA graphs, one row", f"{figures.graph_gain:.2f}x"))
        rows.append(("gain of overlap, many batches", f"{figures.overlap_gain:.2f}x"))
    return rows


def _opened(network: NetworkFigures) -> str:
    return f"{network.open_s:.2f} s" + (f", {network.origin}" if network.origin else "")


def _speed(what: str, precision: str) -> str:
    return f"{what} in {precision}, {'TOP/s' if precision == 'int8' else 'TFLOP/s'}"


def markdown(figures: Sequence[DeviceFigures]) -> str:
    """A report of all bundles, as Markdown."""
    lines = ["# What a device does with a bundle", ""]
    lines += ["Measured by `s2netd bench --device`: copies and padding are in every number.", ""]
    for one in figures:
        lines += [f"## {one.bundle}: {one.description}", ""]
        lines += ["| network | batch | rows/s | p50 ms | p99 ms | calls |", "|---|" + "--:|" * 5]
        for name, network in one.networks:
            lines += [f"| {name} | {' | '.join(_cells(timing))} |" for timing in network.timings]
        lines += ["", "| | |", "|---|--:|"]
        lines += [f"| {name} | {value} |" for name, value in _summary(one)]
        lines.append("")
    return "\n".join(lines)
