"""Event revisions, gathered to the events they are of, and what to measure of each."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.types import ActionEvent, Phase
from training.evaluation.matching import Detections


@dataclass(frozen=True, slots=True)
class EventLife:
    """All that was said of one event.

    Attributes:
        video: Where.
        opened: Its first revision.
        closed: The first that closed it, or None.
        last: The last one.
        top_score: The highest score of them all.
    """

    video: str
    opened: ActionEvent
    closed: ActionEvent | None
    last: ActionEvent
    top_score: float

    @property
    def is_kept(self) -> bool:
        """It was not taken back."""
        return self.last.phase is not Phase.RETRACTED


def lives_of(events: Mapping[str, Sequence[ActionEvent]]) -> list[EventLife]:
    """Each video's revisions, in the order of emission → its events, by video, then opening."""
    lives: dict[tuple[str, str], EventLife] = {}
    for video, revisions in events.items():
        for revision in revisions:
            key = (video, revision.event_id)
            closed = revision if revision.phase is Phase.CLOSED else None
            old = lives.get(key) or EventLife(video, revision, closed, revision, revision.score)
            lives[key] = replace(
                old,
                closed=old.closed or closed,
                last=revision,
                top_score=max(old.top_score, revision.score),
            )
    return list(lives.values())


def last_record(life: EventLife) -> ActionEvent:
    """What to take of each event for ``detections_of``."""
    return life.last


def detections_of(
    lives: Sequence[EventLife], videos: Sequence[str], pick: Callable[[EventLife], ActionEvent]
) -> Detections:
    """Row i is ``pick(lives[i])``: lives come by video."""
    runs = itertools.groupby(lives, lambda life: life.video)
    return Detections.of({video: [pick(life) for life in run] for video, run in runs}, videos)
