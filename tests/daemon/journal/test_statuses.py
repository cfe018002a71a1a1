"""A camera's status as JSON: as its schema says, whatever is known."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from daemon.journal.base import CameraStatus, Condition, Owner, Presence
from daemon.journal.statuses import status_json, status_record
from daemon.wire.schemas import camera_status_schema
from engine.spec import Rung
from tests.support.records import names

MOMENTS = st.integers(0, 4_000_000_000_000_000)
NUMBERS = st.integers(0, 2**40)


def a_status(**other: Any) -> CameraStatus:
    fields: dict[str, Any] = {
        "camera": "door",
        "state": Presence.SILENT,
        "at_us": 1_780_000_000_000_000,
        "partition": "chunks/3",
        "owner": Owner("host-1", "member-1"),
        "model_id": "tiny@1",
        "run": "run-1",
        "silent_since_us": 1_779_999_999_000_000,
        "n_queued": 1,
        "n_behind": 20,
        "n_gaps": 2,
        "n_refused": 3,
        "watermark_us": 4_000_000,
        "anchor_us": 1_770_000_000_000_000,
        "last_offset": 812,
        "last_chunk_us": 1_779_999_999_000_000,
        "condition": Condition.SILENT,
        "last_frame_us": 1_779_999_997_750_000,
        "lag_s": 1.25,
        "fps": 24.975,
        "snippets_per_minute": 187,
    }
    return CameraStatus(**(fields | other))


def test_a_status_is_plain_to_read() -> None:
    assert {
        "camera_id": "door",
        "site": "depot",
        "state": "silent",
        "updated": "2026-05-28T20:26:40.000000Z",
        "silent_since": "2026-05-28T20:26:39.000000Z",
        "condition": "silent",
        "lag": {"queued": 1, "partition": 20, "seconds": 1.25},
        "last_frame": "2026-05-28T20:26:37.750000Z",
        "fps": 24.98,
        "snippets_per_minute": 187,
        "gaps": 2,
        "refused_chunks": 3,
        "degraded": [],
        "rung": "full",
        "epoch": "run-1",
        "watermark": {"time": "2026-02-02T02:40:04.000000Z", "stream_us": 4_000_000},
        "model": {"id": "tiny@1"},
        "owner": {"host": "host-1", "instance": "member-1"},
        "partition": "chunks/3",
        "last_chunk": {"offset": 812, "time": "2026-05-28T20:26:39.000000Z"},
    } == status_json(a_status(), site="depot")


@given(
    st.builds(
        CameraStatus,
        camera=names(),
        state=st.sampled_from([Presence.ONLINE, Presence.SILENT, Presence.REFUSED]),
        at_us=MOMENTS,
        partition=names(),
        owner=st.builds(Owner, names(), st.none() | names()),
        model_id=names(),
        run=st.just("") | names(),
        silent_since_us=st.none() | MOMENTS,
        n_queued=NUMBERS,
        n_behind=st.none() | NUMBERS,
        n_gaps=NUMBERS,
        n_refused=NUMBERS,
        degraded=st.lists(names(), max_size=2).map(tuple),
        rung=st.sampled_from(Rung),
        watermark_us=st.none() | st.integers(-(2**40), 2**40),
        anchor_us=st.none() | MOMENTS,
        last_offset=st.none() | NUMBERS,
        last_chunk_us=MOMENTS,
        condition=st.sampled_from(Condition),
        last_frame_us=st.none() | MOMENTS,
        lag_s=st.none() | st.floats(-1e6, 1e6),
        fps=st.none() | st.floats(0, 1e4),
        snippets_per_minute=NUMBERS,
    )
)
def test_every_status_is_as_the_schema_says(status: CameraStatus) -> None:
    record = status_record(status, site="depot")

    Draft202012Validator(camera_status_schema()).validate(json.loads(record.value))
    assert status.camera.encode() == record.key
    assert dict(record.headers)["ce_dataschema"].decode() == camera_status_schema()["$id"]


@pytest.mark.parametrize("key", ["state", "owner", "lag"])
def test_the_schema_refuses_what_is_no_status(key: str) -> None:
    plain = status_json(a_status(), site="depot")
    del plain[key]

    assert not Draft202012Validator(camera_status_schema()).is_valid(plain)


def test_of_a_forgotten_camera_nothing_is_left() -> None:
    record = status_record(a_status(state=Presence.FORGOTTEN), site="depot")

    assert (b"door", [], b"") == (record.key, record.headers, record.value)
