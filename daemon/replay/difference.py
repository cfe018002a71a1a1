"""The events that were published against those of a replay, paired by the one matcher. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.judging.histories import History, histories
from engine.judging.pairing import SAME_TIOU, best_pairs
from engine.types import ActionEvent, Span


@dataclass(frozen=True, slots=True)
class Compared:
    """An event as it was published, as the replay gives it, or both; at least one.

    Attributes:
        old: As it was published.
        new: As the replay gives it.
        tiou: How far the two overlap, in [0.5, 1]; None where there is one alone.
    """

    old: History | None
    new: History | None
    tiou: float | None = None

    @property
    def kind(self) -> str:
        """``equal`` in every word, ``matched``, ``only old`` or ``only new``."""
        if self.old is None:
            return "only new"
        if self.new is None:
            return "only old"
        return "equal" if self.old == self.new else "matched"

    @property
    def any(self) -> ActionEvent:
        """The last revision of one of them, the new one's if there are both."""
        one = self.new or self.old
        if one is None:
            raise AssertionError("compared nothing with nothing")
        return one.last

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in microseconds of the run's stream time."""
        event = self.any
        return {
            "kind": self.kind,
            "camera_id": event.camera,
            "epoch": event.run,
            "label": event.class_name,
            "tiou": self.tiou,
            "old": _plain(self.old),
            "new": _plain(self.new),
        }


def compared(old: Iterable[ActionEvent], new: Iterable[ActionEvent]) -> list[Compared]:
    """Pair events of the same camera, run and class; those that were taken back are left out.

    Args:
        old: Revisions that were published.
        new: Those of the replay.

    Returns:
        By camera, run and time.
    """
    olds, news = _by_run(old), _by_run(new)
    found: list[Compared] = []
    for key in sorted(olds.keys() | news.keys()):
        rows = _of_run(olds.get(key, []), news.get(key, []))
        found += sorted(rows, key=lambda row: (row.any.span, row.any.class_name, row.kind))
    return found


def within(revisions: Iterable[ActionEvent], span: Span) -> list[ActionEvent]:
    """All revisions of the events that, as they ended up, touch an interval of stream time."""
    return [
        one
        for event in histories(revisions)
        if event.last.span.start_us < span.end_us and event.last.span.end_us > span.start_us
        for one in event.revisions
    ]


def _by_run(revisions: Iterable[ActionEvent]) -> dict[tuple[str, str], list[History]]:
    found: dict[tuple[str, str], list[History]] = {}
    for event in histories(revisions):
        if event.is_kept:
            found.setdefault((event.last.camera, event.last.run), []).append(event)
    return found


def _of_run(old: Sequence[History], new: Sequence[History]) -> list[Compared]:
    pairs = best_pairs(_places(old), _places(new), SAME_TIOU)
    paired_old = {pair.first for pair in pairs}
    paired_new = {pair.second for pair in pairs}
    return [
        *(Compared(old[pair.first], new[pair.second], pair.tiou) for pair in pairs),
        *(Compared(event, None) for i, event in enumerate(old) if i not in paired_old),
        *(Compared(None, event) for i, event in enumerate(new) if i not in paired_new),
    ]


def _places(events: Sequence[History]) -> list[tuple[str, Span]]:
    # By name: two bundles may number the same classes differently.
    return [(event.last.class_name, event.last.span) for event in events]


def _plain(event: History | None) -> dict[str, Any] | None:
    if event is None:
        return None
    last = event.last
    return {
        "event_id": last.event_id,
        "start_us": last.span.start_us,
        "end_us": last.span.end_us,
        "score": float(last.score),
        "state": event.state,
        "reason": last.reason.value,
        "revision": last.revision,
        "model": last.model_id,
    }
