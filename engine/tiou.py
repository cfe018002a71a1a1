"""Temporal intersection over union and non-maximum suppression; the one implementation.

Exact in microseconds: half-open spans, no ``+ 1`` (the pixel convention, which moves tIoU for
short actions). Each measure stands twice, for two spans and for rows of intervals; both give the
same number to the last bit.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.types import Float64Array, Int64Array, Proposal, Span


class Intervals(NamedTuple):
    """Half-open intervals as columns, int64 (N,) each; one may be empty, as no ``Span`` can be."""

    start_us: Int64Array
    end_us: Int64Array


def overlap_us(first: Span, second: Span) -> int:
    """Length of the intersection, 0 if disjoint."""
    return max(0, min(first.end_us, second.end_us) - max(first.start_us, second.start_us))


def overlaps_us(first: Intervals, second: Intervals | Span) -> Int64Array:
    """``overlap_us`` of each row, int64 (N,)."""
    ends = np.minimum(first.end_us, second.end_us)
    shared = ends - np.maximum(first.start_us, second.start_us)
    return np.asarray(np.maximum(shared, 0), np.int64)


def tiou(first: Span, second: Span) -> float:
    """Temporal intersection over union, in [0, 1]; 1 iff equal, 0 iff disjoint."""
    shared = overlap_us(first, second)
    return shared / (first.duration_us + second.duration_us - shared)


def tious(first: Intervals, second: Intervals | Span) -> Float64Array:
    """``tiou`` of each row, float64 (N,); 0 where both are empty."""
    shared = overlaps_us(first, second)
    lengths = (first.end_us - first.start_us) + (second.end_us - second.start_us)
    return np.asarray(shared / np.maximum(lengths - shared, 1), np.float64)


def cover(inner: Span, outer: Span) -> float:
    """Share of ``inner`` that lies in ``outer``, in [0, 1]."""
    return overlap_us(inner, outer) / inner.duration_us


def covers(inner: Intervals, outer: Intervals | Span) -> Float64Array:
    """``cover`` of each row, float64 (N,); no interval of ``inner`` is empty."""
    return np.asarray(overlaps_us(inner, outer) / (inner.end_us - inner.start_us), np.float64)


def _rank(proposal: Proposal) -> tuple[float, int, int]:
    """Best first; ties by start, then end, so that the order is always the same."""
    return (-proposal.score, proposal.span.start_us, proposal.span.end_us)


def ranked(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Proposals from best to worst, in one deterministic order."""
    return sorted(proposals, key=_rank)


def soft_nms(proposals: Sequence[Proposal], sigma: float, min_score: float) -> list[Proposal]:
    """Gaussian soft-NMS of one class: overlapping proposals lose score instead of their place.

    Every proposal's score is multiplied by ``exp(-tiou^2 / sigma)`` for each better one kept.

    Args:
        proposals: Of one class.
        sigma: Width of the decay, > 0.
        min_score: Proposals that fall below this are dropped.

    Returns:
        Best first, with decayed scores.

    Source: Bodla et al., Soft-NMS (ICCV 2017), equation 3.
    """
    pool = ranked(proposals)
    spans = Intervals(
        np.array([proposal.span.start_us for proposal in pool], np.int64),
        np.array([proposal.span.end_us for proposal in pool], np.int64),
    )
    scores = np.array([proposal.score for proposal in pool], np.float64)
    waiting = np.ones(len(pool), bool)
    kept = []
    while waiting.any():
        # argmax takes the first of equals, which `ranked` put in a fixed order.
        best = int(np.argmax(np.where(waiting, scores, -math.inf)))
        if scores[best] < min_score:
            break
        waiting[best] = False
        kept.append(Proposal(pool[best].class_index, pool[best].span, float(scores[best])))
        overlap = tious(spans, pool[best].span)
        scores = np.where(waiting & (scores > 0), scores * np.exp(-(overlap**2) / sigma), scores)
    return kept
