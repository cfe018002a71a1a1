"""Streams of stored features, and what their event records are worth: cases worked by hand."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError
from engine.judging.truth import TruthSpan
from engine.session import StreamSession
from engine.spec import CameraMeanSpec
from engine.straight_line import localize_frames
from engine.types import ActionEvent, Phase, Reason, Span
from tests.support.error_bounds import gamma
from tests.support.records import an_event
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec
from tests.support.strategies import videos
from training.evaluation.matching import Candidates, matching_size
from training.evaluation.opening_scores import Outcome, event_outcomes
from training.evaluation.spread import Spread
from training.evaluation.stream_runs import (
    camera_mean_after,
    delay_accuracy_curve,
    snippet_features,
    stream_video,
    whole_video_detections,
    with_freeze,
)
from training.evaluation.streaming import streaming_metrics
from training.records import VideoRecord

S = 1_000_000
SPEC = a_spec()


def a_record(name="a", *truth, features=(), indices=None, **other) -> VideoRecord:
    """A video of half an hour with actions (label, start in s, end in s)."""
    rows = np.array(features, np.float32).reshape(-1, 3)
    fields = {
        "name": name,
        "camera": "",
        "features": rows,
        "indices": np.arange(len(rows)) if indices is None else np.array(indices, np.int64),
        "duration_us": 1800 * S,
        "tags": None,
        "truth": tuple(TruthSpan(c, Span(a * S, b * S)) for c, a, b in truth),
    }
    return VideoRecord(**(fields | other))


def a_life(event_id: str, label: int, *steps, last=Phase.CLOSED, reason=Reason.FROZEN, score=0.5):
    """An event's records; a step is (start in s, end in s, decided at in s)."""
    phases = [Phase.OPENED, *[Phase.UPDATED] * (len(steps) - 2), last]
    return [
        an_event(
            event_id,
            revision,
            phase=phase,
            reason=reason if revision == len(steps) - 1 else Reason.SCORE,
            class_index=label,
            span=Span(start * S, end * S),
            score=score,
            decided_us=round(at * S),
        )
        for revision, (phase, (start, end, at)) in enumerate(zip(phases, steps, strict=True))
    ]


def colours(*blocks: tuple[int, float, float]) -> list[tuple[float, float, float]]:
    """Rows of features: (how many, how much of action 0, of action 1)."""
    return [(red, green, 0.0) for n, red, green in blocks for _ in range(n)]


class Watching(SmoothingLocalizer):
    """Keeps the windows it was shown."""

    def __init__(self) -> None:
        self.windows: list = []

    def localize(self, windows):
        self.windows.extend(windows)
        return super().localize(windows)


@settings(max_examples=40)
@given(videos(max_frames=200), st.sampled_from([1, 3]))
def test_stored_features_give_the_records_that_the_footage_gives(video, hop_snippets):
    spec = a_spec(hop_snippets=hop_snippets)
    session = StreamSession("door", "a", spec)
    live = localize_frames([video], session, MeanColourExtractor(), SmoothingLocalizer())
    snippets = StreamSession("door", "a", spec).sample(video)
    features = MeanColourExtractor().extract(snippets)
    record = a_record(
        features=[feature.vector for feature in features],
        indices=[feature.index for feature in features],
    )

    assert list(live.revisions) == stream_video(record, spec, SmoothingLocalizer(), "door")


def test_what_no_window_has_shown_yet_is_shown_at_the_end():
    localizer = Watching()

    stream_video(a_record(features=np.zeros((8, 3))), a_spec(hop_snippets=3), localizer)

    assert [2, 5, 7] == [w.first_index + len(w.valid) - 1 for w in localizer.windows]


@settings(max_examples=15)
@given(st.integers(1, 59), st.integers(0, 99))
def test_no_record_knows_what_comes_after_its_decision(row, seed):
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.random((12, 3)), 5, axis=0).astype(np.float32)
    other = features.copy()
    other[row:] = rng.random((60 - row, 3))
    spec = with_background(SPEC)

    def until_then(rows) -> list[ActionEvent]:
        seen_us = spec.grid.snippet_end_us(row - 1)
        records = stream_video(a_record(features=rows), spec, SmoothingLocalizer())
        return [r for r in records if r.decided_us <= seen_us and r.reason is not Reason.END]

    assert until_then(features) == until_then(other)


def test_a_missing_index_begins_a_new_segment():
    record = a_record(features=np.zeros((5, 3)), indices=[3, 4, 7, 8, 10])

    seen = [(feature.index, feature.segment) for feature in snippet_features(record)]

    assert [(3, 0), (4, 0), (7, 1), (8, 1), (10, 2)] == seen


def test_a_video_without_snippets_gives_nothing():
    assert [] == stream_video(a_record(), SPEC, SmoothingLocalizer())
    assert [] == whole_video_detections(a_record(), SPEC, SmoothingLocalizer())


def test_the_stream_has_the_name_of_the_camera_or_else_of_the_video():
    record = a_record(features=colours((5, 0, 0), (9, 1, 0), (9, 0, 0)))
    for camera, wanted in (("", "a"), ("yard", "yard")):
        seen = stream_video(replace(record, camera=camera), SPEC, SmoothingLocalizer())
        assert {(wanted, "a")} == {(event.camera, event.run) for event in seen}


def test_a_whole_video_is_one_window_of_every_segment():
    localizer = Watching()
    features = colours((5, 0, 0), (9, 1, 0), (9, 0, 0))
    record = a_record(features=[*features, *features], indices=[*range(23), *range(30, 53)])

    best = [one for one in whole_video_detections(record, SPEC, localizer) if one.score > 0.9]

    assert [(0, 23), (30, 23)] == [(w.first_index, len(w.valid)) for w in localizer.windows]
    # Red from 0.8 s to 2.24 s; smoothing adds half a snippet on either side.
    assert [(0, Span(720_000, 2_320_000)), (0, Span(5_520_000, 7_120_000))] == [
        (one.class_index, one.span) for one in best
    ]


def with_background(spec):
    zero = np.zeros(3, np.float32)
    return replace(spec, camera_mean=CameraMeanSpec(10, 1, 1000, zero, {"yard": zero + 1}))


def test_the_background_of_a_camera_goes_from_video_to_video():
    spec = with_background(SPEC)
    one = a_record(features=np.full((3, 3), 0.4), camera="gate")
    two = a_record("b", features=np.full((2, 3), 1.0), camera="gate")
    before = camera_mean_after([one], spec, "gate")
    live, whole = Watching(), Watching()

    stream_video(two, spec, live, camera_mean=before)
    whole_video_detections(two, spec, whole, camera_mean=before)

    # The prior, zero, counts as one: (0 + 3 * 0.4) / 4, then / 5, then / 6.
    assert 4 == before.n_snippets
    # Of features that are float32, in float64; windows hold it as float32.
    share = gamma(2)
    np.testing.assert_allclose(before.mean, 0.3, rtol=share)
    np.testing.assert_allclose(
        [window.camera_mean[0] for window in live.windows], [2.2 / 5, 3.2 / 6], rtol=share
    )
    np.testing.assert_allclose(whole.windows[0].camera_mean, 3.2 / 6, rtol=share)
    assert camera_mean_after([one], SPEC, "gate") is None


def measured(records, events, **other):
    return streaming_metrics(records, events, 2, **other)


def test_delays_are_counted_from_the_action_to_the_decision():
    record = a_record("a", (0, 10, 20), (1, 40, 50))
    events = a_life("x", 0, (11, 13, 13), (11, 18, 18), (10, 19, 25), score=0.8)

    result = measured([record], {"a": events})

    assert Spread(1, *[3.0] * 5) == result.detection_delay
    assert Spread(1, *[5.0] * 5) == result.final_delay
    assert Spread(1, *[6.0] * 5) == result.end_drift
    assert (1, 1.0, 0.5) == (result.n_missed, result.precision, result.recall)
    assert 2 == result.revisions_per_event
    # 9 of 10 s: found at every threshold; the other class is missed.
    assert [0.5] * 7 == result.map_last.per_tiou.tolist()


def test_openings_after_the_end_or_long_after_the_start_are_late():
    record = a_record("a", (0, 10, 20), (0, 30, 32), (0, 50, 60), (1, 70, 80))
    lives = [
        a_life("in time", 0, (10, 13, 13), (10, 20, 21)),
        a_life("after the end", 0, (30, 32, 32.5), (30, 32, 33)),
        a_life("long after the start", 0, (50, 54, 54), (50, 60, 61)),
        a_life("of nothing", 1, (90, 95, 99), (90, 95, 99)),
    ]

    result = measured([record], {"a": [one for life in lives for one in life]})

    assert 2 / 3 == result.late_openings
    assert 1 / 3 == result.opened_after_end
    assert 4.0 == result.detection_delay.longest
    assert math.isnan(measured([record], {}).late_openings)
    assert "late openings           66.7 (more than 3 s" in result.table()


def test_an_event_that_the_end_cut_short_has_no_final_delay():
    record = a_record("a", (0, 10, 20))
    events = a_life("x", 0, (11, 13, 13), (10, 19, 19), reason=Reason.END)

    result = measured([record], {"a": events})

    assert (1, 0) == (result.detection_delay.n, result.final_delay.n)


def test_what_was_retracted_is_no_detection():
    record = a_record("a", (0, 10, 20))
    events = a_life("x", 0, (10, 20, 20), (10, 20, 30), last=Phase.RETRACTED)

    result = measured([record], {"a": [*events, *a_life("y", 1, (10, 20, 21), (10, 20, 30))]})

    assert (2, 1) == (result.n_events, result.map_last.n_detections)
    assert (0.5, 0.0, 0.0) == (result.retraction_rate, result.map_last.average, result.recall)
    # Yet it said in time that something starts, and that counts.
    assert 0 == result.f1_by_class[0]
    assert 1 == result.f1_any_class[0]
    assert [0] * 9 + [1] == list(result.start_map)


def test_what_was_said_when_it_was_closed_may_differ_from_the_last_word():
    record = a_record("a", (0, 10, 20))
    opened, closed = a_life("x", 0, (10, 12, 12), (10, 20, 25))
    revised = replace(closed, revision=2, phase=Phase.UPDATED, span=Span(50 * S, 60 * S))

    result = measured([record], {"a": [opened, closed, revised]})

    assert (1.0, 0.0) == (result.map_closed.average, result.map_last.average)
    again = replace(revised, phase=Phase.CLOSED)
    assert 1 == measured([record], {"a": [opened, closed, again]}).map_closed.average
    open_still = measured([record], {"a": [replace(opened, span=Span(10 * S, 20 * S))]})
    assert (0, 1.0) == (open_still.map_closed.n_detections, open_still.map_last.average)


def test_a_start_is_found_when_it_is_said_not_when_it_is_claimed_to_have_been():
    record = a_record("a", (0, 10, 20), (0, 13, 20))
    said = [
        *a_life("x", 0, (10, 11, 12), (10, 20, 25), score=0.9),  # 1 s before one, 2 s after one
        *a_life("y", 0, (10, 11, 11), (10, 20, 25), score=0.8),
    ]

    result = measured([record], {"a": said})

    # Within 1 s: 12 -> 13 and 11 -> 10. The better one takes the nearer start at any tolerance.
    assert [1.0] * 10 == list(result.start_map)
    late = {"a": a_life("x", 0, (10, 11, 17), (10, 20, 25))}
    assert [0, 0, 0, *[0.5] * 7] == list(measured([record], late).start_map)


def test_extra_events_in_an_action_are_fragments():
    record = a_record("a", (0, 10, 20), (0, 30, 40), (0, 60, 70))
    pieces = [(10, 13), (14, 16), (19, 24), (30, 40), (50, 52)]
    events = [
        record_
        for number, (start, end) in enumerate(pieces)
        for record_ in a_life(f"e{number}", 0, (start, end, end), (start, end, 80))
    ]

    # 19..24 lies mostly outside; nothing lies in the third action.
    assert 0.5 == measured([record], {"a": events}).fragmentation


def test_f1_uses_the_matching_that_a_greedy_choice_would_miss():
    record = a_record("a", (0, 0, 10), (0, 4, 14))
    # The first fits both and the second action better; the second fits only the second.
    events = [
        *a_life("x", 0, (2, 13, 13), (2, 13, 30), score=0.9),
        *a_life("y", 0, (5, 14, 14), (5, 14, 30), score=0.8),
    ]

    result = measured([record], {"a": events})

    assert (1.0, 1.0, 0.5) == result.f1_by_class


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=14))
def test_no_matching_is_larger(edges):
    rows = np.array(sorted(edges), np.int64).reshape(-1, 2)
    pairs = Candidates(rows[:, 0], rows[:, 1], np.ones(len(rows)))

    largest = max(
        sum((found, action) in edges for found, action in enumerate(order))
        for order in permutations(range(5))
    )

    assert largest == matching_size(pairs)


def test_false_alarms_are_counted_in_hours_where_nothing_happens():
    records = [a_record("a", (0, 10, 20)), a_record("b")]
    events = {
        "a": a_life("x", 1, (50, 60, 60), (50, 60, 70)),  # wrong, but not in a quiet video
        "b": a_life("x", 1, (50, 60, 60), (50, 60, 70)),
        "c": [
            *a_life("x", 1, (50, 60, 60), (50, 60, 70)),
            *a_life("y", 0, (50, 60, 60), (50, 60, 70), last=Phase.RETRACTED),
        ],
    }

    result = measured(records, events, quiet=[a_record("c", duration_us=5400 * S)])

    assert (2.0, 1.5, 1.0) == (
        result.quiet_hours,
        result.false_openings_per_hour,
        result.false_alarms_per_hour,
    )
    assert (2, 2) == (result.n_events, result.map_last.n_videos)


def test_events_of_a_video_nobody_gave_are_refused():
    with pytest.raises(DataError, match="video 'z' has events but is not among the 1 evaluated"):
        measured([a_record()], {"z": []})


def test_without_events_everything_is_missed_and_nothing_is_divided_by_zero():
    result = measured([a_record("a", (0, 10, 20))], {})

    assert (1, 0.0, 0.0) == (result.n_missed, result.recall, result.map_last.average)
    assert math.isnan(result.precision)
    assert math.isnan(result.false_alarms_per_hour)
    assert "nan" in result.table()
    assert "nan" in measured([a_record()], {}).table()


def test_the_table_names_every_number():
    record = a_record("a", (0, 10, 20))
    text = measured(
        [record, a_record("b")], {"a": a_life("x", 0, (11, 13, 13), (10, 19, 25))}
    ).table()

    assert "videos, actions, events 2, 1, 1; times: seconds" in text
    assert "precision, recall       100.0, 100.0 at tIoU 0.3; 0 missed" in text
    high = "3.00 s p90, 3.00 s p95, 3.00 s at most (1)"
    assert f"delay to the opening    3.00 s median, 3.00 s mean, {high}" in text
    assert "F1                      0.3: 100.0, 0.5: 100.0, 0.7: 100.0" in text
    assert "0.00 (0.00 before retractions) in 0.50 quiet hours" in text


def test_the_curve_has_what_each_setting_gives_on_its_own():
    features = colours((6, 0, 0), (9, 1, 0), (6, 0, 0), (7, 0, 0.6), (20, 0, 0))
    record = a_record("a", (0, 1, 2), features=features)
    quiet = a_record("q", features=colours((30, 0, 0.1), (10, 0, 0.5), (9, 0, 0)))
    localizer = Watching()

    points = delay_accuracy_curve(
        [record], SPEC, localizer, (0, 640_000), (None, 0.7), quiet=[quiet]
    )

    assert [(0, None), (0, 0.7), (640_000, None), (640_000, 0.7)] == [
        (point.freeze_us, point.open_score) for point in points
    ]
    for point in points:
        spec = with_freeze(SPEC, point.freeze_us)
        spec = spec if point.open_score is None else spec.with_open_score(point.open_score)
        events = {
            one.name: stream_video(one, spec, SmoothingLocalizer()) for one in (record, quiet)
        }
        alone = measured([record], events, quiet=[quiet])
        assert alone.table() == point.result.table()
    delays = [point.result.final_delay.median for point in points]
    assert delays[0] < delays[2]
    assert len(record.features) + len(quiet.features) == len(localizer.windows)


def test_outcomes_tell_right_events_from_wrong_ones():
    records = [
        a_record("a", (0, 10, 20)),
        a_record("b", truth=None, tags=(1,)),
        a_record("c", truth=None),
    ]
    right = a_life("x", 0, (10, 12, 12), (10, 20, 25), score=0.5)
    right[0] = replace(right[0], score=0.7)
    events = {
        "a": [
            *a_life("w", 0, (10, 20, 20), (10, 20, 30), last=Phase.RETRACTED, score=0.6),
            *right,
            *a_life("y", 0, (10, 19, 20), (10, 19, 30), score=0.4),
        ],
        "b": [
            *a_life("x", 1, (1, 2, 3), (1, 2, 4), score=0.3),
            *a_life("y", 0, (1, 2, 3), (1, 2, 4), score=0.2),
        ],
        "c": a_life("x", 1, (1, 2, 3), (1, 2, 4)),
    }

    assert [
        Outcome(0, 0.6, is_true=False),
        Outcome(0, 0.7, is_true=True),
        Outcome(0, 0.4, is_true=False),
        Outcome(1, 0.3, is_true=True),
        Outcome(0, 0.2, is_true=False),
    ] == event_outcomes(records, events)
