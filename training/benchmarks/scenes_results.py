"""Rows of a benchmark → a JSON file, a table for people, a picture."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.average_precision import MapResult

RESULTS, TABLE, PLOT = "results.json", "results.md", "results.png"
_SHOWN_TIOUS = (0.3, 0.5, 0.7)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One network, or one baseline, on one subset; all mAPs in percent.

    Attributes:
        draw: Name of the data draw.
        variant: Name of the variant or baseline.
        seed: Seed of the training.
        subset: The subset that was scored.
        per_tiou: tIoU → mAP.
        per_class: C values, the means over the tIoUs; NaN for a class without actions.
    """

    draw: str
    variant: str
    seed: int
    subset: str
    per_tiou: Mapping[float, float]
    per_class: tuple[float, ...]

    @property
    def average(self) -> float:
        """The mean mAP over the tIoUs."""
        return float(np.mean(list(self.per_tiou.values())))


def row_of(draw: str, variant: str, seed: int, subset: str, result: MapResult) -> ResultRow:
    """Turn the evaluator's result into a row."""
    return ResultRow(
        draw,
        variant,
        seed,
        subset,
        dict(zip(result.tious, (100 * result.per_tiou).tolist(), strict=True)),
        tuple((100 * result.class_ap.mean(axis=1)).tolist()),
    )


@dataclass(frozen=True, slots=True)
class BenchmarkResults:
    """Rows of one draw or of several."""

    rows: tuple[ResultRow, ...]
    class_names: tuple[str, ...]

    def of(self, subset: str, variant: str) -> list[ResultRow]:
        """Return a variant's rows on a subset."""
        return [row for row in self.rows if (row.subset, row.variant) == (subset, variant)]

    def differences(
        self, subset: str, variant: str, base: str, value: Callable[[ResultRow], float]
    ) -> list[float]:
        """Subtract base from variant, pair by pair of the same draw and seed."""
        held = {(row.draw, row.seed): value(row) for row in self.of(subset, base)}
        return [
            value(row) - held[row.draw, row.seed]
            for row in self.of(subset, variant)
            if (row.draw, row.seed) in held
        ]

    def markdown(self, subset: str, base: str = "") -> str:
        """Write a row for each variant: mean ± sample sd over draws and seeds, and its gain.

        The gain is over ``base``. Its sd is that of the paired differences, so that what seeds
        and draws do to both alike does not widen it.
        """
        head = ["average", *(f"@{tiou}" for tiou in _SHOWN_TIOUS), *self.class_names]
        head = [subset, "runs", *head, "gain", "gain @0.7"]
        lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        for variant in dict.fromkeys(row.variant for row in self.rows if row.subset == subset):
            own = self.of(subset, variant)
            values = [
                mean_and_sd([row.average for row in own]),
                *(mean_and_sd([row.per_tiou[tiou] for row in own]) for tiou in _SHOWN_TIOUS),
                *(f"{value:.0f}" for value in np.mean([row.per_class for row in own], axis=0)),
                *self._gains(subset, variant, base),
            ]
            lines.append(f"| {variant} | {len(own)} | {' | '.join(values)} |")
        return "\n".join(lines)

    def _gains(self, subset: str, variant: str, base: str) -> list[str]:
        if variant == base:
            return ["", ""]
        gains = [
            self.differences(subset, variant, base, value) for value in (_average, _at_last_shown)
        ]
        return [mean_and_sd(gain, signed=True) if gain else "" for gain in gains]

    def write(self, out: Path, base: str = "") -> None:
        """Write ``results.json`` and ``results.md``; ``plot_results`` makes the picture."""
        content = {"classes": self.class_names, "rows": [_plain(row) for row in self.rows]}
        (out / RESULTS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        subsets = dict.fromkeys(row.subset for row in self.rows)
        tables = [self.markdown(subset, base) for subset in subsets]
        (out / TABLE).write_text("\n\n".join(tables) + "\n", encoding="utf-8")


def mean_and_sd(values: Sequence[float], *, signed: bool = False) -> str:
    """Write ``12.3 ± 0.4``; a single value has no sd."""
    mean = f"{np.mean(values):{'+' if signed else ''}.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def plot_results(
    results: BenchmarkResults, path: Path, note: Callable[[str], None] = lambda _line: None
) -> Path | None:
    """Draw bars of the average mAP, a group for each subset; give None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import (  # noqa: PLC0415 - heavy, optional
            FigureCanvasAgg,
        )
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        note("no picture of the results: pip install matplotlib")
        return None
    subsets = list(dict.fromkeys(row.subset for row in results.rows))
    figure = Figure(figsize=(5 * max(1, len(subsets)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, subset in zip(
        figure.subplots(1, max(1, len(subsets)), squeeze=False)[0], subsets, strict=False
    ):
        _draw(axis, results, subset)
    figure.savefig(path, dpi=100)
    return path


def _draw(axis: Any, results: BenchmarkResults, subset: str) -> None:
    variants = list(dict.fromkeys(row.variant for row in results.rows if row.subset == subset))
    averages = [[row.average for row in results.of(subset, variant)] for variant in variants]
    spreads = [np.std(some, ddof=1) if len(some) > 1 else 0.0 for some in averages]
    bars = axis.barh(variants, [np.mean(some) for some in averages], xerr=spreads)
    axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.invert_yaxis()
    axis.set(title=subset, xlabel="mAP@.1:.1:.7, percent", xlim=(0, 100))


def _average(row: ResultRow) -> float:
    return row.average


def _at_last_shown(row: ResultRow) -> float:
    return row.per_tiou[_SHOWN_TIOUS[-1]]


def _plain(row: ResultRow) -> dict[str, Any]:
    content = asdict(row)
    return {**content, "per_tiou": {str(tiou): value for tiou, value in row.per_tiou.items()}}
