"""At which score each class opens events, for a wanted rate of false alarms. Pure.

How many actions are missed at that score is not looked at. An operator can live with so many
false alarms a day, and wants the most sensitive setting that keeps to it.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.judging.histories import histories
from engine.judging.pairing import FOUND_TIOU
from engine.types import ActionEvent
from training.evaluation.matching import Detections, Truth, assign
from training.records import VideoRecord

# Added to the highest false alarm's score where no higher score is there to lie midway to.
_MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """One event found in a validation video.

    Attributes:
        class_index: Its class.
        score: The highest score it ever had; with a threshold above, it would not have opened.
        is_true: Whether it was an annotated action.
    """

    class_index: int
    score: float
    is_true: bool

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"a score is {self.score}, wanted a number")


def event_outcomes(
    records: Sequence[VideoRecord], events: Mapping[str, Sequence[ActionEvent]]
) -> list[Outcome]:
    """Say of each event whether it was right.

    An event is right if it was matched to an action. In a video of which only the tags are known,
    it is right if its class is among them. A retracted event is never right, because somebody was
    told of it. Events of videos of which neither actions nor tags are known are left out.

    Args:
        records: The validation videos.
        events: Video → every revision in it, in the order they were emitted.
    """
    truth = Truth.of(records)
    lives = {name: histories(events.get(name, ())) for name in truth.videos}
    last = {name: [one.last for one in many if one.is_kept] for name, many in lives.items()}
    taken = assign(truth, Detections.of(last, truth.videos), (FOUND_TIOU,))[0]
    actions = iter(taken.tolist())  # of the kept ones only
    outcomes = [
        Outcome(one.last.class_index, one.top_score, is_true=one.is_kept and next(actions) >= 0)
        for many in lives.values()
        for one in many
    ]
    for record in records:
        if record.truth is None and record.tags is not None:
            outcomes.extend(
                Outcome(
                    one.last.class_index,
                    one.top_score,
                    is_true=one.is_kept and one.last.class_index in record.tags,
                )
                for one in histories(events.get(record.name, ()))
            )
    return outcomes


def opening_thresholds(
    outcomes: Sequence[Outcome],
    hours: float,
    n_classes: int,
    wanted_per_hour: float,
    *,
    fallback: float,
    bounds: tuple[float, float] = (0.2, 0.9),
    least_events: int = 5,
) -> tuple[float, ...]:
    """Find the lowest threshold for each class that keeps to the wanted rate of false alarms.

    Args:
        outcomes: Every event found in the validation videos, quiet ones too, with events opening
            from a score of ``bounds[0]`` on.
        hours: Camera-hours of those videos, > 0.
        n_classes: C.
        wanted_per_hour: False alarms of *one class* in a camera-hour, >= 0. Fewer than one in
            ``hours`` cannot be measured; the threshold then lets no false event open.
        fallback: Threshold of a class with few events, from ``bounds[0]`` to ``bounds[1]``.
        bounds: Lowest and highest threshold. The highest wins over the wanted rate, so that no
            class falls silent over one odd video.
        least_events: A class with fewer events gets the fallback.

    Returns:
        C thresholds.
    """
    low, high = bounds
    if not (hours > 0 and wanted_per_hour >= 0 and low <= fallback <= high):
        raise ValueError(
            f"hours {hours}, rate {wanted_per_hour}, fallback {fallback} in {low}..{high}: "
            "wanted hours > 0, a rate >= 0 and a fallback within the bounds"
        )
    n_allowed = math.floor(wanted_per_hour * hours)
    thresholds = []
    for class_index in range(n_classes):
        mine = [outcome for outcome in outcomes if outcome.class_index == class_index]
        fitted = _threshold(mine, n_allowed) if len(mine) >= least_events else fallback
        thresholds.append(min(max(fitted, low), high))
    return tuple(thresholds)


def quiet_thresholds(
    outcomes: Sequence[Outcome], n_allowed: int, lowest: Sequence[float], highest: float
) -> tuple[float, ...]:
    """Find thresholds that let so many events of quiet footage open, where every event is false.

    Those that score highest may open: to refuse them would raise a threshold most, and cost most
    of what truly happens. Quiet footage tells nothing of that, so no threshold is lowered.

    Args:
        outcomes: Every event found, of all classes.
        n_allowed: How many of them may open.
        lowest: C thresholds, below which none may be set.
        highest: Above it none is, so that no class falls silent; it wins over ``n_allowed``.

    Returns:
        C thresholds.
    """
    allowed = sorted(outcomes, key=lambda one: -one.score)[: max(n_allowed, 0)]
    thresholds = []
    for class_index, low in enumerate(lowest):
        mine = [one for one in outcomes if one.class_index == class_index]
        n_mine = sum(one.class_index == class_index for one in allowed)
        thresholds.append(max(low, min(_threshold(mine, n_mine), highest)))
    return tuple(thresholds)


def _threshold(outcomes: Sequence[Outcome], n_allowed: int) -> float:
    """Return the middle between the highest score that must not open and the next higher one.

    It is the middle because the next video's scores will not be just these. A higher
    ``n_allowed`` never gives a higher threshold.
    """
    false = sorted((one.score for one in outcomes if not one.is_true), reverse=True)
    if len(false) <= n_allowed:
        return -math.inf
    refused = false[n_allowed]
    scores = sorted(one.score for one in outcomes)
    above = bisect.bisect_right(scores, refused)
    if above == len(scores):
        return refused + _MARGIN
    return max((refused + scores[above]) / 2, math.nextafter(refused, math.inf))


def false_alarms_per_hour(
    outcomes: Sequence[Outcome], hours: float, thresholds: Sequence[float]
) -> tuple[float, ...]:
    """Return the rate of false alarms that each class's threshold would have given: C rates."""
    return tuple(
        sum(
            not one.is_true and one.class_index == class_index and one.score >= threshold
            for one in outcomes
        )
        / hours
        for class_index, threshold in enumerate(thresholds)
    )
