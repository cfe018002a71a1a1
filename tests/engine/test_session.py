from dataclasses import replace

import pytest

from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import Reason
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec, frames_of


def a_running_session() -> StreamSession:
    session = StreamSession("cam", "e", a_spec())
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
