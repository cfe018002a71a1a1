"""Revisions → the events they are of, and what to measure of each; the one fold. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.types import ActionEvent, Phase, Reason, Span

_STATES = {Phase.CLOSED: "closed", Phase.RETRACTED: "retracted"}
# When the footage stops, the last word is dated back to its end: that is no delay.
_CUT_SHORT = (Reason.END, Reason.GAP)


@dataclass(frozen=True, slots=True)
class History:
    """All known revisions of one event, in order; at least one."""

    revisions: tuple[ActionEvent, ...]

    @property
    def first(self) -> ActionEvent:
        """The oldest revision: when the event was first reported."""
        return self.revisions[0]

    @property
    def last(self) -> ActionEvent:
        """The newest revision: how the event stands."""
        return self.revisions[-1]

    @property
    def closed(self) -> ActionEvent | None:
        """The first revision that closed it, if one did."""
        return next((one for one in self.revisions if one.phase is Phase.CLOSED), None)

    @property
    def state(self) -> str:
        """``open``, ``closed`` or ``retracted``."""
        return _STATES.get(self.last.phase, "open")

    @property
    def is_kept(self) -> bool:
        """It was not taken back."""
        return self.last.phase is not Phase.RETRACTED

    @property
    def top_score(self) -> float:
        """The highest score it ever had."""
        return max(one.score for one in self.revisions)

    @property
    def place(self) -> tuple[Span, int, str]:
        """What to sort events by: time, then class; no two events have the same."""
        return self.last.span, self.last.class_index, self.last.event_id

    @property
    def wait_us(self) -> int:
        """From the event's end to the footage that settled it; negative for an open event."""
        return self.last.decided_us - self.last.span.end_us

    def opening_delay_us(self, action: Span) -> int:
        """From an action's start to the footage on which this event of it opened."""
        return self.first.decided_us - action.start_us

    def final_delay_us(self, action: Span) -> int | None:
        """From an action's end to the last word's footage; None if the stream's end forced it."""
        if self.last.reason in _CUT_SHORT:
            return None
        return self.last.decided_us - action.end_us


def histories(revisions: Iterable[ActionEvent]) -> list[History]:
    """Events of one stream, in the order in which they are first mentioned.

    Revisions may come in any order; the same one twice counts once.
    """
    found: dict[str, dict[int, ActionEvent]] = {}
    for one in revisions:
        found.setdefault(one.event_id, {})[one.revision] = one
    return [History(tuple(rows[n] for n in sorted(rows))) for rows in found.values()]
