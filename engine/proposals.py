"""Class scores → scored intervals: level sets at many thresholds, OIC score. Pure.

A *curve* is one class's scores interpolated to cells of ``step_us``; cell ``j`` covers
``[start_us + j * step_us, start_us + (j + 1) * step_us)``.
"""

import math
from dataclasses import dataclass

import numpy as np

from engine.grid import Grid, exact_div
from engine.scores import ScoredSnippets
from engine.spec import ProposalSpec
from engine.tiou import soft_nms
from engine.types import Float64Array, Int64Array, Proposal, Span

# The video score of a class is the mean of the highest 1 / TOP_SHARE of its cells (top-k mean).
TOP_SHARE = 16


@dataclass(frozen=True, slots=True)
class Curve:
    """One class's interpolated scores.

    Attributes:
        start_us: Stream time where cell 0 begins.
        step_us: Length of a cell.
        values: float64 (n_cells,).
    """

    start_us: int
    step_us: int
    values: Float64Array

    @property
    def end_us(self) -> int:
        """Stream time where the last cell ends."""
        return self.start_us + len(self.values) * self.step_us


def curve_of(track: ScoredSnippets, class_index: int, grid: Grid, step_us: int) -> Curve:
    """Interpolate one class's snippet scores linearly between snippet centres.

    Before the first and after the last centre the score is held, so the curve covers exactly what
    the snippets cover.
    """
    start_us = grid.snippet_start_us(track.first_index)
    length_us = grid.snippet_end_us(track.end_index - 1) - start_us
    n_cells = exact_div(length_us, step_us, "curve length in interpolation steps")
    centres_us = np.arange(len(track.scores)) * grid.stride_us + grid.snippet_us / 2
    cells_us = (np.arange(n_cells) + 0.5) * step_us
    values = np.interp(cells_us, centres_us, track.scores[:, class_index].astype(np.float64))
    return Curve(start_us, step_us, values)


def propose(
    curve: Curve, class_index: int, spec: ProposalSpec, least_score: float = -math.inf
) -> list[Proposal]:
    """Every interval over which the curve stays at or above some level, with its OIC score.

    Args:
        curve: The curve.
        class_index: Of which class it is.
        spec: Levels, and how intervals are scored.
        least_score: Leave out what scores less.

    Returns:
        Unranked, each interval once; none if the curve's peak is below ``spec.min_peak``.
    """
    peak = float(curve.values.max(initial=0.0))
    if peak < spec.min_peak or peak <= 0 or _most_of(peak, spec) < least_score:
        return []
    runs = _level_sets(curve.values, _levels(spec, peak))
    runs = runs[(runs[:, 1] - runs[:, 0]) * curve.step_us >= spec.min_us]
    scores = oic_scores(curve.values, runs, spec)
    kept = scores >= least_score
    return [
        Proposal(
            class_index,
            Span(
                curve.start_us + first * curve.step_us,
                curve.start_us + end * curve.step_us,
            ),
            score,
        )
        for (first, end), score in zip(runs[kept].tolist(), scores[kept].tolist(), strict=True)
    ]


def localize_whole_video(
    track: ScoredSnippets, class_index: int, grid: Grid, spec: ProposalSpec
) -> list[Proposal]:
    """The whole-video answer for one class: proposals after soft-NMS, best first."""
    curve = curve_of(track, class_index, grid, spec.step_us)
    return soft_nms(propose(curve, class_index, spec), spec.soft_nms_sigma, min_score=1e-3)


def oic_scores(values: Float64Array, runs: Int64Array, spec: ProposalSpec) -> Float64Array:
    """How much each interval stands out from its surroundings.

    Mean inside, minus ``outer_weight`` times the mean of a margin on either side (0 where there is
    no margin), plus ``video_weight`` times the mean inside times the mean of the curve's highest
    1/16 of cells.

    Args:
        values: float64 (n_cells,).
        runs: int64 (N, 2), half-open intervals of cells inside [0, n_cells).
        spec: Weights and the margin's width.

    Returns:
        float64 (N,), a score for each interval.

    Source: Shou et al., AutoLoc (ECCV 2018), outer-inner-contrastive loss, used as a score.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first, end = runs[:, 0], runs[:, 1]
    margin = np.maximum(1, np.rint((end - first) * spec.outer_ratio).astype(np.int64))
    outer_first = np.maximum(first - margin, 0)
    outer_end = np.minimum(end + margin, len(values))
    inside = (sums[end] - sums[first]) / (end - first)
    n_outside = (outer_end - outer_first) - (end - first)
    outside_sum = (sums[outer_end] - sums[outer_first]) - (sums[end] - sums[first])
    outside = outside_sum / np.maximum(n_outside, 1)  # 0 / 1 where nothing lies outside
    scores = inside - spec.outer_weight * outside
    return np.asarray(scores + spec.video_weight * inside * _top_mean(values), np.float64)


def _top_mean(values: Float64Array) -> float:  # of (n_cells,)
    k = max(1, len(values) // TOP_SHARE)
    return float(np.partition(values, len(values) - k)[-k:].mean())


def _most_of(peak: float, spec: ProposalSpec) -> float:
    """No interval of a curve with this peak scores more, for scores are not negative.

    The last factor makes room for how sums are rounded.
    """
    return (peak + spec.video_weight * peak * peak) * (1 + 1e-9)


def _levels(spec: ProposalSpec, peak: float) -> list[float]:
    relative = [share * peak for share in spec.relative_levels]
    return sorted({level for level in (*spec.absolute_levels, *relative) if level <= peak})


def _level_sets(values: Float64Array, levels: list[float]) -> Int64Array:
    """The distinct longest intervals of cells at or above each level, int64 (N, 2).

    ``values`` are float64 (n_cells,).
    """
    if not levels:
        return np.zeros((0, 2), np.int64)
    above = values[None, :] >= np.array(levels)[:, None]  # (levels, cells)
    padded = np.zeros((len(levels), len(values) + 2), np.int8)
    padded[:, 1:-1] = above
    edges = np.diff(padded, axis=1)
    first, end = (edges == 1).nonzero()[1], (edges == -1).nonzero()[1]
    # One number for each interval: finding equal rows takes numpy five times as long.
    size = len(values) + 1
    return np.stack(divmod(np.unique(first * size + end), size), axis=1)
