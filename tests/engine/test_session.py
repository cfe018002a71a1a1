import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.stream.place import done_of, is_needed_again
from daemon.stream.runs import claim_of
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.spec import EconomySpec, Rung
from engine.types import ActionEvent, FrameBatch, Place, Reason, Rival, SnippetFeature
from tests.support.scripted import (
    MeanColourExtractor,
    SmoothingLocalizer,
    a_camera_mean,
    a_spec,
    frames_of,
)
from tests.support.snapshots import LEFT_OUT, as_version_2, changed, of_version_2
from tests.support.videos import a_chunk


def a_running_session(**spec: object) -> StreamSession:
    session = StreamSession("cam", "e", a_spec(**spec))
    session.anchor_us = 7
    session.place = Place("cam", 3)
    n = 60
    frames = frames_of([i * 40_000 for i in range(n)], [0] * 30 + [250] * 30, [0] * n)
    advance(session, frames)
    return session


def advance(session: StreamSession, frames: FrameBatch) -> list[ActionEvent]:
    features = session.look(session.sample(frames), MeanColourExtractor().extract)
    return session.track(SmoothingLocalizer().localize(session.buffer(features)))


def restored_from(session: StreamSession, **spec: object) -> StreamSession:
    blob, features = session.snapshot(), session.features
    return StreamSession.restore(blob, a_spec(**spec), features=features)


def test_a_snapshot_says_what_waits_for_the_next_look():
    """Of 15 snippets the last two are not looked at: their features follow from the next look."""
    economy = EconomySpec(Rung.QUARTER, is_gated=True)
    session = a_running_session(economy=economy)
    restored = restored_from(session, economy=economy)
    more = frames_of([2_400_000 + i * 40_000 for i in range(12)], [250] * 12, [0] * 12)

    assert 13 == session.kept_features.stop
    assert advance(session, more) == advance(restored, more)
    assert session.kept_features == restored.kept_features
    assert session.snapshot() == restored.snapshot()


@pytest.mark.parametrize(
    "economy",
    [
        {"waiting": [13], "segment": 0, "moved": False},  # and 15 comes next
        {"waiting": [13, 14, 15], "segment": 0, "moved": False},
        {"waiting": [0, 1], "segment": 0, "moved": False},
        {"waiting": [13, 14]},
        [],
    ],
)
def test_a_snapshot_whose_waiting_snippets_fit_nothing_is_refused(economy):
    session = a_running_session(economy=EconomySpec(Rung.QUARTER))
    blob = changed(session.snapshot(), economy=economy)

    with pytest.raises(SnapshotError, match="damaged"):
        StreamSession.restore(blob, session.spec, features=session.features)


def test_a_snapshot_of_before_knows_no_economy():
    session = a_running_session()
    blob = changed(session.snapshot(), economy=LEFT_OUT)

    restored = StreamSession.restore(blob, session.spec, features=session.features)

    assert session.kept_features == restored.kept_features


def test_a_snapshot_brings_everything_back():
    session = a_running_session()
    restored = restored_from(session)

    assert session.open_events == restored.open_events
    assert len(session.open_events) == 1
    assert ("cam", "e", 7, Place("cam", 3)) == (
        restored.camera,
        restored.run,
        restored.anchor_us,
        restored.place,
    )
    assert [(f.index, f.vector.tolist()) for f in session.features] == [
        (f.index, f.vector.tolist()) for f in restored.features
    ]
    assert session.close(Reason.END) == restored.close(Reason.END)


def test_a_session_says_which_features_it_must_be_given_again():
    session = a_running_session()
    window = session.spec.window.window_snippets

    assert range(15 - window, 15) == session.kept_features
    assert list(session.kept_features) == [feature.index for feature in session.features]
    assert range(0) == StreamSession("cam", "e", a_spec()).kept_features
    session.break_segment()
    assert range(0) == session.kept_features


@pytest.mark.parametrize("missing", [0, 3, 7])
def test_a_feature_that_is_missing_is_named(missing):
    session = a_running_session()
    features = session.features
    index = features.pop(missing).index

    with pytest.raises(SnapshotError, match=f"1 of 8 features are missing, the first is {index}"):
        StreamSession.restore(session.snapshot(), a_spec(), features=features)
    features.append(replace(session.features[missing], segment=1))  # that is another one
    with pytest.raises(SnapshotError, match=f"1 of 8 features are missing, the first is {index}"):
        StreamSession.restore_or_succeed(session.snapshot(), a_spec(), features=features)


def test_a_feature_of_another_width_is_named():
    session = a_running_session()
    features = session.features
    features[2] = replace(features[2], vector=np.zeros(4, np.float32))

    with pytest.raises(SnapshotError, match=r"feature 9 is \(4,\), wanted \(3,\)"):
        StreamSession.restore(session.snapshot(), a_spec(), features=features)


def test_more_features_than_are_needed_do_no_harm_and_of_two_the_later_one_counts():
    session = a_running_session()
    (*_, last) = features = session.features
    wrong = replace(last, vector=last.vector + 1)
    others = [replace(one, index=one.index - 8) for one in features]
    more = [*others, wrong, *features, replace(last, segment=5)]

    restored = StreamSession.restore(session.snapshot(), a_spec(), features=more)

    wanted = [feature.vector.tolist() for feature in features]
    assert wanted == [feature.vector.tolist() for feature in restored.features]


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


def test_what_is_owed_goes_on_to_further_models_and_into_no_snapshot():
    first, second = (replace(a_spec(), model_id=f"scripted@{number}") for number in (1, 2))
    after = a_running_session().succeeded_by(first)
    assert 1 == len(after.owed)

    assert after.owed == after.succeeded_by(second).owed
    assert () == StreamSession.restore_or_succeed(after.snapshot(), first).owed
    assert () == StreamSession.restore_or_succeed(after.snapshot(), second).owed


@pytest.mark.parametrize("model_id", ["scripted@0", "scripted@1"])
@pytest.mark.parametrize("reason", [Reason.GAP, Reason.MODEL])
def test_a_stored_session_that_cannot_go_on_is_succeeded(model_id, reason):
    """No feature is needed for that."""
    session = a_running_session()
    (open_event,) = session.open_events
    spec = replace(a_spec(), model_id=model_id)

    after = StreamSession.succeed_stored(session.snapshot(), spec, reason=reason)

    (last,) = after.owed
    assert (open_event.event_id, 1 + open_event.revision, reason, True) == (
        last.event_id,
        last.revision,
        last.reason,
        last.final,
    )
    assert ("cam", "e", 7, Place("cam", 3), ()) == (
        after.camera,
        after.run,
        after.anchor_us,
        after.place,
        after.open_events,
    )
    assert (session.seen_us, range(0)) == (after.seen_us, after.kept_features)


def test_a_snapshot_of_version_2_is_read_with_the_features_in_it():
    spec = a_spec(camera_mean=a_camera_mean())
    session = StreamSession.restore(of_version_2(), spec, feature_id="f")

    place = Place("p", 3, 2, 9, ended_runs=("run-0",))
    assert ("cam", "run-1", 7, place) == (
        session.camera,
        session.run,
        session.anchor_us,
        session.place,
    )
    (open_event,) = session.open_events
    assert ("a037f78f-c6f5-52ec-92a0-d89550891ca0", 6) == (
        open_event.event_id,
        open_event.revision,
    )
    assert [(open_event.event_id, 6)] == [(r.event_id, r.revision) for r in session.owed]
    red = float(np.float16(np.float32(250 / 255)))  # rounded, though it was not kept so
    assert [(n, red, 0, 0) for n in range(8, 15)] == [
        (one.index, *one.vector.tolist()) for one in session.features[1:]
    ]
    assert (2_480_000, 25) == (session.seen_us, session.camera_mean.n_snippets)


def test_a_session_of_version_2_goes_on_as_if_nothing_had_been():
    """Compared with one of today that saw the same footage."""
    spec, n = a_spec(camera_mean=a_camera_mean()), 160
    video = frames_of(
        [i * 40_000 for i in range(n)], [0] * 30 + [250] * 60 + [0] * (n - 90), [0] * n
    )
    today = StreamSession("cam", "run-1", spec, feature_id="f")
    today.anchor_us = 7
    seen, rest = (
        FrameBatch(video.pts_us[rows], video.rgb[rows], 1) for rows in (slice(63), slice(60, n))
    )
    advance(today, seen)
    old = StreamSession.restore(of_version_2(), spec, feature_id="f")

    wanted, records = advance(today, rest), advance(old, rest)

    assert [(r.event_id, r.revision, r.phase, r.span) for r in wanted] == [
        (r.event_id, r.revision, r.phase, r.span) for r in records
    ]
    assert wanted[-1].final


def test_what_an_older_session_owes_comes_before_its_last_words():
    after = StreamSession.restore_or_succeed(of_version_2(), replace(a_spec(), model_id="b@0"))

    assert [(6, Reason.SCORE), (7, Reason.MODEL)] == [(r.revision, r.reason) for r in after.owed]


@pytest.mark.parametrize("owed", [[{"phase": "opened"}], 5])
def test_an_older_snapshot_whose_debts_are_damaged_is_refused(owed):
    blob = changed(of_version_2(), owed=owed)

    for spec in (a_spec(camera_mean=a_camera_mean()), replace(a_spec(), model_id="b@0")):
        with pytest.raises(SnapshotError, match="damaged"):
            StreamSession.restore_or_succeed(blob, spec)


def test_snapshots_of_version_2_can_be_made_for_other_tests():
    """In the form of the one that an older daemon left."""
    spec = a_spec(camera_mean=a_camera_mean())
    session = StreamSession.restore(of_version_2(), spec, feature_id="f")

    blob = as_version_2(session.snapshot(), session.features, session.owed)

    again = StreamSession.restore(blob, spec, feature_id="f")
    assert session.snapshot() == again.snapshot()
    assert session.owed == again.owed


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
        {"sampler": []},
        {"source": 3},
        {"source": {"offset": "3"}},
        {"source": {"low": True}},
        {"source": {"ended": ["a"]}},
    ],
)
def test_a_damaged_snapshot_of_another_model_is_refused(change):
    blob = changed(a_running_session().snapshot(), **change)

    with pytest.raises(SnapshotError, match="damaged"):
        StreamSession.restore_or_succeed(blob, replace(a_spec(), model_id="scripted@1"))
    with pytest.raises(SnapshotError, match="damaged"):
        StreamSession.succeed_stored(blob, a_spec(), reason=Reason.GAP)


@pytest.mark.parametrize("blob", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 50])
def test_a_damaged_snapshot_is_refused(blob):
    with pytest.raises(SnapshotError, match="unreadable"):
        StreamSession.restore(blob, a_spec())


def test_a_truncated_or_flipped_snapshot_is_refused_or_equal():
    session = a_running_session()
    blob = session.snapshot()
    for cut in range(0, len(blob), 97):
        with pytest.raises(SnapshotError):
            StreamSession.restore(blob[:cut], a_spec(), features=session.features)


def test_a_background_comes_back_bit_for_bit():
    session = a_running_session(camera_mean=a_camera_mean())
    restored = restored_from(session, camera_mean=a_camera_mean())

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
    assert restored_from(a_running_session()).camera_mean is None


def test_a_snapshot_whose_background_is_of_another_width_is_refused():
    session = a_running_session(camera_mean=a_camera_mean())
    blob = with_array(session.snapshot(), background=np.zeros(4))
    spec = a_spec(camera_mean=a_camera_mean())

    with pytest.raises(SnapshotError, match=r"damaged: a camera mean is float64 \(4,\)"):
        StreamSession.restore(blob, spec, features=session.features)


@pytest.mark.parametrize(
    "features", [np.zeros((8, 4)), np.zeros((9, 3)), np.zeros(8), np.array(["a"] * 8)]
)
def test_an_older_snapshot_whose_features_are_no_window_is_refused(features):
    blob = with_array(of_version_2(), features=features)

    with pytest.raises(SnapshotError, match="damaged"):
        StreamSession.restore(blob, a_spec(camera_mean=a_camera_mean()), feature_id="f")


def with_array(blob: bytes, **arrays: np.ndarray) -> bytes:
    """A snapshot with another array."""
    with np.load(io.BytesIO(blob)) as stored:
        kept = {**stored, **arrays}
    other = io.BytesIO()
    np.savez(other, **kept)
    return other.getvalue()


@pytest.mark.parametrize("version", [1, 4, "3"])
def test_a_snapshot_of_a_version_that_is_not_known_is_refused(version):
    blob = changed(a_running_session().snapshot(), version=version)

    with pytest.raises(SnapshotError, match=f"snapshot version is {version!r}, wanted 3"):
        StreamSession.restore(blob, a_spec())


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


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([EconomySpec(), EconomySpec(Rung.QUARTER, is_gated=True)]),
)
@settings(max_examples=300)
def test_a_damaged_snapshot_is_refused_and_nothing_else(changes, is_old, economy):
    session = a_running_session(economy=economy)
    session.place = Place("cam", 3, low_offset=1)
    blob = bytearray(
        as_version_2(session.snapshot(), session.features) if is_old else session.snapshot()
    )
    for place, value in changes:
        blob[place % len(blob)] = value
    for spec in (session.spec, replace(session.spec, model_id="scripted@1")):
        with contextlib.suppress(SnapshotError):
            restored = StreamSession.restore_or_succeed(
                bytes(blob), spec, features=session.features
            )
            done_of(restored)
            is_needed_again(restored.place, 2)
            claim_of(restored, a_chunk(b"", sequence=7))


places = st.builds(
    Place,
    partition=st.none() | st.text(),
    offset=st.none() | st.integers(0),
    low_offset=st.none() | st.integers(0),
    sequence=st.none() | st.integers(),
    producer_run=st.none() | st.text(),
    is_over=st.booleans(),
    ended_runs=st.lists(st.text(st.characters(exclude_characters="\n"), min_size=1)).map(tuple),
    ended_us=st.lists(st.integers()).map(tuple),
    rival=st.none() | st.builds(Rival, st.text(), *[st.integers()] * 3),
)


@given(places)
def test_a_place_comes_back_from_a_snapshot(place):
    assert place == Place.from_json(json.loads(json.dumps(place.to_json())))


def test_places_of_older_snapshots_are_read():
    """They say -1 where nothing is needed again."""
    stored = {"sequence": 7, "partition": "p", "offset": 3, "low": -1, "ended": "a\nb"}

    assert Place("p", 3, None, 7, ended_runs=("a", "b")) == Place.from_json(stored)
