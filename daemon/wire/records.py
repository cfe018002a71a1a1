"""Records ↔ values: the bytes and headers of video chunks and of events' revisions.

Both are CloudEvents 1.0 in Kafka's binary mode. Attributes travel as ``ce_*`` headers, and what
is particular to video as ``vc_*`` headers. The record's value is the raw bytes of one closed GOP
(``kcat -C -f %s ... | ffplay -`` plays a run) or plain JSON. A directory of chunk files keeps the
same headers in a JSON file beside each chunk.

Nothing here decodes video. What is not known is not written: a header without a value is left out.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from daemon.errors import MalformedRecordError
from daemon.wire.facts import ChunkFacts
from daemon.wire.headers import (
    MAX_NAME_CHARS,
    MAX_US,
    Fields,
    Headers,
    read_flag,
    read_name,
    read_number,
    read_rfc3339,
    read_time_base,
    rfc3339,
    to_fields,
    to_headers,
    within,
)
from engine.errors import CorruptChunkError
from engine.grid import US_PER_S, ticks_to_us
from engine.types import FOREIGN_RUN, ActionEvent, Evidence, Phase, Reason, Span, VideoChunk

CHUNK_TYPE = "io.s2netd.video.chunk.v1"
EVENT_TYPES = {
    Phase.OPENED: "io.s2netd.action.started.v1",
    Phase.UPDATED: "io.s2netd.action.updated.v1",
    Phase.CLOSED: "io.s2netd.action.ended.v1",
    Phase.RETRACTED: "io.s2netd.action.retracted.v1",
}
EVENT_SCHEMA_ID = "urn:s2netd:schema:action-event:v1"
_YEAR_2200 = 7_258_118_400_000_000  # microseconds since 1970

_STATES = {Phase.CLOSED: "closed", Phase.RETRACTED: "retracted"}


@dataclass(frozen=True, slots=True)
class Record:
    """A record of Kafka: key, headers and value; in a directory of chunks it becomes two files."""

    key: bytes
    headers: Headers
    value: bytes


def chunk_record(chunk: VideoChunk, facts: ChunkFacts, *, site: str) -> Record:
    """A chunk as a record; its key is the camera, so that one camera's chunks stay in order."""
    headers = chunk_headers(chunk, facts, site=site)
    return Record(chunk.camera.encode(), headers, chunk.payload)


def chunk_headers(chunk: VideoChunk, facts: ChunkFacts, *, site: str) -> Headers:
    """The headers of a chunk's record."""
    start_ticks, time_base = chunk.start_ticks, chunk.time_base
    if start_ticks is None or time_base is None:
        start_ticks, time_base = chunk.start_us, Fraction(1, US_PER_S)
    has_video, has_anchor = not chunk.is_end, chunk.anchor_us is not None
    duration_us = facts.duration_us
    return to_headers(
        {
            "ce_specversion": "1.0",
            "ce_type": CHUNK_TYPE,
            "ce_id": f"{chunk.camera}-{chunk.run}-{chunk.sequence}",
            "ce_source": source_of(site, chunk.camera),
            "ce_time": _capture_time(chunk.anchor_us, chunk.start_us),
            "ce_partitionkey": chunk.camera,
            "ce_sequence": f"{chunk.sequence:020d}",
            "content-type": facts.content_type if has_video else None,
            "vc_epoch": chunk.run,
            "vc_pts_start": start_ticks,
            "vc_timebase": f"{time_base.numerator}/{time_base.denominator}",
            "vc_duration_ms": None if duration_us is None else round(duration_us / 1000),
            "vc_frames": facts.n_frames,
            "vc_width": facts.width,
            "vc_height": facts.height,
            "vc_keyframe": "1" if has_video else None,
            "vc_crc32": f"{zlib.crc32(chunk.payload):08x}" if has_video else None,
            "vc_clock": facts.clock if has_anchor else None,
            "vc_discontinuity": "1" if chunk.discontinuity else None,
            "vc_end": "1" if chunk.is_end else None,
        }
    )


def parse_chunk(
    key: bytes | None,
    headers: Iterable[tuple[str, bytes]],
    value: bytes | None,
    *,
    timestamp_us: int,
    offset: int,
    default_camera: str | None = None,
) -> VideoChunk:
    """Read a chunk's record, of `s2netd produce` or of a foreign producer.

    A record without ``vc_epoch`` is foreign: its camera is the key, its time the record's time,
    and its sequence number the offset.

    Args:
        key: The record's key.
        headers: The record's headers.
        value: The record's value.
        timestamp_us: The record's time, in Unix microseconds.
        offset: The record's offset.
        default_camera: The camera of records that have no key.

    Raises:
        MalformedRecordError: A header is missing, unreadable, or contradicts another.
        CorruptChunkError: The payload is not what the producer sent, or there is none.
    """
    fields = to_fields(headers)
    camera = _camera(key, fields, default_camera)
    if "vc_epoch" in fields:
        return _parse_ours(camera, fields, value or b"")
    if not value:
        raise CorruptChunkError(f"camera {camera}: the record at offset {offset} is empty")
    start_us = within("the record's timestamp", timestamp_us, MAX_US)
    return VideoChunk(camera, FOREIGN_RUN, offset, start_us, value, anchor_us=0)


def readable_camera(key: bytes | None, default_camera: str) -> str:
    """The camera that a bad record probably belongs to; safe to log and to label a metric."""
    text = key.decode("utf-8", "backslashreplace") if key else default_camera
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_NAME_CHARS])


def _parse_ours(camera: str, fields: Fields, payload: bytes) -> VideoChunk:
    if fields.get("ce_type", CHUNK_TYPE) != CHUNK_TYPE:
        raise MalformedRecordError(f"ce_type is {fields['ce_type']!r}, wanted {CHUNK_TYPE}")
    is_end = read_flag(fields, "vc_end")
    _check_payload(camera, fields, payload, is_end=is_end)
    start_ticks = read_number(fields, "vc_pts_start", MAX_US)
    time_base = read_time_base(fields, "vc_timebase")
    start_us = within("vc_pts_start", ticks_to_us(start_ticks, time_base), MAX_US)
    return VideoChunk(
        camera=camera,
        run=read_name("vc_epoch", fields["vc_epoch"]),
        sequence=read_number(fields, "ce_sequence", MAX_US),
        start_us=start_us,
        payload=payload,
        start_ticks=start_ticks,
        time_base=time_base,
        anchor_us=_anchor_us(fields, start_us),
        is_end=is_end,
        discontinuity=read_flag(fields, "vc_discontinuity"),
    )


def _check_payload(camera: str, fields: Fields, payload: bytes, *, is_end: bool) -> None:
    where = f"camera {camera}: chunk {fields.get('ce_sequence')}"
    if is_end and payload:
        raise MalformedRecordError(f"{where}: vc_end with {len(payload)} bytes, wanted none")
    if not is_end and not payload:
        raise CorruptChunkError(f"{where}: no payload and no vc_end")
    wanted, seen = fields.get("vc_crc32"), f"{zlib.crc32(payload):08x}"
    if wanted is not None and wanted.lower() != seen:
        raise CorruptChunkError(f"{where}: the payload's CRC-32 is {seen}, vc_crc32 is {wanted!r}")


def event_record(event: ActionEvent, *, site: str) -> Record:
    """An event's revision as a record; its key is the camera, whose events so stay in order."""
    headers = to_headers(
        {
            "ce_specversion": "1.0",
            "ce_type": EVENT_TYPES[event.phase],
            "ce_id": f"{event.event_id}.{event.revision}",
            "ce_source": source_of(site, event.camera),
            "ce_subject": event.event_id,
            "ce_time": _capture_time(event.anchor_us, event.decided_us),
            "ce_partitionkey": event.camera,
            "ce_dataschema": EVENT_SCHEMA_ID,
            "content-type": "application/json",
        }
    )
    return Record(event.camera.encode(), headers, event_line(event, site=site))


def event_line(event: ActionEvent, *, site: str) -> bytes:
    """An event's revision as the value of a record: one line of JSON, without the line end."""
    return json_line(event_json(event, site=site))


def json_line(plain: Mapping[str, Any]) -> bytes:
    """Plain values as one line of JSON, without the line end."""
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event_json(event: ActionEvent, *, site: str) -> dict[str, Any]:
    """An event's revision as JSON; ``schemas/action-event.v1.json`` describes the fields."""

    def moment(stream_us: int | None) -> dict[str, Any] | None:
        return moment_json(event.anchor_us, stream_us)

    return {
        "event_id": event.event_id,
        "revision": event.revision,
        "state": _STATES.get(event.phase, "open"),
        "final": event.final,
        "reason": event.reason.value,
        "camera_id": event.camera,
        "site": site,
        "epoch": event.run,
        "label": event.class_name,
        "label_id": event.class_index,
        "start": moment(event.span.start_us),
        "end": moment(event.span.end_us),
        "duration_s": event.span.duration_us / US_PER_S,
        "score": float(event.score),
        "peak": moment(event.peak_us),
        "decided": moment(event.decided_us),
        "watermark": moment(event.watermark_us),
        "evidence": _evidence_json(event.evidence),
        "model": {"id": event.model_id},
        "quality": None if event.rung is None else {"rung": event.rung},
    }


def event_schema() -> dict[str, Any]:
    """The JSON Schema of the value of an event's record."""
    text = files("daemon").joinpath("schemas/action-event.v1.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def parse_event(value: bytes) -> ActionEvent:
    """Read an event's revision back from the value of its record; unknown fields are ignored.

    Raises:
        MalformedRecordError: It is no event of this schema version.
    """
    try:
        plain = json.loads(value)
        return _event(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedRecordError(f"not an action event of v1: {error!r}") from error


def _event(plain: Mapping[str, Any]) -> ActionEvent:
    phases = {state: phase for phase, state in _STATES.items()}
    opening = Phase.UPDATED if plain["revision"] else Phase.OPENED
    start = plain["start"]
    time = start["time"]
    return ActionEvent(
        event_id=plain["event_id"],
        camera=plain["camera_id"],
        run=plain["epoch"],
        revision=plain["revision"],
        phase=phases.get(plain["state"], opening),
        reason=Reason(plain["reason"]),
        class_index=plain["label_id"],
        class_name=plain["label"],
        span=Span(start["stream_us"], plain["end"]["stream_us"]),
        score=plain["score"],
        decided_us=plain["decided"]["stream_us"],
        anchor_us=None if time is None else read_rfc3339("start.time", time) - start["stream_us"],
        model_id=plain["model"]["id"],
        # Events of before do not have these.
        peak_us=_stream_us(plain.get("peak")),
        watermark_us=_stream_us(plain.get("watermark")),
        evidence=_evidence(plain.get("evidence")),
        rung=None if plain.get("quality") is None else plain["quality"]["rung"],
    )


def _stream_us(moment: Mapping[str, Any] | None) -> int | None:
    return None if moment is None else int(moment["stream_us"])


def _evidence_json(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    topic, _, number = evidence.partition.rpartition("/")
    return {
        "topic": topic or None,
        "partition": int(number) if topic else number,
        "first_offset": evidence.first_offset,
        "last_offset": evidence.last_offset,
    }


def _evidence(plain: Mapping[str, Any] | None) -> Evidence | None:
    if plain is None:
        return None
    topic, partition = plain["topic"], str(plain["partition"])
    name = f"{topic}/{partition}" if topic else partition
    return Evidence(name, int(plain["first_offset"]), int(plain["last_offset"]))


def moment_json(anchor_us: int | None, stream_us: int | None) -> dict[str, Any] | None:
    """A moment of stream time as JSON, with its wall-clock time if that is known."""
    if stream_us is None:
        return None
    return {"time": _capture_time(anchor_us, stream_us), "stream_us": stream_us}


def _capture_time(anchor_us: int | None, stream_us: int) -> str | None:
    return rfc3339(None if anchor_us is None else anchor_us + stream_us)


def _anchor_us(fields: Fields, start_us: int) -> int | None:
    """Unix time of stream time 0, in microseconds, within 1970..2199 so that no sum overflows."""
    text = fields.get("ce_time")
    if text is None:
        return None
    return within(
        "ce_time less vc_pts_start", read_rfc3339("ce_time", text) - start_us, _YEAR_2200
    )


def source_of(site: str, camera: str) -> str:
    """The ``ce_source`` of a camera's records."""
    return f"/{quote(site, safe='')}/{quote(camera, safe='')}"


def _camera(key: bytes | None, fields: Fields, default: str | None) -> str:
    try:
        by_key = key.decode("utf-8") if key else None
    except UnicodeDecodeError as error:
        raise MalformedRecordError(f"the key is {key!r}, wanted a camera's name") from error
    by_header = fields.get("ce_partitionkey")
    if by_key is not None and by_header is not None and by_key != by_header:
        raise MalformedRecordError(f"key is {by_key!r} but ce_partitionkey is {by_header!r}")
    camera = by_key or by_header or default
    if camera is None:
        raise MalformedRecordError("no key: a chunk's key is its camera's name")
    return read_name("the camera's name", camera)
