"""Records say what the values say, and a record that lies is told from one that is damaged."""

import contextlib
import json
import zlib
from fractions import Fraction
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import MalformedRecordError
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import (
    EVENT_SCHEMA_ID,
    EVENT_TYPES,
    Record,
    chunk_record,
    event_json,
    event_record,
    parse_chunk,
    parse_event,
    readable_camera,
)
from engine.errors import CorruptChunkError, StreamError
from engine.types import ActionEvent, Evidence, Phase, Reason, VideoChunk
from tests.support.records import ANCHOR_US, a_chunk, an_end, an_event, chunks, events

FACTS = ChunkFacts("video/mp4", 1_000_000, 25, 320, 240, "arrival")
SCHEMA: dict[str, Any] = json.loads(
    files("daemon").joinpath("schemas/action-event.v1.json").read_text(encoding="utf-8")
)


def parse(record: Record, **changes: Any) -> VideoChunk:
    fields: dict[str, Any] = {"key": record.key, "headers": record.headers, "value": record.value}
    fields |= {"timestamp_us": 1, "offset": 9} | changes
    return parse_chunk(fields.pop("key"), fields.pop("headers"), fields.pop("value"), **fields)


def with_header(record: Record, name: str, value: bytes | None) -> list[tuple[str, bytes]]:
    kept = [header for header in record.headers if header[0] != name]
    return kept if value is None else [*kept, (name, value)]


@given(chunks())
def test_a_chunk_survives_the_journey(chunk: VideoChunk) -> None:
    assert chunk == parse(chunk_record(chunk, FACTS, site="hall 1/ä"))


def test_a_chunk_without_ticks_keeps_its_time() -> None:
    chunk = a_chunk(start_ticks=None, time_base=None, start_us=1_234_567)

    parsed = parse(chunk_record(chunk, FACTS, site="s"))

    assert 1_234_567 == parsed.start_us
    assert (1_234_567, Fraction(1, 1_000_000)) == (parsed.start_ticks, parsed.time_base)


def test_a_chunk_record_reads_like_this() -> None:
    chunk = a_chunk("door", 3, anchor_us=0, payload=b"abc")

    record = chunk_record(chunk, FACTS, site="hall")

    assert (b"door", b"abc") == (record.key, record.value)
    assert {
        "ce_specversion": b"1.0",
        "ce_type": b"io.s2netd.video.chunk.v1",
        "ce_id": b"door-run-1-3",
        "ce_source": b"/hall/door",
        "ce_time": b"1970-01-01T00:00:03.000000Z",
        "ce_partitionkey": b"door",
        "ce_sequence": b"00000000000000000003",
        "content-type": b"video/mp4",
        "vc_epoch": b"run-1",
        "vc_pts_start": b"270000",
        "vc_timebase": b"1/90000",
        "vc_duration_ms": b"1000",
        "vc_frames": b"25",
        "vc_width": b"320",
        "vc_height": b"240",
        "vc_keyframe": b"1",
        "vc_crc32": f"{zlib.crc32(b'abc'):08x}".encode(),
        "vc_clock": b"arrival",
    } == dict(record.headers)


def test_what_is_not_known_is_not_written() -> None:
    record = chunk_record(a_chunk(anchor_us=None), ChunkFacts(), site="s")

    unknown = {"ce_time", "vc_clock", "vc_frames", "vc_width", "vc_height", "vc_duration_ms"}
    assert unknown.isdisjoint(dict(record.headers))


def test_a_foreign_record_is_a_chunk_at_its_own_time() -> None:
    chunk = parse_chunk(b"gate", [("app", b"x")], b"abc", timestamp_us=5_000_000, offset=17)

    assert VideoChunk("gate", "0", 17, 5_000_000, b"abc", anchor_us=0) == chunk


def test_a_record_without_key_belongs_to_the_default_camera() -> None:
    chunk = parse_chunk(None, [], b"abc", timestamp_us=1, offset=0, default_camera="chunks/0")

    assert "chunks/0" == chunk.camera


@pytest.mark.parametrize(
    ("header", "value", "named"),
    [
        ("ce_sequence", b"-1", "ce_sequence is -1"),
        ("ce_sequence", b"1.5", "ce_sequence is '1.5'"),
        ("ce_sequence", b"9" * 5000, "wanted a whole number"),
        ("ce_sequence", "\u0663".encode(), "wanted a whole number"),
        ("ce_sequence", None, "ce_sequence is None"),
        ("ce_type", b"io.s2netd.video.chunk.v2", "wanted io.s2netd.video.chunk.v1"),
        ("ce_partitionkey", b"yard", "key is 'door' but ce_partitionkey is 'yard'"),
        ("ce_time", b"yesterday", "wanted RFC 3339"),
        ("ce_time", b"2026-01-31T09:30:00", "wanted RFC 3339"),
        ("ce_time", b"9999-12-31T23:59:59Z", "ce_time is 2534"),
        ("ce_time", b"1969-12-31T23:59:59Z", "ce_time is -1000000"),
        ("vc_pts_start", b"-1", "vc_pts_start is -1"),
        ("vc_epoch", b"", "1..200 printable"),
        ("vc_epoch", b"e" * 201, "1..200 printable"),
        ("vc_epoch", b"\xff", "wanted UTF-8"),
        ("vc_pts_start", b"99999999999999999999", "vc_pts_start is"),
        ("vc_pts_start", b"1e3", "wanted a whole number"),
        ("vc_timebase", b"0/1", "wanted seconds a tick"),
        ("vc_timebase", b"1/0", "wanted seconds a tick"),
        ("vc_timebase", b"9999999999/1", "vc_pts_start is"),
        ("vc_timebase", None, "wanted seconds a tick"),
        ("vc_end", b"yes", "wanted 0 or 1"),
        ("vc_end", b"1", "vc_end with"),
    ],
)
def test_a_header_that_lies_is_named(header: str, value: bytes | None, named: str) -> None:
    record = chunk_record(a_chunk(start_ticks=10**9, start_us=0), FACTS, site="s")

    with pytest.raises(MalformedRecordError, match=named):
        parse(record, headers=with_header(record, header, value))


def test_a_header_given_twice_is_a_lie() -> None:
    record = chunk_record(a_chunk(), FACTS, site="s")

    with pytest.raises(MalformedRecordError, match="vc_epoch is there twice"):
        parse(record, headers=[*record.headers, ("vc_epoch", b"run-2")])


def test_a_header_without_value_is_a_lie() -> None:
    record = chunk_record(a_chunk(), FACTS, site="s")

    with pytest.raises(MalformedRecordError, match="header vc_note has no value"):
        parse(record, headers=[*record.headers, ("vc_note", None)])


def test_a_key_that_is_no_name_is_a_lie() -> None:
    record = chunk_record(a_chunk(), FACTS, site="s")

    with pytest.raises(MalformedRecordError, match="wanted a camera's name"):
        parse(record, key=b"\xff\xfe")
    with pytest.raises(MalformedRecordError, match="printable"):
        parse_chunk(b"do\nor", [], b"x", timestamp_us=1, offset=0)
    with pytest.raises(MalformedRecordError, match="no key"):
        parse_chunk(None, [], b"x", timestamp_us=1, offset=0)
    with pytest.raises(MalformedRecordError, match="timestamp is -1000"):
        parse_chunk(b"door", [], b"x", timestamp_us=-1000, offset=0)


@pytest.mark.parametrize("payload", [b"", None, b"payload 0 of dooR"])
def test_a_payload_that_is_not_what_was_sent_is_corrupt(payload: bytes | None) -> None:
    record = chunk_record(a_chunk("door", 0), FACTS, site="s")

    with pytest.raises(CorruptChunkError):
        parse(record, value=payload)


def test_a_foreign_record_without_payload_is_corrupt() -> None:
    with pytest.raises(CorruptChunkError, match="offset 4 is empty"):
        parse_chunk(b"door", [], None, timestamp_us=1, offset=4)


def test_an_end_may_come_as_a_tombstone() -> None:
    record = chunk_record(an_end("door", 4), ChunkFacts(), site="s")

    assert an_end("door", 4) == parse(record, value=None)


@given(
    st.none() | st.binary(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from(["vc_epoch", "ce_sequence", "vc_pts_start", "vc_timebase", "ce_time"]),
            st.binary(max_size=30),
        ),
        max_size=6,
    ),
    st.none() | st.binary(max_size=20),
    st.integers(-(2**63), 2**63),
)
def test_no_record_raises_anything_but_a_stream_error(
    key: bytes | None,
    headers: list[tuple[str, bytes]],
    value: bytes | None,
    timestamp_us: int,
) -> None:
    with contextlib.suppress(StreamError):
        chunk = parse_chunk(key, headers, value, timestamp_us=timestamp_us, offset=0)
        assert chunk.camera.isprintable()


@given(st.none() | st.binary(max_size=300))
def test_the_camera_of_a_bad_record_is_safe_to_print(key: bytes | None) -> None:
    name = readable_camera(key, "chunks/0")

    assert name.isprintable()
    assert 0 < len(name) <= 200


@given(events())
def test_an_event_survives_the_journey(event: ActionEvent) -> None:
    again = parse_event(event_record(event, site="s").value)

    assert event == again
    assert (event.evidence, event.watermark_us, event.rung) == (
        again.evidence,
        again.watermark_us,
        again.rung,
    )


@given(events())
def test_every_event_record_keeps_the_published_schema(event: ActionEvent) -> None:
    plain = json.loads(event_record(event, site="s").value)

    jsonschema.validate(plain, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert set(SCHEMA["properties"]) == set(plain), "a field is not in the schema"


@pytest.mark.parametrize(
    "change",
    [
        {"revision": -1},
        {"state": "begun"},
        {"state": "closed"},  # but not final
        {"reason": "whim"},
        {"duration_s": 0},
        {"start": {"time": "2026-01-31 09:30", "stream_us": 1}},
        {"model": {}},
    ],
)
def test_the_schema_refuses_what_no_event_is(change: dict[str, Any]) -> None:
    plain = event_json(an_event(), site="s") | change

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, SCHEMA)


def test_the_schema_and_the_types_list_the_same_words() -> None:
    assert {reason.value for reason in Reason} == set(SCHEMA["properties"]["reason"]["enum"])
    assert set(Phase) == set(EVENT_TYPES)
    assert EVENT_SCHEMA_ID == SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_an_event_record_reads_like_this() -> None:
    evidence = Evidence("chunks/3", 5, 8)
    event = an_event("e1", 2, anchor_us=0, evidence=evidence, watermark_us=2_000_000, rung="half")

    record = event_record(event, site="hall")

    assert b"door" == record.key
    assert {
        "ce_specversion": b"1.0",
        "ce_type": b"io.s2netd.action.ended.v1",
        "ce_id": b"e1.2",
        "ce_source": b"/hall/door",
        "ce_subject": b"e1",
        "ce_time": b"1970-01-01T00:00:04.000000Z",
        "ce_partitionkey": b"door",
        "ce_dataschema": b"urn:s2netd:schema:action-event:v1",
        "content-type": b"application/json",
    } == dict(record.headers)
    assert {
        "event_id": "e1",
        "revision": 2,
        "state": "closed",
        "final": True,
        "reason": "score",
        "camera_id": "door",
        "site": "hall",
        "epoch": "run-1",
        "label": "opening bottle",
        "label_id": 4,
        "start": {"time": "1970-01-01T00:00:01.000000Z", "stream_us": 1_000_000},
        "end": {"time": "1970-01-01T00:00:03.000002Z", "stream_us": 3_000_002},
        "duration_s": 2.000002,
        "score": 0.75,
        "peak": None,
        "decided": {"time": "1970-01-01T00:00:04.000000Z", "stream_us": 4_000_000},
        "watermark": {"time": "1970-01-01T00:00:02.000000Z", "stream_us": 2_000_000},
        "evidence": {"topic": "chunks", "partition": 3, "first_offset": 5, "last_offset": 8},
        "model": {"id": "kinetics400@0123456789ab"},
        "quality": {"rung": "half"},
    } == json.loads(record.value)


def test_times_are_null_when_nobody_knows_them() -> None:
    event = an_event(anchor_us=None)

    record = event_record(event, site="s")

    assert "ce_time" not in dict(record.headers)
    plain = json.loads(record.value)
    assert [None] * 3 == [plain[moment]["time"] for moment in ("start", "end", "decided")]


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b'{"revision": 1}', b"\xff"])
def test_what_is_no_event_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedRecordError, match="not an action event of v1"):
        parse_event(value)


def test_readers_ignore_fields_they_do_not_know() -> None:
    plain = event_json(an_event(anchor_us=ANCHOR_US), site="s") | {"later": 1}

    assert an_event(anchor_us=ANCHOR_US) == parse_event(json.dumps(plain).encode())
