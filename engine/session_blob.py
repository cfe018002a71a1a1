"""A session's snapshot as bytes: plain values as JSON and arrays, in one versioned npz file.

Whoever can write the state's file can put anything into a snapshot, so nothing in it is executed,
and what cannot be read raises an error that says why.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import SnapshotError
from engine.files.npz import NPZ_DAMAGE

SNAPSHOT_VERSION = 3
# Version 2 held the features too, and revisions that were not published yet; it is read as well.
_READABLE = (2, SNAPSHOT_VERSION)
_META = "meta"


def write_blob(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Plain values, and arrays of any shape by name → bytes."""
    text = json.dumps({"version": SNAPSHOT_VERSION, **meta}).encode()
    blob = io.BytesIO()
    stored: dict[str, Any] = {_META: np.frombuffer(text, np.uint8), **arrays}
    np.savez(blob, **stored)
    return blob.getvalue()


def read_blob(blob: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The inverse of ``write_blob``: plain values, and arrays of any shape by name.

    Raises:
        SnapshotError: The blob is damaged or of another version.
    """
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
            meta = dict(json.loads(arrays.pop(_META).tobytes()))
    except NPZ_DAMAGE as error:
        raise SnapshotError(f"snapshot is unreadable: {error}") from error
    if meta.get("version") not in _READABLE:
        raise SnapshotError(
            f"snapshot version is {meta.get('version')!r}, wanted {SNAPSHOT_VERSION!r}"
        )
    return meta, arrays
