import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.stream.place import done_of, is_duplicate, is_needed_again
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import ActionEvent, Place, Reason, SnippetFeature
from tests.support.scripted import (
    MeanColourExtractor,
    SmoothingLocalizer,
    a_camera_mean,
    a_spec,
    frames_of,
)
from tests.support.videos import a_chunk


def a_running_session(**spec: object) -> StreamSession:
    session = StreamSession("cam", "e", a_spec(**spec))
    session.anchor_us = 7
    session.place = Place("cam", 3)
    n = 60
    frames = frames_of([i * 40_000 for i in range(n)], [0] * 30 + [250] * 30, [0] * n)
    features = MeanColourExtractor().extract(session.sample(frames))
    session.track(SmoothingLocalizer().localize(session.buffer(features)))
    return session


def test_a_snapshot_brings_everything_back():
    session = a_running_session()
    restored = StreamSession.restore(session.snapshot(), a_spec())

    assert session.open_events == restored.open_events
    assert len(session.open_events) == 1
    assert ("cam", "e", 7, Place("cam", 3)) == (
        restored.camera,
        restored.run,
        restored.anchor_us,
        restored.place,
    )
    assert session.close(Reason.END) == restored.close(Reason.END)


def test_a_snapshot_of_another_model_is_refused():
    blob = a_running_session().snapshot()

    with pytest.raises(SnapshotError, match="model_id is 'scripted@0', wanted 'scripted@1'"):
        StreamSession.restore(blob, replace(a_spec(), model_id="scripted@1"))


def test_another_models_session_takes_the_old_ones_place_and_owes_its_last_words():
    session = a_running_session()
    (open_event,) = session.open_events
    other = replace(a_spec(stride_frames=2), model_id="scripted@1")

    after = session.succeeded_by(other)

    (last,) = after.owed
    assert ("scripted@0", Reason.MODEL, 1 + open_event.revision, open_event.span) == (
        last.model_id,
        last.reason,
        last.revision,
        last.span,
    )
    assert ("cam", "e", 7, Place("cam", 3), ()) == (
        after.camera,
        after.run,
        after.anchor_us,
        after.place,
        after.open_events,
    )
    assert (session.seen_us, None) == (after.seen_us, after.resume_us)
    assert ("scripted@0", ()) == (after.succeeds, session.open_events)


@pytest.mark.parametrize("n_frames", [60, 61, 62])
def test_a_snapshot_of_another_model_gives_the_same_successor(n_frames):
    session = StreamSession("cam", "e", a_spec())
    frames = frames_of([i * 40_000 for i in range(n_frames)], [250] * n_frames, [0] * n_frames)
    features = MeanColourExtractor().extract(session.sample(frames))
    session.track(SmoothingLocalizer().localize(session.buffer(features)))
    other = replace(a_spec(), model_id="scripted@1")

    restored = StreamSession.restore_or_succeed(session.snapshot(), other)

    assert session.succeeded_by(other).snapshot() == restored.snapshot()
    assert restored.owed


def test_what_is_owed_survives_restarts_and_further_models():
    after = a_running_session().succeeded_by(replace(a_spec(), model_id="scripted@1"))

    for number in (1, 2, 3):
        spec = replace(a_spec(), model_id=f"scripted@{number}")
        again = StreamSession.restore_or_succeed(after.snapshot(), spec)
        assert 1 == len(again.owed)
        assert after.owed == again.owed


@pytest.mark.parametrize(("feature_id", "is_kept"), [("f", True), ("g", False), ("", False)])
def test_a_background_goes_to_models_whose_features_are_the_same(feature_id, is_kept):
    spec = a_spec(camera_mean=a_camera_mean())
    session = StreamSession("cam", "e", spec, feature_id="f" if feature_id else "")
    session.buffer([SnippetFeature(0, 0, np.ones(3, np.float32))])
    other = replace(spec, model_id="scripted@1")

    after = session.succeeded_by(other, feature_id=feature_id)
    restored = StreamSession.restore_or_succeed(session.snapshot(), other, feature_id=feature_id)

    fresh = StreamSession("cam", "e", other).camera_mean.mean.tolist()
    wanted = session.camera_mean.mean.tolist() if is_kept else fresh
    assert wanted == after.camera_mean.mean.tolist() == restored.camera_mean.mean.tolist()
    assert session.camera_mean.mean.tolist() != fresh


def test_other_scores_of_the_same_model_leave_the_session_as_it_is():
    session = a_running_session()
    before = session.snapshot()

    session.retune(a_spec().with_open_score(0.9), frozenset({1}))

    assert before == session.snapshot()
    with pytest.raises(ValueError, match="scripted@1 cannot go on with events of scripted@0"):
        session.retune(replace(a_spec(), model_id="scripted@1"), None)


@pytest.mark.parametrize(
    "change",
    [
        {"tracker": None},
        {"tracker": {"live": [{"last": {}, "misses": 0}], "frozen": []}},
        {"owed": [{"phase": "opened"}]},
        {"owed": 5},
        {"sampler": []},
        {"source": 3},
        {"source": {"offset": "3"}},
        {"source": {"low": True}},
        {"source": {"ended": ["a"]}},
    ],
)
def test_a_damaged_snapshot_of_another_model_is_refused(change):
    with np.load(io.BytesIO(a_running_session().snapshot())) as stored:
        arrays = {name: stored[name] for name in stored.files}
    meta = {**json.loads(arrays.pop("meta").tobytes()), **change}
    blob = io.BytesIO()
    np.savez(blob, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)

    with pytest.raises(SnapshotError, match="damaged"):
        StreamSession.restore_or_succeed(blob.getvalue(), replace(a_spec(), model_id="scripted@1"))


@pytest.mark.parametrize("blob", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 50])
def test_a_damaged_snapshot_is_refused(blob):
    with pytest.raises(SnapshotError, match="unreadable"):
        StreamSession.restore(blob, a_spec())


def test_a_truncated_or_flipped_snapshot_is_refused_or_equal():
    blob = a_running_session().snapshot()
    for cut in range(0, len(blob), 97):
        with pytest.raises(SnapshotError):
            StreamSession.restore(blob[:cut], a_spec())


def test_a_background_comes_back_bit_for_bit():
    session = a_running_session(camera_mean=a_camera_mean())
    restored = StreamSession.restore(session.snapshot(), a_spec(camera_mean=a_camera_mean()))

    assert session.camera_mean.mean.any()
    assert session.camera_mean.mean.tobytes() == restored.camera_mean.mean.tobytes()
    assert session.camera_mean.n_snippets == restored.camera_mean.n_snippets


def test_a_background_outlives_its_run():
    before = a_running_session(camera_mean=a_camera_mean())
    spec = a_spec(camera_mean=a_camera_mean())
    after = StreamSession("cam", "next", spec, camera_mean=before.camera_mean)

    assert before.camera_mean.mean.tobytes() == after.camera_mean.mean.tobytes()
    after.buffer([SnippetFeature(0, 0, np.ones(3, np.float32))])
    assert before.camera_mean.n_snippets + 1 == after.camera_mean.n_snippets


def test_a_camera_that_training_knew_starts_from_its_own_background():
    spec = a_spec(camera_mean=a_camera_mean())

    assert 0.5 == StreamSession("red-door", "e", spec).camera_mean.mean[0]
    assert 0.0 == StreamSession("blue-door", "e", spec).camera_mean.mean[0]


def test_a_model_without_backgrounds_keeps_none():
    assert a_running_session().camera_mean is None
    assert StreamSession.restore(a_running_session().snapshot(), a_spec()).camera_mean is None


def test_a_snapshot_whose_background_is_of_another_width_is_refused():
    blob = a_running_session(camera_mean=a_camera_mean()).snapshot()
    with np.load(io.BytesIO(blob)) as stored:
        arrays = {**stored, "background": np.zeros(4)}
    other = io.BytesIO()
    np.savez(other, **arrays)

    with pytest.raises(SnapshotError, match=r"damaged: a camera mean is float64 \(4,\)"):
        StreamSession.restore(other.getvalue(), a_spec(camera_mean=a_camera_mean()))


def test_a_snapshot_of_an_older_version_is_refused():
    blob = a_running_session().snapshot()
    with np.load(io.BytesIO(blob)) as stored:
        arrays = dict(stored)
    meta = json.loads(arrays["meta"].tobytes()) | {"version": 1}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    old = io.BytesIO()
    np.savez(old, **arrays)

    with pytest.raises(SnapshotError, match="snapshot version is 1, wanted 2"):
        StreamSession.restore(old.getvalue(), a_spec())


@given(st.integers(0, 2**32 - 1), st.integers(1, 59))
def test_changing_features_after_a_time_changes_no_record_emitted_by_then(seed, split):
    """The camera mean learns from every feature, so it above all must not look ahead."""
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.random((12, 3), np.float32), 5, axis=0)
    changed = features.copy()
    changed[split:] = rng.random((60 - split, 3), np.float32)
    spec = a_spec(camera_mean=a_camera_mean())

    def records(rows) -> list[ActionEvent]:
        session = StreamSession("red-door", "e", spec)
        windows = session.buffer([SnippetFeature(i, 0, row) for i, row in enumerate(rows)])
        return session.track(SmoothingLocalizer().localize(windows))

    until_us = spec.grid.snippet_end_us(split - 1)
    before, after = (
        [r for r in records(rows) if r.decided_us <= until_us] for rows in (features, changed)
    )
    assert before == after


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=300)
def test_a_damaged_snapshot_is_refused_and_nothing_else(changes):
    session = a_running_session()
    session.place = Place("cam", 3, low_offset=1)
    blob = bytearray(session.snapshot())
    for place, value in changes:
        blob[place % len(blob)] = value
    for spec in (session.spec, replace(session.spec, model_id="scripted@1")):
        with contextlib.suppress(SnapshotError):
            restored = StreamSession.restore_or_succeed(bytes(blob), spec)
            done_of(restored)
            is_needed_again(restored.place, 2)
            is_duplicate(restored, a_chunk(b"", sequence=7))


places = st.builds(
    Place,
    partition=st.none() | st.text(),
    offset=st.none() | st.integers(0),
    low_offset=st.none() | st.integers(0),
    sequence=st.none() | st.integers(),
    ended_runs=st.lists(st.text(st.characters(exclude_characters="\n"), min_size=1)).map(tuple),
)


@given(places)
def test_a_place_comes_back_from_a_snapshot(place):
    assert place == Place.from_json(json.loads(json.dumps(place.to_json())))


def test_places_of_older_snapshots_are_read():
    """They say -1 where nothing is needed again."""
    stored = {"sequence": 7, "partition": "p", "offset": 3, "low": -1, "ended": "a\nb"}

    assert Place("p", 3, None, 7, ("a", "b")) == Place.from_json(stored)
