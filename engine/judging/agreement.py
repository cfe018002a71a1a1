"""Do two models see the same events? They are matched one to one by class and overlap. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.judging.pairing import SAME_TIOU, best_pairs
from engine.types import Span


class Located(Protocol):
    """A proposal or an event: a class and an interval of one video."""

    @property
    def class_index(self) -> int:
        """Class index."""

    @property
    def span(self) -> Span:
        """Stream time."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Events of a reference and a candidate, matched one to one.

    Attributes:
        n_reference: Events of the reference.
        n_candidate: Events of the candidate.
        n_matched: Pairs of the same class with a tIoU of at least ``SAME_TIOU``.
        mean_tiou: Of the pairs, in [0.5, 1]; 0 where there are events and no pair, 1 where
            neither side has an event.
    """

    n_reference: int
    n_candidate: int
    n_matched: int
    mean_tiou: float

    @property
    def proves_nothing(self) -> bool:
        """Neither side has an event, so that they agree says nothing about either."""
        return self.n_reference + self.n_candidate == 0

    @property
    def f1(self) -> float:
        """F1 of the matches, in [0, 1]; 1 where neither side has an event."""
        total = self.n_reference + self.n_candidate
        return 2 * self.n_matched / total if total else 1.0

    @property
    def may_be_chance(self) -> bool:
        """One event is without a partner and others are not: near its threshold, any may flip."""
        n_alone = self.n_reference + self.n_candidate - 2 * self.n_matched
        return n_alone == 1 and self.n_matched > 0

    @property
    def text(self) -> str:
        """One line for people."""
        counts = f"{self.n_reference} of the reference, {self.n_candidate} of the candidate"
        if self.proves_nothing:
            return f"events: {counts}: with none on either side, that they agree proves nothing"
        means = f"F1 {self.f1:.3f}, mean tIoU {self.mean_tiou:.3f}"
        return f"events: {counts}, {self.n_matched} match: {means}"


def agreement(videos: Iterable[tuple[Sequence[Located], Sequence[Located]]]) -> Agreement:
    """Compare the events of whole videos.

    Args:
        videos: The reference's and the candidate's events of each; events of different videos
            never match.
    """
    n_reference = n_candidate = 0
    overlaps: list[float] = []
    for reference, candidate in videos:
        n_reference += len(reference)
        n_candidate += len(candidate)
        pairs = best_pairs(_places(reference), _places(candidate), SAME_TIOU)
        overlaps.extend(pair.tiou for pair in pairs)
    without = 0.0 if n_reference + n_candidate else 1.0
    mean_tiou = float(np.mean(overlaps)) if overlaps else without
    return Agreement(n_reference, n_candidate, len(overlaps), mean_tiou)


def _places(events: Sequence[Located]) -> list[tuple[int, Span]]:
    return [(event.class_index, event.span) for event in events]
