"""A teacher's scores → snippet targets of a second round; pure numpy."""

import numpy as np

from engine.types import FloatArray
from training.config import PseudoLabels

_FLAT = 1e-6  # a smaller spread between a bag's highest and lowest scores says nothing about where


def pseudo_targets(scores: FloatArray, tags: FloatArray, config: PseudoLabels) -> FloatArray:
    """Make the targets of one bag.

    Let p be the teacher's scores times the tags, smoothed over time by (1/4, 1/2, 1/4), and hi, lo
    the means of p's highest and lowest ``1 / share``. Then x = (p - lo) / (hi - lo), and the
    target is clip((x - low) / (high - low), 0, 1). Source: scenes.md section 3.

    Args:
        scores: float32 (T, C), T >= 1, in [0, 1].
        tags: float32 (C,), 1 where tagged.
        config: It says ``share``, ``low`` and ``high``.

    Returns:
        float32 (T, C) in [0, 1]. A class that is not tagged gets 0. A tagged class whose scores
        are flat gets 1/2 throughout, because it happens and nobody knows where.
    """
    smooth = smoothed(scores * tags)
    ordered = np.sort(smooth, axis=0)
    k = max(1, len(smooth) // config.share)
    low, high = ordered[:k].mean(axis=0), ordered[-k:].mean(axis=0)
    spread = high - low
    middle = (config.low + config.high) / 2
    relative = np.where(spread > _FLAT, (smooth - low) / np.maximum(spread, _FLAT), middle)
    targets = np.clip((relative - config.low) / (config.high - config.low), 0, 1)
    return np.asarray(targets * tags, np.float32)


def smoothed(values: FloatArray) -> FloatArray:
    """Smooth (T, C) over time by (1/4, 1/2, 1/4); the end values are repeated beyond the ends."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, np.float32)
