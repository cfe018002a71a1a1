"""Records of the journal's own topics ↔ values: cameras' states, features, newest revisions.

States and features are keyed by camera, and lie in the partition with the number of the camera's
chunks. Numbers in headers are decimal digits.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from daemon.errors import MalformedRecordError
from daemon.journal.base import CameraState, FeatureRows
from daemon.wire.headers import to_headers
from daemon.wire.records import Record, event_record
from engine.types import ActionEvent, Phase, Reason

_STATE, _FEATURES = "1", "1"  # versions
_ITEM_BYTES = 2
_FEATURES_STEP = "vf_step"
_MOST_DIGITS = 18  # of a number of 64 bits, whatever it is


@dataclass(frozen=True, slots=True)
class StoredState:
    """A camera's state, as it lies in the state topic.

    Attributes:
        state: The state.
        features_offset: Where in the feature log the features begin that it needs.
        log_id: Names the log of chunks that the state's offsets count in.
    """

    state: CameraState
    features_offset: int
    log_id: str = ""


def state_record(camera: str, stored: StoredState | None) -> Record:
    """A camera's state; None: the camera is forgotten, which compaction needs to be told."""
    if stored is None:
        return Record(camera.encode(), [], b"")
    state = stored.state
    headers = to_headers(
        {
            "vs_version": _STATE,
            "vs_low_offset": state.low_offset,
            "vs_epoch": state.run,
            "vs_first_feature": state.first_feature,
            "vs_features_offset": stored.features_offset,
            "vs_log_id": stored.log_id,
            "vs_silent_since": state.silent_since_us,
        }
    )
    return Record(camera.encode(), headers, state.blob)


def parse_state(headers: Iterable[tuple[str, bytes]], value: bytes) -> StoredState:
    """The inverse of ``state_record``.

    Raises:
        MalformedRecordError: It is no state of this version.
    """
    fields = _fields(headers, "vs_version", _STATE)
    state = CameraState(
        blob=value,
        low_offset=_number(fields, "vs_low_offset"),
        run=fields.get("vs_epoch", ""),
        first_feature=_number(fields, "vs_first_feature"),
        silent_since_us=_number(fields, "vs_silent_since"),
    )
    offset = _number(fields, "vs_features_offset") or 0
    return StoredState(state, offset, fields.get("vs_log_id", ""))


def features_record(rows: FeatureRows, step: int) -> Record:
    """Feature rows of a step: the value is float16 (N, D), little-endian, row by row.

    An end marker has no rows, and says in ``vf_closed`` why the segment was ended.
    """
    n_rows, dim = rows.vectors.shape
    headers = to_headers(
        {
            "vf_version": _FEATURES,
            "vf_epoch": rows.run,
            "vf_segment": rows.segment,
            "vf_first_index": rows.first_index,
            "vf_rows": n_rows,
            "vf_dim": dim,
            "vf_made_by": rows.feature_id,
            "vf_anchor_us": rows.anchor_us,
            "vf_closed": None if rows.closed is None else rows.closed.value,
            _FEATURES_STEP: step,
        }
    )
    return Record(rows.camera.encode(), headers, rows.vectors.astype("<f2").tobytes())


def parse_features(
    key: bytes | None, headers: Iterable[tuple[str, bytes]], value: bytes
) -> FeatureRows:
    """The inverse of ``features_record``.

    Raises:
        MalformedRecordError: They are no features of this version.
    """
    fields = _fields(headers, "vf_version", _FEATURES)
    n_rows, dim = _size(fields, "vf_rows"), _size(fields, "vf_dim")
    if n_rows * dim * _ITEM_BYTES != len(value):
        raise MalformedRecordError(
            f"features of {n_rows} x {dim} in {len(value)} bytes, wanted {_ITEM_BYTES} a number"
        )
    segment, first_index = _number(fields, "vf_segment"), _number(fields, "vf_first_index")
    if segment is None or first_index is None:
        raise MalformedRecordError("features without vf_segment and vf_first_index")
    return FeatureRows(
        camera=(key or b"").decode("utf-8", "replace"),
        run=fields.get("vf_epoch", ""),
        segment=segment,
        first_index=first_index,
        vectors=np.frombuffer(value, "<f2").reshape(n_rows, dim).astype(np.float16),
        feature_id=fields.get("vf_made_by", ""),
        anchor_us=_number(fields, "vf_anchor_us"),
        closed=_reason(fields, "vf_closed"),
    )


def step_of(headers: Iterable[tuple[str, bytes]]) -> int:
    """The step of a record of features; 0 if it does not say, as those of older releases."""
    text = dict(headers).get(_FEATURES_STEP) or b""  # Kafka allows one without a value
    return int(text) if text.isdigit() and len(text) <= _MOST_DIGITS else 0


def latest_records(revisions: Sequence[ActionEvent], *, site: str) -> list[Record]:
    """The newest revision of each event, keyed by event.

    What was retracted is told, and then taken out, so that readers who come late see none of it.
    """
    records: list[Record] = []
    for event in {event.event_id: event for event in revisions}.values():
        key = event.event_id.encode()
        records.append(replace(event_record(event, site=site), key=key))
        if event.phase is Phase.RETRACTED:
            records.append(Record(key, [], b""))
    return records


def _fields(headers: Iterable[tuple[str, bytes]], name: str, version: str) -> dict[str, str]:
    try:
        fields = {key: value.decode() for key, value in headers}
    except UnicodeDecodeError as error:
        raise MalformedRecordError(f"a header is no text: {error}") from error
    if fields.get(name) != version:
        raise MalformedRecordError(f"{name} is {fields.get(name)!r}, wanted {version!r}")
    return fields


def _size(fields: Mapping[str, str], name: str) -> int:
    number = _number(fields, name)
    if number is None or number < 0:
        raise MalformedRecordError(
            f"{name} is {fields.get(name)!r}, wanted a number of at least 0"
        )
    return number


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise MalformedRecordError(f"{name} is {text!r}, wanted a number") from error


def _reason(fields: Mapping[str, str], name: str) -> Reason | None:
    text = fields.get(name)
    try:
        return None if text is None else Reason(text)
    except ValueError as error:
        raise MalformedRecordError(f"{name} is {text!r}, wanted a reason") from error
