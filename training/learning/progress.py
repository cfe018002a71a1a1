"""The log of a training: ``log.csv``, a picture of it, TensorBoard where it is installed."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.learning.stopping import Check

LOG = "log.csv"
PLOT = "log.png"
_FIXED = ("phase", "step", "total")
_LAST = "held_out_tag_map"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands.

    Attributes:
        phase: ``search``, ``round_1``, ``round_2`` or ``student``.
        step: Iterations done in the phase.
        iterations: Iterations that the phase will have.
        losses: Weighted terms of this iteration; ``total`` is their sum. Empty between log rows.
        held_out_tag_map: mAP of held-out tags, 0..100, if it was measured at this step.
    """

    phase: str
    step: int
    iterations: int
    losses: Mapping[str, float]
    held_out_tag_map: float | None


class TrainingLog:
    """Rows of ``log.csv``, kept in memory and written whole.

    A training that is resumed therefore has no holes in its log.

    Args:
        out: The run folder.
        tensorboard: Also write TensorBoard files, if it can be imported.
    """

    def __init__(self, out: Path, *, tensorboard: bool) -> None:
        self._path = out / LOG
        self._rows: list[dict[str, str]] = []
        self._writer = _tensorboard(out) if tensorboard else None
        if self._path.exists():
            with self._path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            self._rows = [{name: text for name, text in row.items() if text} for row in rows]

    def resume(self, phase: str, step: int) -> None:
        """Drop the rows of ``phase`` beyond ``step``, because they will come again."""
        self._rows = [
            row for row in self._rows if row["phase"] != phase or int(row["step"]) <= step
        ]

    def checks(self, phase: str) -> list[Check]:
        """Return the held-out checks of a phase, in order, as rounded in the file."""
        return [
            Check(int(row["step"]), float(row[_LAST]))
            for row in self._rows
            if row["phase"] == phase and _LAST in row
        ]

    def add(self, progress: Progress) -> None:
        """Add a row; it is not written yet."""
        row = {"phase": progress.phase, "step": str(progress.step)}
        row |= {name: f"{value:.6g}" for name, value in progress.losses.items()}
        if progress.held_out_tag_map is not None:
            row[_LAST] = f"{progress.held_out_tag_map:.4f}"
        self._rows.append(row)
        if self._writer:
            for name, text in row.items():
                if name not in _FIXED[:2]:
                    self._writer.add_scalar(f"{progress.phase}/{name}", float(text), progress.step)

    def write(self) -> None:
        """Write ``log.csv`` as it stands."""
        terms = dict.fromkeys(name for row in self._rows for name in row)
        columns = [*_FIXED, *(t for t in terms if t not in {*_FIXED, _LAST}), _LAST]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(text.getvalue(), encoding="utf-8")
        unfinished.replace(self._path)

    def close(self) -> None:
        """Write ``log.csv`` and close TensorBoard's files."""
        self.write()
        if self._writer:
            self._writer.close()


def plot_log(out: Path, note: Callable[[str], None]) -> Path | None:
    """Draw ``log.csv``: loss terms, phases side by side, and below them held-out tag mAP, if any.

    Args:
        out: The run folder.
        note: Gets a line that says why there is no picture.

    Returns:
        The picture, or None without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import (  # noqa: PLC0415 - heavy, optional
            FigureCanvasAgg,
        )
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        note("no picture of the losses: pip install matplotlib")
        return None
    with (out / LOG).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    judged = [phase for phase in phases if any(r[_LAST] for r in rows if r["phase"] == phase)]
    n_rows, n_columns = 1 + bool(judged), max(1, len(phases))
    figure = Figure(figsize=(5 * n_columns, 3 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    for column, phase in enumerate(phases):
        of_phase = [row for row in rows if row["phase"] == phase]
        terms = [name for name in rows[0] if name not in {*_FIXED[:2], _LAST}]
        _draw(figure.add_subplot(n_rows, n_columns, 1 + column), phase, of_phase, terms, "loss")
    for phase in judged:
        of_phase = [row for row in rows if row["phase"] == phase]
        axis = figure.add_subplot(n_rows, n_columns, 1 + n_columns + phases.index(phase))
        _draw(axis, phase, of_phase, [_LAST], "held-out tag mAP, points")
    figure.savefig(out / PLOT, dpi=100)
    return out / PLOT


def _draw(
    axis: Any, phase: str, rows: list[dict[str, str]], names: Sequence[str], what: str
) -> None:
    for name in names:
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, label=name)
    axis.set(title=phase, xlabel="iteration", ylabel=what)
    if axis.lines:
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")  # beside the lines


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
