"""Corners of the pure core that no ordinary footage reaches, and every way it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import SnapshotError
from engine.events import EventTracker, TrackerState, _trim
from engine.proposals import Curve, propose
from engine.scores import ScoredSnippets
from engine.session import StreamSession
from engine.types import Phase, Reason, Span
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec, frames_of
from tests.support.snapshots import LEFT_OUT, changed


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([], Span(10, 20)),
        ([Span(0, 10), Span(20, 30)], Span(10, 20)),  # they touch, and that is all
        ([Span(5, 12)], Span(12, 20)),
        ([Span(18, 25)], Span(10, 18)),
        ([Span(5, 12), Span(18, 25)], Span(12, 18)),
        ([Span(10, 12)], Span(12, 20)),
        ([Span(18, 20)], Span(10, 18)),
        ([Span(12, 18)], None),  # two pieces
        ([Span(10, 20)], None),
        ([Span(0, 30)], None),
        ([Span(5, 15), Span(14, 30)], None),
    ],
)
def test_a_span_is_trimmed_to_what_is_left_of_it(others, wanted):
    assert wanted == _trim(Span(10, 20), others)


def test_two_events_that_start_in_one_snippet_have_two_ids():
    """A short peak at the very start of a long event, both standing out enough to be reported."""
    spec = a_spec()
    spec = replace(
        spec,
        window=replace(spec.window, window_snippets=24, rescore_snippets=24, track_snippets=24),
        proposals=replace(spec.proposals, outer_weight=0.0, min_us=40_000),
        tracker=replace(spec.tracker, freeze_us=60_000_000),
    )
    scores = np.zeros((24, 2), np.float32)
    scores[:, 0] = [1.0] + [0.55] * 23
    records = EventTracker("cam", "e", spec).step(ScoredSnippets(0, 0, scores), None)

    onsets = [record.span.start_us // spec.grid.stride_us for record in records]
    assert [Phase.OPENED, Phase.OPENED] == [record.phase for record in records]
    assert [0, 0] == onsets
    assert records[0].span.end_us == records[1].span.start_us
    assert 2 == len({record.event_id for record in records})


def test_the_same_footage_mints_the_same_ids():
    scores = np.full((8, 2), 0.9, np.float32)
    twice = [
        EventTracker("cam", "e", a_spec()).step(ScoredSnippets(0, 0, scores), None)
        for _ in range(2)
    ]

    assert twice[0] == twice[1]
    assert 2 == len({record.event_id for record in twice[0]})


def test_a_curve_below_every_level_proposes_nothing():
    spec = replace(a_spec().proposals, absolute_levels=(0.5, 0.9), relative_levels=())

    assert [] == propose(Curve(0, 40_000, np.full(50, 0.4)), 0, spec)
    assert [] != propose(Curve(0, 40_000, np.full(50, 0.5)), 0, spec)


@pytest.mark.parametrize("values", [[], [0.0] * 50, [0.05] * 50])
def test_a_curve_without_a_peak_proposes_nothing(values):
    spec = replace(a_spec().proposals, min_peak=0.06)

    assert [] == propose(Curve(0, 40_000, np.array(values)), 0, spec)


def test_a_tracker_that_only_watches_one_label_sees_no_other():
    scores = np.full((8, 2), 0.9, np.float32)
    tracker = EventTracker("cam", "e", a_spec(), class_indices=frozenset({1}))

    assert {1} == {
        record.class_index for record in tracker.step(ScoredSnippets(0, 0, scores), None)
    }


def test_an_open_event_of_a_label_that_is_no_longer_wanted_is_still_ended():
    scores = np.full((8, 2), 0.9, np.float32)
    before = EventTracker("cam", "e", a_spec())
    before.step(ScoredSnippets(0, 0, scores), None)
    state = TrackerState.from_json(json.loads(json.dumps(before.state.to_json())))
    after = EventTracker("cam", "e", a_spec(), frozenset({1}), state)

    records = after.close(Reason.END)
    assert {0, 1} == {record.class_index for record in records}
    assert {Phase.CLOSED} == {record.phase for record in records}


def a_session(n_frames: int = 60) -> StreamSession:
    session = StreamSession("cam", "e", a_spec())
    frames = frames_of([i * 40_000 for i in range(n_frames)], [250] * n_frames, [0] * n_frames)
    features = MeanColourExtractor().extract(session.sample(frames))
    session.track(SmoothingLocalizer().localize(session.buffer(features)))
    return session


def restored(blob: bytes, left: StreamSession) -> StreamSession:
    """A snapshot's session, given the features of the one that left it."""
    return StreamSession.restore(blob, a_spec(), features=left.features)


def test_a_snapshot_written_again_is_read_like_the_first():
    """Else the tests of changed snapshots would prove nothing."""
    session = a_session()
    again = restored(changed(session.snapshot()), session)

    assert session.open_events == again.open_events != ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 999, "snapshot version is 999, wanted "),
        ("version", LEFT_OUT, "snapshot version is None, wanted "),
        ("model_id", "other@1", "snapshot model_id is 'other@1', wanted 'scripted@0'"),
    ],
)
def test_a_snapshot_of_another_version_or_model_names_both(key, value, message):
    blob = changed(a_session().snapshot(), **{key: value})

    with pytest.raises(SnapshotError, match=message):
        StreamSession.restore(blob, a_spec())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stream_id", LEFT_OUT),
        ("source", 3),
        ("sampler", [1, 2]),
        ("buffer", "?"),
        ("buffer", [0, 0, 0, -1]),
        ("buffer", [0, 0, 0, 9]),  # more than a window
        ("scores", [1]),
        ("tracker", {}),
        ("tracker", {"live": [{"last": {}, "misses": 0}], "frozen": []}),
        ("tracker", {"live": [], "frozen": [[0, 5, 5]]}),
    ],
)
def test_a_snapshot_whose_parts_are_wrong_is_refused_as_damaged(key, value):
    session = a_session()
    blob = changed(session.snapshot(), **{key: value})

    with pytest.raises(SnapshotError, match="snapshot is damaged"):
        restored(blob, session)


def test_a_session_says_from_where_to_read_again():
    empty = StreamSession("cam", "e", a_spec())
    assert (None, None, 0) == (empty.resume_us, empty.seen_us, empty.n_gaps)

    session = a_session(59)  # three frames into the 15th snippet of four
    assert (56 * 40_000, 58 * 40_000) == (session.resume_us, session.seen_us)
    again = restored(session.snapshot(), session)
    # It holds no frame any more, but knows how far the first one had come, and what it needs.
    assert (56 * 40_000, 58 * 40_000) == (again.resume_us, again.seen_us)


def test_footage_of_a_new_segment_closes_what_was_open():
    """A window of another segment says that there was a gap, if nobody said so before."""
    session = a_session()
    assert session.open_events
    gap_us = 10_000_000
    frames = frames_of([gap_us + i * 40_000 for i in range(40)], [0] * 40, [0] * 40)
    features = MeanColourExtractor().extract(session.sample(frames))
    records = session.track(SmoothingLocalizer().localize(session.buffer(features)))

    assert 1 == session.n_gaps
    assert [(Phase.CLOSED, Reason.GAP)] == [(record.phase, record.reason) for record in records]
    assert () == session.open_events
