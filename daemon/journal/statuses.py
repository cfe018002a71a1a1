"""A camera's status as JSON; ``schemas/camera-status.v1.json`` describes the fields."""

from typing import Any

from daemon.journal.base import CameraStatus, Presence
from daemon.wire.headers import rfc3339, to_headers
from daemon.wire.records import Record, json_line, moment_json, source_of

STATUS_TYPE = "io.s2netd.camera.status.v1"
STATUS_SCHEMA_ID = "urn:s2netd:schema:camera-status:v1"


def status_json(status: CameraStatus, *, site: str) -> dict[str, Any]:
    """A status as JSON; not of a camera that is forgotten, of which nothing is left to say."""
    offset = status.last_offset
    return {
        "camera_id": status.camera,
        "site": site,
        "state": status.state.value,
        "condition": status.condition.value,
        "updated": rfc3339(status.at_us),
        "silent_since": rfc3339(status.silent_since_us),
        "lag": {
            "queued": status.n_queued,
            "partition": status.n_behind,
            "seconds": None if status.lag_s is None else round(status.lag_s, 3),
        },
        "last_frame": rfc3339(status.last_frame_us),
        "fps": None if status.fps is None else round(status.fps, 2),
        "snippets_per_minute": status.snippets_per_minute,
        "gaps": status.n_gaps,
        "refused_chunks": status.n_refused,
        "degraded": list(status.degraded),
        "rung": status.rung.value,
        "epoch": status.run or None,
        "watermark": moment_json(status.anchor_us, status.watermark_us),
        "model": {"id": status.model_id},
        "owner": {"host": status.owner.host, "instance": status.owner.instance},
        "partition": status.partition,
        "last_chunk": None
        if offset is None
        else {"offset": offset, "time": rfc3339(status.last_chunk_us)},
    }


def status_line(status: CameraStatus, *, site: str) -> bytes:
    """A status as one line of JSON, without the line end."""
    return json_line(status_json(status, site=site))


def status_record(status: CameraStatus, *, site: str) -> Record:
    """A status as a record, keyed by camera; one without a value if the camera is forgotten."""
    key = status.camera.encode()
    if status.state is Presence.FORGOTTEN:
        return Record(key, [], b"")
    headers = to_headers(
        {
            "ce_specversion": "1.0",
            "ce_type": STATUS_TYPE,
            "ce_id": f"{status.camera}-{status.at_us}",
            "ce_source": source_of(site, status.camera),
            "ce_time": rfc3339(status.at_us),
            "ce_partitionkey": status.camera,
            "ce_dataschema": STATUS_SCHEMA_ID,
            "content-type": "application/json",
        }
    )
    return Record(key, headers, status_line(status, site=site))
