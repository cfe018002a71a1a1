"""Clicks and a teacher's scores → where each clicked action begins and ends; pure numpy."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from engine.types import BoolArray, FloatArray
from training.learning.pseudo_labels import smoothed

_FLAT = 1e-6  # a smaller spread of scores says nothing about where


def with_points(
    targets: FloatArray, scores: FloatArray, points: BoolArray, *, share: int, level: float
) -> FloatArray:
    """Put grown segments in the place of the targets of classes that were clicked.

    Args:
        targets: float32 (T, C), of a round that knows only tags.
        scores: float32 (T, C), the teacher's.
        points: bool (T, C), true where clicked.
        share: As of ``grown_segments``.
        level: As of ``grown_segments``.

    Returns:
        float32 (T, C): of a clicked class 1 inside its segments and 0 elsewhere.
    """
    grown = targets.copy()
    for class_index in np.flatnonzero(points.any(axis=0)).tolist():
        clicks = np.flatnonzero(points[:, class_index]).tolist()
        grown[:, class_index] = 0
        for start, stop in grown_segments(scores[:, class_index], clicks, share, level):
            grown[start:stop, class_index] = 1
    return grown


def grown_segments(
    scores: FloatArray, clicks: Sequence[int], share: int, level: float
) -> list[tuple[int, int]]:
    """Grow every click of a class to the segment around it.

    Scores are smoothed. Two neighbouring clicks part where the score between them is lowest. In
    each part 0 is the mean of the lowest ``1 / share`` of all scores and 1 that of the highest of
    the part's own, so that a weak action grows as far as a strong one; the segment is what lies
    around the click above ``level``, or above the click's own score if that is lower.

    Args:
        scores: float32 (T,), the teacher's.
        clicks: Positions in [0, T), rising.
        share: Of the scores that are taken for the lowest and the highest, one of so many.
        level: In [0, 1].

    Returns:
        First position and the one after the last, for each click.

    Source: pseudo segments grown from points, as in Zhang et al., HR-Pro (AAAI 2024), without its
    proposals' own network.
    """
    smooth = smoothed(scores[:, None])[:, 0]
    lowest = float(np.sort(smooth)[: max(1, len(smooth) // share)].mean())
    cuts = [last - int(smooth[last:first:-1].argmin()) for first, last in pairwise(clicks)]
    segments = []
    for click, start, stop in zip(clicks, [0, *cuts], [*cuts, len(scores)], strict=True):
        own = np.sort(smooth[start:stop])
        spread = max(float(own[-max(1, len(own) // share) :].mean()) - lowest, _FLAT)
        bar = lowest + spread * level
        is_in = smooth >= min(bar, float(smooth[click]))
        before = np.flatnonzero(~is_in[start:click])
        after = np.flatnonzero(~is_in[click:stop])
        first = start + int(before[-1]) + 1 if len(before) else start
        segments.append((first, click + int(after[0]) if len(after) else stop))
    return segments
