"""Which differences of mAP are real: both sides measured again on resampled videos and seeds.

W resamples, V videos, S seeds, N detections, K thresholds of tIoU, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.types import Float64Array
from training.evaluation.average_precision import THUMOS_TIOUS, mean_over_classes
from training.evaluation.matching import Detections, Truth, assign

_AT_ONCE = 64  # resamples: bounds the memory
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """What one side has more than the other, in points of mAP.

    Attributes:
        mean: As measured.
        low: Lower end of the interval that holds 95 % of the resampled differences.
        high: Its upper end.
        p: Share of resamples on the other side of 0, doubled: how easily chance alone of videos
            and seeds would turn the sign.
    """

    mean: float
    low: float
    high: float
    p: float


def draws_of_videos(n_videos: int, n_resamples: int, seed: int) -> Float64Array:
    """How often each video is drawn in each resample, float64 (W, V); every row sums to V."""
    rng = np.random.default_rng([seed, n_videos])
    equal = np.full(n_videos, 1 / n_videos)
    return rng.multinomial(n_videos, equal, n_resamples).astype(np.float64)


def resampled_maps(
    truth: Truth,
    detections: Detections,
    n_classes: int,
    draws: Float64Array,
    tious: Sequence[float] = THUMOS_TIOUS,
) -> Float64Array:
    """Measure mAP once for each resample; a video that was drawn twice counts as two.

    Which detection is which action is decided within a video, so it is decided only once.

    Args:
        truth: The actions.
        detections: Detections of the same videos.
        n_classes: C.
        draws: float64 (W, V), how often each video counts.
        tious: K thresholds.

    Returns:
        float64 (W,), the mean over classes and thresholds, in [0, 1]. A class that has no action
        in a resample does not count in it.
    """
    taken = assign(truth, detections, tious)  # (K, N)
    order = detections.ranking()
    parts = [draws[at : at + _AT_ONCE] for at in range(0, len(draws), _AT_ONCE)]
    means = []
    for part in parts:
        values = np.full((n_classes, len(part), len(tious)), np.nan)
        for class_index in np.unique(truth.class_index).tolist():
            own = order[detections.class_index[order] == class_index]
            n_actions = part[:, truth.video[truth.class_index == class_index]].sum(axis=1)  # (W,)
            counts = part[:, detections.video[own]]  # (W, n)
            found = _weighed_ap(taken[:, own] >= 0, counts)  # (W, K)
            held = n_actions > 0
            values[class_index, held] = found[held] / n_actions[held, None]
        means.append(_means(values))
    return np.concatenate(means)


def _weighed_ap(hits: np.ndarray, counts: Float64Array) -> Float64Array:
    """Sum precision over the hits, best first; hits are bool (K, n), counts (W, n): (W, K).

    Precision falls between hits, so that its envelope is decided at the hits alone.
    """
    seen = np.maximum(np.cumsum(counts, axis=1), 1)  # (W, n)
    sums = np.zeros((len(counts), len(hits)))
    for threshold, row in enumerate(hits):
        at = np.flatnonzero(row)
        weights = counts[:, at]  # (W, hits)
        precision = np.cumsum(weights, axis=1) / seen[:, at]
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        sums[:, threshold] = (envelope * weights).sum(axis=1)
    return sums


def _means(values: Float64Array) -> Float64Array:
    """Average (C, W, K) over classes that are there and over thresholds: (W,)."""
    return np.array([mean_over_classes(rows).mean() for rows in values.swapaxes(0, 1)])


def difference(
    first: Float64Array, second: Float64Array, measured: float, seed: int = 0
) -> Difference:
    """Compare two sides whose resamples were drawn alike.

    Args:
        first: float64 (S, W), each seed's mAP on each resample of the videos.
        second: The other side's, of as many seeds or of others.
        measured: Mean of the first minus that of the second, on the videos as they are.
        seed: Seed of the resampling of seeds.
    """
    rng = np.random.default_rng([seed, len(first), len(second)])
    apart = 100 * (_over_seeds(first, rng) - _over_seeds(second, rng))  # (W,)
    low, high = np.percentile(apart, (100 * _LEVEL / 2, 100 * (1 - _LEVEL / 2))).tolist()
    beyond = min(float((apart <= 0).mean()), float((apart >= 0).mean()))
    # No more can be said than the number of resamples allows.
    return Difference(100 * measured, low, high, min(1.0, max(2 * beyond, 1 / len(apart))))


def _over_seeds(maps: Float64Array, rng: np.random.Generator) -> Float64Array:
    """Average (S, W) to (W,), over seeds drawn anew for each resample."""
    chosen = rng.integers(len(maps), size=maps.shape)  # (S, W)
    return np.asarray(np.take_along_axis(maps, chosen, axis=0).mean(axis=0), np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Raise p-values that were looked at together, so that one in twenty *tables* errs.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    raised, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        raised[index] = highest
    return raised
