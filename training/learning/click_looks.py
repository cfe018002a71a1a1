"""What clicked snippets look like → scores that lean towards it; pure numpy.

A network that knows only tags takes for an action whatever is seen in no other clip, such as the
person who lies there after a fall. Nobody clicks on that. So of the snippets that may belong to a
class, those that look like the clicked ones belong to it more surely than the others.

T: rows of a clip; D: feature dimensions; C: classes.
"""

from collections.abc import Sequence

import numpy as np

from engine.types import BoolArray, FloatArray
from training.config import Points
from training.learning.point_segments import grown_segments

_FLAT = 1e-6  # a smaller spread says nothing
_FEWEST_ROWS = 3  # in a shorter segment a click has no place to speak of
_FEWEST_CLICKS = 20  # of fewer the places' variance is left to chance

Clicked = tuple[int, int, int, int]  # a clip, its clicked row, the segment's first and end row


def leaning_scores(
    scores: Sequence[FloatArray],
    features: Sequence[FloatArray],
    means: Sequence[FloatArray],
    points: Sequence[BoolArray | None],
    share: int,
    config: Points,
) -> list[FloatArray]:
    """Let a teacher's scores lean towards what looks like clicked snippets.

    Every click of a class is grown to the widest segment that may be of it, at ``reach``. In all
    these segments let m and v be each dimension's mean and variance, and k the mean of the clicked
    rows. Then f = sum over D of (x - m) (k - m) / v says how much a row x looks like the clicked
    ones rather than the others, and the score s becomes

        max(0, s + lean * h^2 * s_max * f / std(f))

    within the segments, s_max being the mean of their highest scores. h = 12 var(u), at most 1,
    u being the clicks' places in their segments from 0 to 1: 1 if people click anywhere, less if
    they keep to the middle, where what is not clicked may well be of the action.

    Args:
        scores: float32 (T, C) of each clip, in [0, 1].
        features: float32 (T, D) of each clip.
        means: float32 (D,) of each clip: its camera's mean, which is subtracted first.
        points: bool (T, C) of each clip, true where clicked, or None.
        share: As of ``grown_segments``.
        config: It says ``lean`` and ``reach``.

    Returns:
        float32 (T, C) of each clip, 0 or more; those of classes without clicks as they were.

    Source: a linear discriminant with diagonal variances between clicked and unlabelled snippets,
    after Elkan, Noto, Learning classifiers from only positive and unlabeled data (KDD 2008).
    """
    found = _segments(scores, points, share, config.reach)
    weight = config.lean * _evenness([one for clicked in found.values() for one in clicked])
    if not weight:
        return list(scores)
    leant = [curves.copy() for curves in scores]
    for class_index, clicked in found.items():
        likeness = _likeness([features[n][i:j] - means[n] for n, _, i, j in clicked], clicked)
        height = np.mean([scores[n][i:j, class_index].max() for n, _, i, j in clicked])
        for (n, _, first, stop), like in zip(clicked, likeness, strict=True):
            moved = scores[n][first:stop, class_index] + weight * height * like
            leant[n][first:stop, class_index] = np.maximum(moved, 0)
    return leant


def spread_of_clicks(
    scores: Sequence[FloatArray],
    points: Sequence[BoolArray | None],
    share: int,
    reach: float,
) -> float | None:
    """Measure whether clicks lie all over their actions: h^2, as of ``leaning_scores``.

    Args:
        scores: float32 (T, C) of each clip, in [0, 1].
        points: bool (T, C) of each clip, true where clicked, or None.
        share: As of ``grown_segments``.
        reach: The level of the widest segments.

    Returns:
        A number in [0, 1], or None where there are too few clicks to tell.
    """
    found = _segments(scores, points, share, reach)
    clicked = [one for some in found.values() for one in some]
    return _evenness(clicked) if len(clicked) >= _FEWEST_CLICKS else None


def _segments(
    scores: Sequence[FloatArray], points: Sequence[BoolArray | None], share: int, reach: float
) -> dict[int, list[Clicked]]:
    """Grow every click to its widest segment; classes without clicks are not in it."""
    found: dict[int, list[Clicked]] = {}
    for n, (curves, clicked) in enumerate(zip(scores, points, strict=True)):
        if clicked is None:
            continue
        for class_index in np.flatnonzero(clicked.any(axis=0)).tolist():
            rows = np.flatnonzero(clicked[:, class_index]).tolist()
            grown = grown_segments(curves[:, class_index], rows, share, reach)
            found.setdefault(class_index, []).extend(
                (n, row, *segment) for row, segment in zip(rows, grown, strict=True)
            )
    return found


def _evenness(clicked: Sequence[Clicked]) -> float:
    """Return h^2, in [0, 1]."""
    places = [
        (row + 0.5 - first) / (stop - first)
        for _, row, first, stop in clicked
        if stop - first >= _FEWEST_ROWS
    ]
    return min(1.0, 12 * float(np.var(places))) ** 2 if places else 0.0


def _likeness(looks: Sequence[FloatArray], clicked: Sequence[Clicked]) -> list[FloatArray]:
    """Return f / std(f) of every segment's rows, whose features are float32 (rows, D)."""
    rows = np.concatenate(looks)
    mean, variance = rows.mean(axis=0), rows.var(axis=0) + _FLAT
    pairs = zip(looks, clicked, strict=True)
    shown = np.mean([look[row - first] for look, (_, row, first, _) in pairs], axis=0)
    direction = (shown - mean) / variance
    spread = max(float(((rows - mean) @ direction).std()), _FLAT)
    return [(look - mean) @ direction / spread for look in looks]
