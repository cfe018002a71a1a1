from dataclasses import replace

import numpy as np
import pytest

from engine.events import (
    EventTracker,
    TrackerState,
    _revise,
    event_from_json,
    event_to_json,
)
from engine.scores import ScoredSnippets
from engine.types import Phase, Reason, Span
from tests.support.scripted import a_spec

STRIDE_US = 160_000


def a_track(reds, first_index: int = 0) -> ScoredSnippets:
    scores = np.zeros((len(reds), 2), np.float32)
    scores[:, 0] = reds
    return ScoredSnippets(first_index, 0, scores)


def a_tracker(**changes) -> EventTracker:
    spec = a_spec()
    return EventTracker("cam", "e", replace(spec, tracker=replace(spec.tracker, **changes)))


def phases(records) -> list[tuple[str, str]]:
    return [(r.phase.value, r.reason.value) for r in records]


def test_the_life_of_an_action():
    tracker = a_tracker()
    curve = [0] * 6 + [0.9] * 6 + [0] * 8

    lives = [tracker.step(a_track(curve[:n]), 1_000_000) for n in range(6, len(curve) + 1)]
    records = [record for step in lives for record in step]

    assert ("opened", "score") == phases(records)[0]
    assert {("updated", "score")} == set(phases(records)[1:-1])
    assert ("closed", "frozen") == phases(records)[-1]
    assert 1 == len({record.event_id for record in records})
    assert 1_000_000 == records[-1].anchor_us
    assert abs(records[-1].span.start_us - 6 * STRIDE_US) <= 80_000
    assert abs(records[-1].span.end_us - 12 * STRIDE_US) <= 80_000


def test_freezing_waits_for_the_freeze_delay():
    curve = [0] * 6 + [0.9] * 6 + [0] * 8

    def closed_at(freeze_us: int) -> int:
        tracker = a_tracker(freeze_us=freeze_us)
        steps = [tracker.step(a_track(curve[:n]), None) for n in range(6, len(curve) + 1)]
        return next(r.decided_us for s in steps for r in s if r.phase is Phase.CLOSED)

    assert 640_000 <= closed_at(800_000) - closed_at(0) <= 800_000


def test_a_final_event_is_not_opened_again():
    tracker = a_tracker(freeze_us=0)
    curve = [0] * 6 + [0.9] * 4 + [0] * 10
    records = [r for n in range(6, len(curve) + 1) for r in tracker.step(a_track(curve[:n]), None)]

    assert 1 == sum(record.phase is Phase.OPENED for record in records)


def test_an_event_the_scores_no_longer_support_is_retracted_after_two_hops():
    tracker = a_tracker()
    (opened,) = tracker.step(a_track([0] * 8 + [0.9] * 2), None)

    assert [] == tracker.step(a_track([0] * 11), None)
    (retracted,) = tracker.step(a_track([0] * 12), None)

    assert ("retracted", "vanished") == (retracted.phase, retracted.reason)
    assert (opened.event_id, 1) == (retracted.event_id, retracted.revision)


def test_an_event_may_miss_one_hop():
    tracker = a_tracker()
    (opened,) = tracker.step(a_track([0] * 8 + [0.9] * 2), None)
    tracker.step(a_track([0] * 11), None)
    (updated,) = tracker.step(a_track([0] * 8 + [0.9] * 4), None)

    assert (opened.event_id, Phase.UPDATED) == (updated.event_id, updated.phase)


def test_a_score_below_the_opening_score_opens_nothing_but_keeps_an_event_alive():
    weak = [0.0] * 8 + [0.38] * 2

    assert [] == a_tracker().step(a_track(weak), None)
    tracker = a_tracker()
    tracker.step(a_track([0] * 8 + [0.9] * 2), None)
    assert Phase.UPDATED is tracker.step(a_track(weak), None)[0].phase


def test_an_event_longer_than_the_track_keeps_its_start():
    tracker = a_tracker()
    records = tracker.step(a_track([0] * 4 + [0.9] * 20), None)
    for first_index in range(1, 30):
        reds = [0] * max(4 - first_index, 0) + [0.9] * min(20 + first_index, 24)
        records += tracker.step(a_track(reds, first_index), None)

    assert 1 == len({record.event_id for record in records})
    assert abs(records[-1].span.start_us - 4 * STRIDE_US) <= 80_000
    assert (29 + 24) * STRIDE_US == records[-1].span.end_us


def test_closing_ends_what_is_supported_and_retracts_what_is_not():
    supported, forsaken = a_tracker(), a_tracker()
    supported.step(a_track([0] * 8 + [0.9] * 2), None)
    forsaken.step(a_track([0] * 8 + [0.9] * 2), None)
    forsaken.step(a_track([0] * 11), None)

    assert [("closed", "gap")] == phases(supported.close(Reason.GAP))
    assert [("retracted", "vanished")] == phases(forsaken.close(Reason.GAP))
    assert [] == supported.close(Reason.GAP)


def test_two_actions_of_one_label_are_two_events():
    tracker = a_tracker()
    curve = [0, 0.9, 0.9, 0.9, 0, 0, 0, 0.9, 0.9, 0.9, 0]
    records = [r for n in range(1, len(curve) + 1) for r in tracker.step(a_track(curve[:n]), None)]

    opened = [record for record in records if record.phase is Phase.OPENED]
    assert 2 == len({record.event_id for record in opened})


def test_what_ended_before_the_scores_that_are_new_opens_no_event():
    """A louder action far back leaves the track, and what it drowned would come up."""
    opened = []
    for length in (11, 13, 15):  # the action ends 3, 5, 7 snippets back; 4 are scored anew
        curve = [0] * 4 + [0.9] * 4 + [0] * (length - 8)
        opened.append(bool(a_tracker().step(a_track(curve), None)))

    assert [True, False, False] == opened


def test_an_illegal_transition_is_refused():
    tracker = a_tracker()
    (opened,) = tracker.step(a_track([0] * 8 + [0.9] * 2), None)
    closed = _revise(opened, Phase.CLOSED, Reason.END, decided_us=0)

    with pytest.raises(AssertionError, match="closed cannot be followed by updated"):
        _revise(closed, Phase.UPDATED, Reason.SCORE, decided_us=0)


def test_state_survives_as_plain_values():
    tracker = a_tracker()
    tracker.step(a_track([0] * 8 + [0.9] * 2), 5)
    state = replace(tracker.state, frozen=((1, Span(0, 5)),))

    assert state == TrackerState.from_json(state.to_json())


def test_every_class_opens_at_its_own_score():
    scores = np.zeros((20, 2), np.float32)
    scores[8:16] = 0.6

    def opened(*class_open_scores: float) -> set[str]:
        tracker = a_tracker(class_open_scores=class_open_scores)
        return {r.class_name for r in tracker.step(ScoredSnippets(0, 0, scores), None)}

    assert {"red", "green"} == opened(0.5, 0.5)
    assert {"red"} == opened(0.5, 0.9)
    assert {"green"} == opened(0.9, 0.5)
    assert set() == opened(0.9, 0.9)


def test_an_event_that_opened_below_the_keeping_score_is_kept():
    tracker = a_tracker(class_open_scores=(0.15, 0.9))
    curve = [0] * 8 + [0.2] * 12
    records = [r for n in range(10, 21) for r in tracker.step(a_track(curve[:n]), None)]

    assert 0.3 > records[0].score
    assert Phase.OPENED == records[0].phase
    assert Phase.RETRACTED not in {record.phase for record in records}


@pytest.mark.parametrize("n_pause", range(1, 8))
def test_a_class_that_is_wanted_no_more_ends_its_event_and_opens_none(n_pause):
    curve = [1.0] * 6 + [0.0] * n_pause + [1.0] * 12
    tracker = a_tracker()
    records = [r for n in range(1, 7) for r in tracker.step(a_track(curve[:n]), None)]
    assert Phase.OPENED in {record.phase for record in records}
    tracker = EventTracker("cam-1", "e", a_spec(), frozenset({1}), tracker.state)
    after = [r for n in range(7, len(curve) + 1) for r in tracker.step(a_track(curve[:n]), None)]

    assert Phase.OPENED not in {record.phase for record in after}


def test_a_state_with_a_final_event_among_the_live_ones_is_refused():
    tracker = a_tracker()
    tracker.step(a_track([0] * 8 + [0.9] * 2), 5)
    plain = tracker.state.to_json()
    plain["live"][0]["last"]["phase"] = "closed"

    with pytest.raises(ValueError, match="final"):
        TrackerState.from_json(plain)


def test_snapshots_keep_the_words_they_began_with():
    """A state file of before must stay readable, whatever the fields are called by now."""
    stored = {
        "event_id": "e1",
        "stream_id": "cam",
        "epoch": "run-1",
        "revision": 3,
        "phase": "updated",
        "reason": "score",
        "label": 1,
        "label_name": "red",
        "span": {"start_us": 5, "end_us": 9},
        "score": 0.5,
        "decided_us": 9,
        "anchor_us": None,
        "model_id": "tiny@0",
    }

    event = event_from_json(stored)

    assert ("cam", "run-1", 1, "red") == (
        event.camera,
        event.run,
        event.class_index,
        event.class_name,
    )
    assert stored == event_to_json(event)
