"""A teacher's scores → frame targets of a second round; pure numpy."""

import numpy as np

from engine.types import FloatArray
from training.config import PseudoLabels

_FLAT = 1e-6  # between the highest and lowest sixth; less says nothing about where


def pseudo_targets(scores: FloatArray, tags: FloatArray, config: PseudoLabels) -> FloatArray:
    """Targets of one bag.

    With p the teacher's scores times the tags, smoothed over time by (1/4, 1/2, 1/4), and hi, lo
    the means of p's highest and lowest ``1 / share``: x = (p - lo) / (hi - lo), target =
    clip((x - low) / (high - low), 0, 1). Source: scenes.md section 3.

    Args:
        scores: float32 (T, C), T >= 1, in [0, 1].
        tags: float32 (C,), 1 where tagged.
        config: The parameters.

    Returns:
        float32 (T, C). 0 for classes that are not tagged; 1/2 throughout for a tagged class whose
        scores are flat: it happens, and nobody knows where.
    """
    smooth = _smoothed(scores * tags)
    ordered = np.sort(smooth, axis=0)
    k = max(1, len(smooth) // config.share)
    low, high = ordered[:k].mean(axis=0), ordered[-k:].mean(axis=0)
    spread = high - low
    middle = (config.low + config.high) / 2
    relative = np.where(spread > _FLAT, (smooth - low) / np.maximum(spread, _FLAT), middle)
    targets = np.clip((relative - config.low) / (config.high - config.low), 0, 1)
    return np.asarray(targets * tags, np.float32)


def _smoothed(values: FloatArray) -> FloatArray:
    """Over time by (1/4, 1/2, 1/4); the first and last value are repeated beyond the ends."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, np.float32)
