import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import ActionEvent, Reason, SnippetFeature
from tests.support.scripted import (
    MeanColourExtractor,
    SmoothingLocalizer,
    a_background,
    a_spec,
    frames_of,
)


def a_running_session(**spec: object) -> StreamSession:
    session = StreamSession("cam", "e", a_spec(**spec))
    session.anchor_us = 7
    session.source["offset"] = 3
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
    assert ("cam", "e", 7, {"offset": 3}) == (
        restored.stream_id,
        restored.epoch,
        restored.anchor_us,
        restored.source,
    )
    assert session.close(Reason.END) == restored.close(Reason.END)


def test_a_snapshot_of_another_model_is_refused():
    blob = a_running_session().snapshot()

    with pytest.raises(SnapshotError, match="model_id is 'scripted@0', wanted 'scripted@1'"):
        StreamSession.restore(blob, replace(a_spec(), model_id="scripted@1"))


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
    session = a_running_session(background=a_background())
    restored = StreamSession.restore(session.snapshot(), a_spec(background=a_background()))

    assert session.background.mean.any()
    assert session.background.mean.tobytes() == restored.background.mean.tobytes()
    assert session.background.n_snippets == restored.background.n_snippets


def test_a_background_outlives_its_epoch():
    before = a_running_session(background=a_background())
    spec = a_spec(background=a_background())
    after = StreamSession("cam", "next", spec, background=before.background)

    assert before.background.mean.tobytes() == after.background.mean.tobytes()
    after.buffer([SnippetFeature(0, 0, np.ones(3, np.float32))])
    assert before.background.n_snippets + 1 == after.background.n_snippets


def test_a_camera_that_training_knew_starts_from_its_own_background():
    spec = a_spec(background=a_background())

    assert 0.5 == StreamSession("red-door", "e", spec).background.mean[0]
    assert 0.0 == StreamSession("blue-door", "e", spec).background.mean[0]


def test_a_model_without_backgrounds_keeps_none():
    assert a_running_session().background is None
    assert StreamSession.restore(a_running_session().snapshot(), a_spec()).background is None


def test_a_snapshot_whose_background_is_of_another_width_is_refused():
    blob = a_running_session(background=a_background()).snapshot()
    with np.load(io.BytesIO(blob)) as stored:
        arrays = {**stored, "background": np.zeros(4)}
    other = io.BytesIO()
    np.savez(other, **arrays)

    with pytest.raises(SnapshotError, match=r"damaged: a background is float64 \(4,\)"):
        StreamSession.restore(other.getvalue(), a_spec(background=a_background()))


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
    """The background learns from every feature, so it above all must not look ahead."""
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.random((12, 3), np.float32), 5, axis=0)
    changed = features.copy()
    changed[split:] = rng.random((60 - split, 3), np.float32)
    spec = a_spec(background=a_background())

    def records(rows) -> list[ActionEvent]:
        session = StreamSession("red-door", "e", spec)
        windows = session.buffer([SnippetFeature(i, 0, row) for i, row in enumerate(rows)])
        return session.track(SmoothingLocalizer().localize(windows))

    until_us = spec.timeline.snippet_end_us(split - 1)
    before, after = (
        [r for r in records(rows) if r.decided_us <= until_us] for rows in (features, changed)
    )
    assert before == after
