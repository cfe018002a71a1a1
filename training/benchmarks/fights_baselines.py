"""What needs no network: scene cuts, how well a score ranks.

N: pictures of a video, or scored things.
"""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.types import Float64Array, FloatArray, Int64Array, Span
from engine.video.frames import read_video
from training.benchmarks.fights import GEOMETRY, GRID

BoolArray = npt.NDArray[np.bool_]

_BLOCK_PX = 8  # pictures are compared by the means of blocks
# A cut is a difference above a ratio to the median of those around it, and above a least value,
# 0..255; the reach is in pictures on either side. All were set once, by what a cut is, and not on
# these clips.
_CUT_RATIO, _CUT_LEAST, _CUT_REACH = 4.0, 8.0, 12


def frame_differences(path: Path) -> Float64Array:
    """Measure how much each picture differs from the one before, float64 (N,) in 0..255.

    The first value is 0.
    """
    small: list[FloatArray] = []
    for batch in read_video(path, GEOMETRY, GRID):
        n, side = len(batch.rgb), GEOMETRY.crop_px // _BLOCK_PX
        grey = batch.rgb.astype(np.float32).mean(axis=3)
        small.append(grey.reshape(n, side, _BLOCK_PX, side, _BLOCK_PX).mean(axis=(2, 4)))
    pictures = np.concatenate(small)
    steps = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2))
    return np.concatenate([[0.0], steps]).astype(np.float64)


def cuts_of(differences: Float64Array) -> Int64Array:
    """Find pictures that begin a new scene, where far more changes than in the half second around.

    Differences float64 (N,) → picture numbers int64 (M,).
    """
    found = []
    for at in range(1, len(differences)):
        first, end = max(at - _CUT_REACH, 1), at + _CUT_REACH + 1
        others = np.delete(differences[first:end], at - first)
        usual = float(np.median(others)) if len(others) else 0.0
        is_peak = differences[at] >= differences[first:end].max()
        if is_peak and differences[at] > max(_CUT_LEAST, _CUT_RATIO * usual):
            found.append(at)
    return np.array(found, np.int64)


def segments_of(differences: Float64Array) -> list[Span]:
    """Divide a stream at its cuts; ``differences`` are float64 (N,), one for each picture."""
    edges = [0, *cuts_of(differences).tolist(), len(differences)]
    frame_us = GRID.frame_us
    return [Span(a * frame_us, b * frame_us) for a, b in itertools.pairwise(edges)]


def area_under_roc(scores: Float64Array, wanted: BoolArray) -> float:
    """Return the chance that something wanted scores above something else; ties count half.

    Args:
        scores: float64 (N,).
        wanted: bool (N,).
    """
    above = scores[wanted][:, None] - np.sort(scores[~wanted])[None, :]
    return float((np.sign(above) + 1).mean() / 2) if above.size else float("nan")


def average_precision(scores: Float64Array, wanted: BoolArray) -> float:
    """Return the mean precision at the wanted ones; of equal scores, all or none are taken.

    Args:
        scores: float64 (N,).
        wanted: bool (N,).
    """
    values, place = np.unique(-scores, return_inverse=True)
    hits = np.bincount(place, weights=wanted, minlength=len(values))
    precision = np.cumsum(hits) / np.cumsum(np.bincount(place, minlength=len(values)))
    return float((precision * hits).sum() / max(hits.sum(), 1))
