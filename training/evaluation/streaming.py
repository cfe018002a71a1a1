"""What a live camera would have got: revisions of events against annotated actions.

Every revision counts as it was emitted: its boundaries are those it had then, and its time is the
stream time of its decision. `training.evaluation.stream_runs` makes the revisions from stored
features.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import DataError
from engine.grid import US_PER_S
from engine.judging.histories import History, histories
from engine.judging.pairing import FOUND_TIOU
from engine.tiou import covers
from engine.types import ActionEvent, Float64Array
from training.evaluation.average_precision import (
    THUMOS_TIOUS,
    MapResult,
    average_precisions,
    mean_average_precision,
    mean_over_classes,
)
from training.evaluation.matching import (
    Detections,
    Truth,
    assign,
    candidates,
    matching_size,
    start_affinity,
)
from training.evaluation.spread import Spread
from training.records import VideoRecord

F1_TIOUS = (0.3, 0.5, 0.7)
START_TOLERANCES_S = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)

LATE_S = 3  # an event that opens so long after its action's start is late, as is one after its end

_US_PER_HOUR = 3_600_000_000


@dataclass(frozen=True, slots=True, eq=False)
class StreamingResult:
    """How a live system did. Shares are in [0, 1]; NaN means that there was nothing to divide by.

    Attributes:
        map_closed: mAP of the events that were closed, as they were when first closed.
        map_last: mAP of every event that was not retracted, as it last was.
        n_events: Opened, in the videos that mAP is about.
        n_missed: Actions no kept event was matched to, at ``FOUND_TIOU``.
        precision: Kept events that were matched to an action.
        recall: Share of actions that were matched.
        detection_delay: Time from an action's start to when its event was opened.
        late_openings: Share of the matched events that opened after their action had ended, or
            more than ``LATE_S`` seconds after it had started.
        opened_after_end: Share of the matched events that opened after their action had ended.
        final_delay: Time from an action's end to when its event's last revision was decided;
            without the events that the footage's end, or a gap, cut short.
        start_map: mAP of "an action starts now" at each of ``START_TOLERANCES_S``.
        f1_by_class: F1 at each of ``F1_TIOUS``, with the most pairs that any matching has.
        f1_any_class: The same F1 where an event may match an action of any class.
        quiet_hours: Camera-hours in which nothing happens.
        false_openings_per_hour: Events opened in them, an hour.
        false_alarms_per_hour: Events opened in them and not retracted, an hour.
        revisions_per_event: Mean number of revisions after the opening.
        retraction_rate: Share of the opened events that were retracted.
        fragmentation: Number of kept events that lie mostly in an action of their class, beyond
            the first one; mean over the actions that have any.
        end_drift: Time between the end that an event opened with and its last one.
    """

    map_closed: MapResult
    map_last: MapResult
    n_events: int
    n_missed: int
    precision: float
    recall: float
    detection_delay: Spread
    late_openings: float
    opened_after_end: float
    final_delay: Spread
    start_map: tuple[float, ...]
    f1_by_class: tuple[float, ...]
    f1_any_class: tuple[float, ...]
    quiet_hours: float
    false_openings_per_hour: float
    false_alarms_per_hour: float
    revisions_per_event: float
    retraction_rate: float
    fragmentation: float
    end_drift: Spread

    def table(self) -> str:
        """Write the result for people; shares are in percent."""
        closed, last = self.map_closed, self.map_last
        at = [f"{tiou:.2f}" for tiou in closed.tious]
        tious = [f"{tiou:.1f}" for tiou in F1_TIOUS]
        tolerances = [f"{tolerance} s" for tolerance in START_TOLERANCES_S]
        rows = {
            "videos, actions, events": (
                f"{last.n_videos}, {last.n_truth}, {self.n_events}; times: {last.protocol}"
            ),
            "mAP when closed": f"{_shares(at, closed.per_tiou)}; mean {100 * closed.average:.1f}",
            "mAP of the last word": f"{_shares(at, last.per_tiou)}; mean {100 * last.average:.1f}",
            "precision, recall": (
                f"{100 * self.precision:.1f}, {100 * self.recall:.1f} at tIoU {FOUND_TIOU}; "
                f"{self.n_missed} missed"
            ),
            "delay to the opening": self.detection_delay.text(),
            "late openings": (
                f"{100 * self.late_openings:.1f} (more than {LATE_S} s after the start, or after "
                f"the end: {100 * self.opened_after_end:.1f})"
            ),
            "delay to the last word": self.final_delay.text(),
            "start mAP": _shares(tolerances, self.start_map),
            "F1": _shares(tious, self.f1_by_class),
            "F1, labels ignored": _shares(tious, self.f1_any_class),
            "false alarms an hour": (
                f"{self.false_alarms_per_hour:.2f} ({self.false_openings_per_hour:.2f} before "
                f"retractions) in {self.quiet_hours:.2f} quiet hours"
            ),
            "revisions an event": f"{self.revisions_per_event:.2f}",
            "retracted": f"{100 * self.retraction_rate:.1f}",
            "extra events an action": f"{self.fragmentation:.2f}",
            "drift of the end": self.end_drift.text(),
        }
        return "\n".join(f"{name:<24}{value}" for name, value in rows.items())


def _shares(names: Sequence[str], values: Sequence[float] | Float64Array) -> str:
    return ", ".join(
        f"{name}: {100 * value:.1f}" for name, value in zip(names, values, strict=True)
    )


def streaming_metrics(
    records: Sequence[VideoRecord],
    events: Mapping[str, Sequence[ActionEvent]],
    n_classes: int,
    quiet: Sequence[VideoRecord] = (),
    tious: Sequence[float] = THUMOS_TIOUS,
) -> StreamingResult:
    """Measure revisions of events.

    Args:
        records: Videos whose actions are known (others are passed over).
        events: Video → every revision in it, in the order they were emitted.
        n_classes: C.
        quiet: More videos, in which nothing happens. False alarms are counted in these and in
            those of ``records`` that have no action; all else is measured on ``records``.
        tious: Thresholds of both mAPs.

    Raises:
        DataError: There are events of a video that is in neither list.
    """
    truth = Truth.of(records)
    _check_names(events, [*records, *quiet])
    lives = {name: histories(events.get(name, ())) for name in truth.videos}
    opened = [event for many in lives.values() for event in many]
    kept = [event for event in opened if event.is_kept]
    last = Detections.of(
        {name: [one.last for one in many if one.is_kept] for name, many in lives.items()},
        truth.videos,
    )
    closed = Detections.of(
        {name: [one.closed for one in many if one.closed] for name, many in lives.items()},
        truth.videos,
    )
    taken = assign(truth, last, (FOUND_TIOU,))[0]
    found = [
        (event, truth.span(action))
        for event, action in zip(kept, taken.tolist(), strict=True)
        if action >= 0
    ]
    is_over = [event.first.decided_us > span.end_us for event, span in found]
    opening_us = [event.opening_delay_us(span) for event, span in found]
    is_late = [
        over or delay_us > LATE_S * US_PER_S
        for over, delay_us in zip(is_over, opening_us, strict=True)
    ]
    final_us = [event.final_delay_us(span) for event, span in found]
    silent = [record for record in records if record.truth == ()]
    quiet_hours, n_openings, n_alarms = _alarms([*silent, *quiet], events)
    return StreamingResult(
        map_closed=mean_average_precision(truth, closed, n_classes, tious),
        map_last=mean_average_precision(truth, last, n_classes, tious),
        n_events=len(opened),
        n_missed=len(truth.video) - len(found),
        precision=_ratio(len(found), len(kept)),
        recall=_ratio(len(found), len(truth.video)),
        detection_delay=Spread.of_us(opening_us),
        late_openings=_ratio(sum(is_late), len(found)),
        opened_after_end=_ratio(sum(is_over), len(found)),
        final_delay=Spread.of_us([delay_us for delay_us in final_us if delay_us is not None]),
        start_map=_start_map(truth, lives, n_classes),
        f1_by_class=_f1(truth, last),
        f1_any_class=_f1(
            replace(truth, class_index=np.zeros_like(truth.class_index)),
            replace(last, class_index=np.zeros_like(last.class_index)),
        ),
        quiet_hours=quiet_hours,
        false_openings_per_hour=_ratio(n_openings, quiet_hours),
        false_alarms_per_hour=_ratio(n_alarms, quiet_hours),
        revisions_per_event=_ratio(sum(event.last.revision for event in opened), len(opened)),
        retraction_rate=_ratio(len(opened) - len(kept), len(opened)),
        fragmentation=_fragmentation(truth, last),
        end_drift=Spread.of_us(
            [abs(event.first.span.end_us - event.last.span.end_us) for event in kept]
        ),
    )


def _check_names(
    events: Mapping[str, Sequence[ActionEvent]], records: Sequence[VideoRecord]
) -> None:
    unknown = sorted(set(events) - {record.name for record in records})
    if unknown:
        raise DataError(
            f"video {unknown[0]!r} has events but is not among the {len(records)} evaluated: "
            "give its record, or leave its events out"
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _start_map(
    truth: Truth, lives: Mapping[str, Sequence[History]], n_classes: int
) -> tuple[float, ...]:
    """Point-level mAP of openings, each at the time it was decided, not the start it claims.

    Source: Shou et al., Online Detection of Action Start (ECCV 2018).
    """
    first = {name: [event.first for event in many] for name, many in lives.items()}
    decided_us = np.array([one.decided_us for many in first.values() for one in many], np.int64)
    opened = Detections.of(first, truth.videos)
    points = replace(opened, start_us=decided_us, end_us=decided_us)
    taken = assign(truth, points, [-s for s in START_TOLERANCES_S], start_affinity)
    values = mean_over_classes(average_precisions(truth, points, taken, n_classes))
    return tuple(values.tolist())


def _f1(truth: Truth, detections: Detections) -> tuple[float, ...]:
    whole = len(truth.video) + len(detections)
    return tuple(
        _ratio(2 * matching_size(candidates(truth, detections, tiou)), whole) for tiou in F1_TIOUS
    )


def _fragmentation(truth: Truth, detections: Detections) -> float:
    pairs = candidates(truth, detections, 0.5, lambda action, found: covers(found, action))
    n_events = np.bincount(pairs.truth)
    return _ratio(float((n_events[n_events > 0] - 1).sum()), int((n_events > 0).sum()))


def _alarms(
    quiet: Sequence[VideoRecord], events: Mapping[str, Sequence[ActionEvent]]
) -> tuple[float, int, int]:
    """Return hours, events opened and events kept in videos where nothing happens."""
    durations_us = {record.name: record.duration_us for record in quiet}
    opened = [event for name in durations_us for event in histories(events.get(name, ()))]
    hours = sum(durations_us.values()) / _US_PER_HOUR
    return hours, len(opened), sum(event.is_kept for event in opened)
