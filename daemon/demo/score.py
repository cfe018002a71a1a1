"""Reported events held against what is known to have happened. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from engine.judging.histories import History, histories
from engine.judging.pairing import FOUND_TIOU, best_pairs
from engine.judging.truth import TruthSpan
from engine.types import ActionEvent


@dataclass(frozen=True, slots=True)
class Found:
    """An action, the event that reported it, and the tIoU of the two."""

    truth: TruthSpan[str]
    event: History
    tiou: float

    @property
    def open_delay_us(self) -> int:
        """Time from the action's start to the footage on which its event opened."""
        return self.event.opening_delay_us(self.truth.span)

    @property
    def final_delay_us(self) -> int | None:
        """From the action's end to the last word's footage; None if the stream's end forced it."""
        return self.event.final_delay_us(self.truth.span)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of every action and of every event.

    Attributes:
        found: Pairs, by the action's start.
        missed: Actions without an event.
        false: Standing events without an action.
        n_taken_back: Events retracted; they count neither way.
    """

    found: tuple[Found, ...]
    missed: tuple[TruthSpan[str], ...]
    false: tuple[History, ...]
    n_taken_back: int

    @property
    def n_truth(self) -> int:
        """How many actions there were."""
        return len(self.found) + len(self.missed)

    @property
    def recall(self) -> float | None:
        """Share of the actions that were found; None without actions."""
        return _share(len(self.found), len(self.missed))

    @property
    def precision(self) -> float | None:
        """Share of the events that were right; None without events."""
        return _share(len(self.found), len(self.false))

    @property
    def open_delay_s(self) -> float | None:
        """Median of the opening delays of all that was found, in seconds."""
        return _median_s([pair.open_delay_us for pair in self.found])

    @property
    def final_delay_s(self) -> float | None:
        """Median of the final delays, in seconds, of what was settled before the footage ended."""
        delays = [pair.final_delay_us for pair in self.found]
        return _median_s([delay for delay in delays if delay is not None])


def compare(truth: Sequence[TruthSpan[str]], revisions: Iterable[ActionEvent]) -> Comparison:
    """Pair actions and events one to one: same class, tIoU >= ``FOUND_TIOU``, best pairs first.

    Args:
        truth: Everything that happened.
        revisions: Of one stream, all revisions.
    """
    events = sorted(histories(revisions), key=lambda one: one.place)
    standing = [event for event in events if event.is_kept]
    pairs = best_pairs(
        [(action.class_id, action.span) for action in truth],
        [(event.last.class_name, event.last.span) for event in standing],
        FOUND_TIOU,
    )
    found = [Found(truth[pair.first], standing[pair.second], pair.tiou) for pair in pairs]
    seen, right = {pair.first for pair in pairs}, {pair.second for pair in pairs}
    return Comparison(
        found=tuple(sorted(found, key=lambda pair: pair.truth.span)),
        missed=tuple(one for row, one in enumerate(truth) if row not in seen),
        false=tuple(one for row, one in enumerate(standing) if row not in right),
        n_taken_back=len(events) - len(standing),
    )


def total(parts: Sequence[Comparison]) -> Comparison:
    """All of them as one."""
    return Comparison(
        found=tuple(one for part in parts for one in part.found),
        missed=tuple(one for part in parts for one in part.missed),
        false=tuple(one for part in parts for one in part.false),
        n_taken_back=sum(part.n_taken_back for part in parts),
    )


def _share(n_right: int, n_wrong: int) -> float | None:
    return n_right / (n_right + n_wrong) if n_right + n_wrong else None


def _median_s(values_us: Sequence[int]) -> float | None:
    return median(values_us) / 1e6 if values_us else None
