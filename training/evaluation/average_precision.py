"""Detections against annotated actions: average precision and its mean over classes, mAP.

C classes, N detections, K thresholds of tIoU. `training.evaluation.matching` says which detection
is which action.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engine.grid import Grid
from engine.types import ActionEvent, Float64Array, Int64Array, Proposal, Span
from training.evaluation.matching import Detections, Truth, assign
from training.records import VideoRecord

Protocol = Literal["seconds", "snippet-rounded"]

# Written out, because computed ones may be off in the last bit: 3 * 0.1 is above 0.3, and a
# detection that overlaps its action by exactly 0.3 would be lost.
THUMOS_TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET_TIOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

# The grid of the published THUMOS features: snippets of 16 frames at 25 a second.
PUBLISHED_GRID = Grid(fps=25, snippet_frames=16, stride_frames=16)


def average_precisions(
    truth: Truth, detections: Detections, taken: Int64Array, n_classes: int
) -> Float64Array:
    """Return the area under each class's precision-recall curve, made monotone from the right.

    Args:
        truth: The actions.
        detections: Detections of the same videos, N of them.
        taken: int64 (K, N), as ``assign`` gives it.
        n_classes: C.

    Returns:
        float64 (C, K); NaN for a class without actions, 0 for one without detections.
    """
    values = np.full((n_classes, len(taken)), math.nan)
    n_truth = np.bincount(truth.class_index, minlength=n_classes)
    order = detections.ranking()
    for class_index in np.flatnonzero(n_truth).tolist():
        hits = taken[:, order[detections.class_index[order] == class_index]] >= 0  # (K, n)
        precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Recall moves by 1 / (the class's actions) at every hit and nowhere else.
        values[class_index] = (envelope * hits).sum(axis=1) / n_truth[class_index]
    return values


def mean_over_classes(values: Float64Array) -> Float64Array:
    """Average (C, K) to (K,) over the rows without NaN; the result is NaN if no row is left."""
    known = values[~np.isnan(values).any(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(values.shape[1], math.nan)


@dataclass(frozen=True, slots=True, eq=False)
class MapResult:
    """Mean average precision, all values in [0, 1].

    Attributes:
        tious: K thresholds.
        class_ap: float64 (C, K); NaN for classes without annotated actions.
        protocol: Which times were compared.
        n_videos: Number of videos evaluated.
        n_truth: Number of annotated actions.
        n_detections: Number of detections that counted.
        n_ambiguous: Number of detections left out because they touch an ambiguous interval.
    """

    tious: tuple[float, ...]
    class_ap: Float64Array
    protocol: Protocol
    n_videos: int
    n_truth: int
    n_detections: int
    n_ambiguous: int

    @property
    def per_tiou(self) -> Float64Array:
        """The mAP at each threshold, float64 (K,)."""
        return mean_over_classes(self.class_ap)

    @property
    def average(self) -> float:
        """The mean of ``per_tiou``."""
        return float(self.per_tiou.mean())

    def average_between(self, low: float, high: float) -> float:
        """Return the mean over the thresholds from ``low`` to ``high``, both included."""
        chosen = [low <= tiou <= high for tiou in self.tious]
        return float(self.per_tiou[chosen].mean())

    def table(self, class_names: Sequence[str] = ()) -> str:
        """Write the result for people, in percent; with class names, a line for each class."""
        width = max([7, *(len(name) for name in class_names)])
        head = "".join(f"{tiou:>7.2f}" for tiou in self.tious)
        counted = (
            f"{self.n_videos} videos, {self.n_truth} actions, {self.n_detections} detections, "
            f"{self.n_ambiguous} left out as ambiguous"
        )
        lines = [
            f"mAP in percent; times: {self.protocol}; {counted}",
            f"{'tIoU':<{width}}{head}   mean",
            f"{'mAP':<{width}}{_percents(self.per_tiou)}",
        ]
        named = zip(class_names, self.class_ap, strict=True) if class_names else ()
        lines.extend(f"{name:<{width}}{_percents(row)}" for name, row in named)
        return "\n".join(lines)


def _percents(values: Float64Array) -> str:
    """Write (K,) values and their mean in percent; NaN becomes a dash."""
    both = [*values.tolist(), float(values.mean())]
    return "".join(f"{'-':>7}" if math.isnan(value) else f"{100 * value:7.2f}" for value in both)


def mean_average_precision(
    truth: Truth,
    detections: Detections,
    n_classes: int,
    tious: Sequence[float] = THUMOS_TIOUS,
    protocol: Protocol = "seconds",
    grid: Grid = PUBLISHED_GRID,
    ambiguous: Sequence[tuple[str, Span]] = (),
) -> MapResult:
    """Measure mAP; every mAP of this project comes from here.

    Args:
        truth: The actions.
        detections: Detections of the same videos.
        n_classes: C.
        tious: K thresholds, in (0, 1].
        protocol: ``seconds`` compares exact times. ``snippet-rounded`` rounds all times to
            snippets first, as one family of published code does; an action may then lose all its
            length, and cannot be found.
        grid: The grid whose snippets times are rounded to.
        ambiguous: (video, interval) pairs; a detection that touches one counts neither as right
            nor as wrong. Intervals of videos that are not evaluated are passed over.
    """
    if not tious or min(tious) <= 0:
        raise ValueError(f"tious are {tuple(tious)}, wanted at least one, each > 0")
    kept = _without_ambiguous(truth, detections, ambiguous)
    n_ambiguous = len(detections) - len(kept)
    if protocol == "snippet-rounded":
        start, end = _rounded(truth, grid)
        truth = replace(truth, start_us=start, end_us=end)
        start, end = _rounded(kept, grid)
        kept = replace(kept, start_us=start, end_us=end)
    taken = assign(truth, kept, tious)
    return MapResult(
        tious=tuple(tious),
        class_ap=average_precisions(truth, kept, taken, n_classes),
        protocol=protocol,
        n_videos=len(truth.videos),
        n_truth=len(truth.video),
        n_detections=len(kept),
        n_ambiguous=n_ambiguous,
    )


def map_of(
    records: Sequence[VideoRecord],
    found: Mapping[str, Sequence[Proposal | ActionEvent]],
    n_classes: int,
) -> MapResult:
    """Measure mAP at tIoU .1 to .7, in exact seconds, of what was found in these videos.

    Args:
        records: The videos.
        found: Video → what was found in it.
        n_classes: C.

    Raises:
        DataError: Something was found in a video whose actions are not known.
    """
    truth = Truth.of(records)
    return mean_average_precision(truth, Detections.of(found, truth.videos), n_classes)


def _rounded(rows: Truth | Detections, grid: Grid) -> tuple[Int64Array, Int64Array]:
    """Round starts and ends to the nearest snippet index, int64 (N,) each.

    Halves go to the even one, as Python's ``round`` has it.
    """
    start = np.rint(rows.start_us / grid.stride_us).astype(np.int64)
    return start, np.rint(rows.end_us / grid.stride_us).astype(np.int64)


def _without_ambiguous(
    truth: Truth, detections: Detections, ambiguous: Sequence[tuple[str, Span]]
) -> Detections:
    numbers = {name: number for number, name in enumerate(truth.videos)}
    drop = np.zeros(len(detections), bool)
    for name, span in ambiguous:
        touches = (detections.start_us < span.end_us) & (detections.end_us > span.start_us)
        drop |= touches & (detections.video == numbers.get(name, -1))
    return detections.take(~drop)
