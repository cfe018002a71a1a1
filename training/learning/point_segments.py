"""Clicks and a teacher's scores → where each clicked action begins and ends; pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.proposals import oic_scores
from engine.types import BoolArray, Float64Array, FloatArray, Int64Array
from training.live_defaults import PROPOSALS

# How much a segment stands out from its own surroundings, whatever else happens in the video.
_CONTRAST = replace(PROPOSALS, video_weight=0.0)


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where the segment of one click may end, and how good the segments up to it are at best.

    Attributes:
        stops: int64 (E,), rising, half-open.
        worths: float64 (E,), sum over this click's segment and those of the clicks before it.
        starts: int64 (E,), of this click's segment.
        before: int64 (E,), the row of the previous click's end; -1 of the first.
    """

    stops: Int64Array
    worths: Float64Array
    starts: Int64Array
    before: Int64Array


def with_points(targets: FloatArray, scores: FloatArray, points: BoolArray) -> FloatArray:
    """Put grown segments in the place of the targets of classes that were clicked.

    Args:
        targets: float32 (T, C), of a round that knows only tags.
        scores: float32 (T, C) in [0, 1], the teacher's.
        points: bool (T, C), true where clicked.

    Returns:
        float32 (T, C): of a clicked class 1 inside its segments and 0 elsewhere.
    """
    grown = targets.copy()
    for class_index in np.flatnonzero(points.any(axis=0)).tolist():
        clicks = np.flatnonzero(points[:, class_index]).tolist()
        grown[:, class_index] = 0
        for start, stop in grown_segments(scores[:, class_index], clicks):
            grown[start:stop, class_index] = 1
    return grown


def grown_segments(scores: FloatArray, clicks: Sequence[int]) -> list[tuple[int, int]]:
    """Grow every click of a class to the segment around it, all of them at once.

    A segment holds its own click and no other, and a position lies between two segments unless
    their clicks are neighbours. Of all choices it is the one with the greatest sum of outer-inner
    contrasts, by which proposals are scored too.

    Args:
        scores: float32 (T,) in [0, 1].
        clicks: Positions in [0, T), rising.

    Returns:
        First position and the one after the last, for each click.

    Source: the search for the best sequence in Lee, Byun, Learning Action Completeness from
    Points (ICCV 2021), solved exactly by dynamic programming.
    """
    values = scores.astype(np.float64)
    found: list[_Ends] = []
    for number, click in enumerate(clicks):
        before = clicks[number - 1] if number else -1
        after = clicks[number + 1] if number + 1 < len(clicks) else len(scores)
        apart = int(click - before > 1)
        found.append(_ends(values, (before, click, after), found[-1] if found else None, apart))
    segments: list[tuple[int, int]] = []
    row = int(found[-1].worths.argmax()) if found else -1
    for ends in reversed(found):
        segments.append((int(ends.starts[row]), int(ends.stops[row])))
        row = int(ends.before[row])
    return segments[::-1]


def _ends(
    values: Float64Array, bounds: tuple[int, int, int], previous: _Ends | None, apart: int
) -> _Ends:
    """Find the best start for each end of the click at ``bounds[1]``, between its neighbours.

    Args:
        values: float64 (T,).
        bounds: Positions of the click before, of this one, and of the next; -1 and T if none.
        previous: The ends of the click before.
        apart: How many positions lie at least between two segments.
    """
    before, click, after = bounds
    stops = np.arange(click + 1, after + 1)
    worths = np.full(len(stops), -np.inf)
    starts, rows = np.full(len(stops), click), np.full(len(stops), -1)
    for start in range(before + 1, click + 1):
        row, already = -1, 0.0
        if previous is not None:
            n_open = int(np.searchsorted(previous.stops, start - apart, "right"))
            if not n_open:
                continue  # nothing of the click before would be left
            row = int(previous.worths[:n_open].argmax())
            already = float(previous.worths[row])
        runs = np.stack([np.full(len(stops), start), stops], axis=1)
        here = already + oic_scores(values, runs, _CONTRAST)
        better = here > worths
        worths[better], starts[better], rows[better] = here[better], start, row
    return _Ends(stops, worths, starts, rows)
