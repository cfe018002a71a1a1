"""Which of these is which of those: one to one, greedily. The one matcher. Pure.

Pairs are made one after the other, as long as both sides are free; in which order is the law, and
there are two. Events are paired best overlap first (``best_pairs``): neither side chooses, so they
may be exchanged. For mAP, detections choose by falling score (``assign`` in
``training.evaluation.matching``), even if another one overlaps the action better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.judging.truth import ClassId
from engine.tiou import tiou
from engine.types import Int64Array, Span

FOUND_TIOU = 0.3  # an event that overlaps an action by this much has found it
SAME_TIOU = 0.5  # events of two models that overlap by this much are the same one


@dataclass(frozen=True, slots=True)
class Pair:
    """Row ``first`` of one side is row ``second`` of the other."""

    first: int
    second: int
    tiou: float


def greedy(first: Int64Array, second: Int64Array) -> Int64Array:
    """Which pairs are made if each is, in turn, whose sides are both still free.

    Every first side asks for the second one of its earliest pair; who is asked keeps the earliest
    asker, and the others ask for their next. This is deferred acceptance (Gale and Shapley 1962).
    As both sides would rather have an earlier pair, it has one stable answer: what trying the
    pairs in turn gives.

    Args:
        first: int64 (P,), >= 0, one side of each possible pair, in the order of their turns.
        second: int64 (P,), >= 0, the other side.

    Returns:
        int64, rows of the pairs made, rising.
    """
    turns = np.argsort(first, kind="stable")
    askers, asked = first[turns], second[turns]
    at = np.unique(askers, return_index=True)[1]  # where in its pairs each first side asks
    end = np.append(at[1:], len(askers))
    while True:
        earliest = np.full(asked.max(initial=-1) + 1, len(turns))
        np.minimum.at(earliest, asked[at], turns[at])
        lost = earliest[asked[at]] != turns[at]
        if not lost.any():
            return np.sort(turns[at])
        at = at + lost
        at, end = at[at < end], end[at < end]


def best_pairs(
    first: Sequence[tuple[ClassId, Span]],
    second: Sequence[tuple[ClassId, Span]],
    least_tiou: float,
) -> list[Pair]:
    """Pairs of one class that overlap by at least ``least_tiou``, best first.

    Neither the order in which intervals come nor which side is called the first changes what
    overlaps are found. Equal overlaps go by class, then time.

    Args:
        first: Class and interval of each, all of one video.
        second: Those of the same video.
        least_tiou: In (0, 1].
    """
    found = [
        Pair(i, j, tiou(span, other_span))
        for i, (class_id, span) in enumerate(first)
        for j, (other_id, other_span) in enumerate(second)
        if class_id == other_id
    ]
    fitting = sorted(
        (pair for pair in found if pair.tiou >= least_tiou),
        key=lambda pair: (-pair.tiou, first[pair.first], second[pair.second]),
    )
    rows = np.array([(pair.first, pair.second) for pair in fitting], np.int64).reshape(-1, 2)
    return [fitting[row] for row in greedy(*rows.T)]
