"""A comparison → Markdown, CSV and one HTML page with its pictures inside."""

import base64
import csv
import html
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.compare_costs import Cost
from training.benchmarks.compare_trials import Live, Trial, resampled_of
from training.benchmarks.heads import LENGTHS
from training.benchmarks.scenes_results import mean_and_sd
from training.evaluation.average_precision import THUMOS_TIOUS
from training.evaluation.resampling import Difference, difference, holm

TABLES, CELLS, PAGE = "comparison.md", "comparison.csv", "comparison.html"
_SHOWN = tuple(THUMOS_TIOUS.index(tiou) for tiou in (0.3, 0.5, 0.7))
_REAL = 0.05  # p below which a difference is called real

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contenders on one subset."""

    first: str
    second: str
    difference: Difference
    p: float

    @property
    def is_real(self) -> bool:
        """Whether chance would hardly turn the sign, with all the pairs that were looked at."""
        return self.p < _REAL


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that was measured.

    Attributes:
        trials: Every trained network on every subset.
        costs: What each network costs; may be empty.
        class_names: C names.
    """

    trials: tuple[Trial, ...]
    costs: tuple[Cost, ...]
    class_names: tuple[str, ...]

    @property
    def subsets(self) -> list[str]:
        """In the order they were scored."""
        return list(dict.fromkeys(trial.subset for trial in self.trials))

    def contenders(self, subset: str) -> dict[str, list[Trial]]:
        """Network and supervision → its trials on a subset."""
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if trial.subset == subset:
                found.setdefault(f"{trial.network}, {trial.supervision}", []).append(trial)
        return found

    def pairs(self, subset: str) -> list[Pair]:
        """Compare networks under the same supervision, and supervisions of the same network."""
        contenders = self.contenders(subset)
        pairs = []
        for first, second in combinations(contenders, 2):
            one, other = contenders[first], contenders[second]
            if one[0].network != other[0].network and one[0].supervision != other[0].supervision:
                continue
            apart = _mean(one) - _mean(other)
            found = difference(resampled_of(one), resampled_of(other), apart)
            pairs.append((first, second, found))
        raised = holm([found.p for _first, _second, found in pairs])
        return [Pair(*pair, p) for pair, p in zip(pairs, raised, strict=True)]

    def write(self, out: Path, note: Callable[[str], None]) -> None:
        """Write all three files into a folder."""
        out.mkdir(parents=True, exist_ok=True)
        tables = list(self._tables())
        text = "\n\n".join(f"## {title}\n\n{_markdown(table)}" for title, table in tables)
        (out / TABLES).write_text(text + "\n", encoding="utf-8")
        self._write_cells(out / CELLS)
        page = _page(tables, list(_pictures(self, note)))
        (out / PAGE).write_text(page, encoding="utf-8")

    def _tables(self) -> Iterator[tuple[str, Table]]:
        for subset in self.subsets:
            yield f"Whole videos, {subset}: mAP in percent", self._accuracy(subset)
            yield f"Which differences are real, {subset}", self._differences(subset)
        live = [trial for trial in self.trials if trial.live is not None]
        if live:
            yield f"Live, {live[0].subset}", self._live(live[0].subset)
        if self.costs:
            yield "What they cost", self._costs()

    def _accuracy(self, subset: str) -> Table:
        head = ["", "seeds", "mean", *(f"@{THUMOS_TIOUS[i]}" for i in _SHOWN), *self.class_names]
        rows = []
        for name, own in self.contenders(subset).items():
            at = [mean_and_sd([100 * trial.per_tiou[i] for trial in own]) for i in _SHOWN]
            classes = np.mean([trial.per_class for trial in own], axis=0)
            mean = mean_and_sd([100 * trial.average for trial in own])
            rows.append([name, str(len(own)), mean, *at, *(f"{100 * v:.0f}" for v in classes)])
        return head, rows

    def _differences(self, subset: str) -> Table:
        head = ["", "against", "points of mAP", "95 % of resamples", "p", "real"]
        rows = [
            [
                pair.first,
                pair.second,
                f"{pair.difference.mean:+.1f}",
                f"{pair.difference.low:+.1f} to {pair.difference.high:+.1f}",
                f"{pair.p:.3f}",
                "yes" if pair.is_real else "no",
            ]
            for pair in self.pairs(subset)
        ]
        return head, rows

    def _live(self, subset: str) -> Table:
        head = [
            *("", "mAP of last revisions", "of whole videos, %", "opens at", "precision"),
            *("recall", "opening delay, s", "final delay, s", "retracted", "false/h"),
        ]
        rows = []
        for name, own in self.contenders(subset).items():
            lives = [trial.live for trial in own if trial.live is not None]
            if not lives:
                continue
            kept = [
                100 * trial.live.map_last / trial.average
                for trial in own
                if trial.live is not None and trial.average
            ]
            rows.append(
                [
                    name,
                    mean_and_sd([100 * live.map_last for live in lives]),
                    mean_and_sd(kept) if kept else "-",
                    *(_of(lives, key, form) for key, form in _LIVE_COLUMNS),
                ]
            )
        return head, rows

    def _costs(self) -> Table:
        ms = [f"{runtime} ms, T={n}" for runtime in ("torch", "OpenVINO") for n in LENGTHS]
        head = ["", "parameters, M", "GFLOP, T=750", *ms, "network's ms a hop, live"]
        rows = [
            [
                cost.network,
                f"{cost.n_parameters / 1e6:.2f}",
                f"{cost.gflop:.2f}",
                *(f"{value:.1f}" for value in (*cost.torch_ms, *cost.openvino_ms)),
                f"{cost.hop_ms:.2f}",
            ]
            for cost in self.costs
        ]
        return head, rows

    def _write_cells(self, path: Path) -> None:
        """Write one row a trial, every number unrounded."""
        names = ("open_score", "map_last", *(key for key, _form in _LIVE_COLUMNS[1:]))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            at = [f"map_{tiou}" for tiou in THUMOS_TIOUS]
            classes = [f"ap_{name}" for name in self.class_names]
            live = [f"live_{name}" for name in names]
            head = ["network", "supervision", "seed", "subset", "map", *at, *classes, *live]
            writer.writerow(head)
            for one in self.trials:
                lived = ["" if one.live is None else getattr(one.live, name) for name in names]
                who = [one.network, one.supervision, one.seed, one.subset, one.average]
                writer.writerow([*who, *one.per_tiou, *one.per_class, *lived])


_LIVE_COLUMNS = (
    ("open_score", "{:.2f}"),
    ("precision", "{:.2f}"),
    ("recall", "{:.2f}"),
    ("open_delay_s", "{:.2f}"),
    ("final_delay_s", "{:.2f}"),
    ("retraction_rate", "{:.1%}"),
    ("false_alarms_per_hour", "{:.0f}"),
)


def _of(lives: Sequence[Live], key: str, form: str) -> str:
    values = [getattr(live, key) for live in lives]
    known = [value for value in values if not math.isnan(value)]
    return form.format(np.mean(known)) if known else "-"


def _mean(trials: Sequence[Trial]) -> float:
    return float(np.mean([trial.average for trial in trials]))


def _markdown(table: Table) -> str:
    head, rows = table
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _pictures(comparison: Comparison, note: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Draw, where matplotlib is installed: title and PNG in base64 of each picture."""
    try:
        from matplotlib.backends.backend_agg import (  # noqa: PLC0415 - heavy, optional
            FigureCanvasAgg,
        )
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        note("no pictures in the page: pip install matplotlib")
        return
    draws: list[tuple[str, Callable[[Any], None]]] = [
        (f"mAP at each tIoU, {subset}", partial(_draw_tious, comparison=comparison, subset=subset))
        for subset in comparison.subsets
    ]
    if any(trial.live for trial in comparison.trials):
        draws.append(("Live accuracy against delay", partial(_draw_delay, comparison=comparison)))
    if comparison.costs:
        draws.append(("Milliseconds of a video", partial(_draw_costs, comparison=comparison)))
    for title, draw in draws:
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, dpi=100)
        yield title, base64.b64encode(file.getvalue()).decode()


def _draw_tious(axes: Any, comparison: Comparison, subset: str) -> None:
    styles = {"tags": "-", "points": "--", "intervals": ":"}
    networks = list(dict.fromkeys(trial.network for trial in comparison.trials))
    for name, own in comparison.contenders(subset).items():
        values = 100 * np.mean([trial.per_tiou for trial in own], axis=0)
        style = styles[own[0].supervision]
        colour = f"C{networks.index(own[0].network)}"
        axes.plot(THUMOS_TIOUS, values, style, marker="o", color=colour, label=name)
    axes.set(xlabel="tIoU", ylabel="mAP, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_delay(axes: Any, comparison: Comparison) -> None:
    for subset in comparison.subsets:
        for name, own in comparison.contenders(subset).items():
            lives = [trial.live for trial in own if trial.live is not None]
            if lives:
                delay_s = np.nanmean([live.open_delay_s for live in lives])
                accuracy = 100 * np.mean([live.map_last for live in lives])
                axes.plot([delay_s], [accuracy], "o", label=name)
    axes.set(xlabel="median delay of the opening, s", ylabel="mAP of last revisions, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_costs(axes: Any, comparison: Comparison) -> None:
    for cost in comparison.costs:
        axes.loglog(LENGTHS, cost.openvino_ms, "o-", label=cost.network)
    axes.set(xlabel="snippets", ylabel="ms in OpenVINO f32")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}"
    "td,th{border-bottom:1px solid #8884;padding:.25rem .6rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}div{overflow-x:auto}img{max-width:100%}"
    "@media(prefers-color-scheme:dark){body{background:#14161a;color:#e4e6ea}img{background:#fff}}"
)


def _page(tables: Sequence[tuple[str, Table]], pictures: Sequence[tuple[str, str]]) -> str:
    """Write the page; it needs no other file, and runs nothing."""
    parts = ["<h1>Networks compared</h1>"]
    for title, png in pictures:
        alt = html.escape(title, quote=True)
        parts.append(f'<h2>{alt}</h2><img alt="{alt}" src="data:image/png;base64,{png}">')
    for title, (head, rows) in tables:
        top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        parts.append(
            f"<h2>{html.escape(title)}</h2><div><table><tr>{top}</tr>{body}</table></div>"
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Networks compared</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )
