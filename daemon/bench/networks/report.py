"""What ``bench --device`` measured, and how it is shown: as a table or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from engine.backends.rates import Timing


@dataclass(frozen=True, slots=True)
class NetworkFigures:
    """What was measured of one network.

    Attributes:
        precision: The precision of its arithmetic on this device.
        open_s: Seconds until it was open, with its plan but without warming up.
        origin: Where its plan came from: ``built`` or ``from the cache``; empty on the CPU.
        timings: The timings, one for each batch size.
        leak_rows: How many rows each of the ``leak_batches`` calls has.
        before_mib: Memory in use before these calls, in MiB: of the GPU, or, on the CPU, of this
            process.
        after_mib: The same after these calls.
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
        bundle: The bundle's name and the first digits of its digest.
        description: Backend, precision and device, in words.
        backbone: The backbone's figures; a row is a snippet.
        localizer: The localizer's figures; a row is a window.
        backbone_gflop: Arithmetic of the backbone for one snippet, in 10⁹ operations; in int8
            these are integer operations, here and below.
        backbone_tflops: The backbone's rate at its fastest batch size, in 10¹² operations a
            second; it was called in turns with the matrix products.
        matmul_precision: Precision of the products: the backbone's, unless the device cannot
            multiply matrices in int8.
        matmul_tflops: The rate of a chain of large matrix products, in 10¹² operations a second.
        matmul_share: The backbone's rate divided by the products', 0..1; it may be more if a
            faster form of a convolution needs less arithmetic than is counted.
        memory_mib: Memory that both networks took, in MiB: of the GPU, or, on the CPU, of this
            process.
        leak_batches: How many calls of each network lie between its two readings of the memory.
        graph_gain: How many times as fast a batch of one is with CUDA graphs; 0 without a GPU.
        overlap_gain: How many times as fast many batches are if copies overlap with work; 0
            without a GPU.
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
        """The figures of both networks, each with the network's name."""
        return (("backbone", self.backbone), ("localizer", self.localizer))


def table(figures: DeviceFigures) -> Table:
    """A table of one bundle's figures, for a terminal."""
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
