"""A session's snapshots, said differently, and one that an older daemon has left."""

import base64
import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.events import event_to_json
from engine.types import ActionEvent, SnippetFeature

LEFT_OUT = object()


def changed(blob: bytes, **changes: object) -> bytes:
    """A well-formed snapshot that says something else."""
    meta, arrays = _read(blob)
    meta = {**meta, **changes}
    return _write({key: value for key, value in meta.items() if value is not LEFT_OUT}, arrays)


def as_version_2(
    blob: bytes, features: Sequence[SnippetFeature], owed: Sequence[ActionEvent] = ()
) -> bytes:
    """The snapshot as an older daemon would have left it: with the features, and what it owes."""
    meta, arrays = _read(blob)
    first_index, segment, n_unseen, n_kept = meta["buffer"]
    rows = [one.vector for one in features if one.segment == segment]
    meta |= {
        "version": 2,
        "buffer": [first_index, segment, n_unseen],
        "owed": [event_to_json(event) for event in owed],
    }
    return _write(meta, {**arrays, "features": np.array(rows[-n_kept:] if n_kept else [])})


def _read(blob: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    with np.load(io.BytesIO(blob)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(arrays.pop("meta").tobytes()), arrays


def _write(meta: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    blob = io.BytesIO()
    np.savez(blob, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    return blob.getvalue()


# Left by the last daemon whose snapshots were of version 2, which held the features and what was
# owed: 63 frames, the last 33 of them red, of a_spec(camera_mean=a_camera_mean()).
_OF_VERSION_2 = (
    "eNrtVb1v00AUd+gHVVQKAyuS8RKQ4uLYseNUtHSBpQJlYUBRFV3tM7HqL+7sVDREYkJiZulS8Q8gwcQMYmNCRWJEHZ"
    "jYQVWKBPfsc6mjUhXSkYvi5/fze3fvfu/du9bKxKQsZOOysP3t09xPPmaEi4KPYzQfRA9LwgXhyWRmlctnd+7ebt0r"
    "CT2hX7ExtUhlQaw8SmqVqlhxQhITFHRCYmPAbyGPYobTLoow06/UFE2pXq2KA/FfR7kv9TChbhhIC6JaFSU/tLHXcW"
    "2mSiwaN4qxvaxI7IuDUZwQzL85ANGYYORzxEI+YDgKrS7oJAnkGiAosLoh6SSUoQ3wwjjINLVuKmwAFibEwgzqSxEi"
    "sRtnEUkRTBA6DsUxUzWmeOEGD5XiBwkOUq8mLBzY2M4XVqQBWCA/8jBhYLumV0W20MGKah2kssqs1hLHyYwaqU0GIm"
    "v9PgmTAKZUdZjMCgmGqNu5DUuOtZ569iXP7UEgbfaGaJxCuIeDmJODFK3hNExHtgxHl3UVW3JTRYpsm01dV8xmzULK"
    "yRkluOfynBlMjbqIwuJSEtmI5SszQTSjMI0bIA+tYY8hSv7eCZCf+pHMh0YoSCOnMctBlqKaUucpYvzmWUupG+ScwJ"
    "TzRqNpGmrT0A3TMHQTMmVjy2UpKTgdUQ5/qDiY3ncpTSlXBsC3Q8JNDBG2V+FruJHmu/2f6TGZXh20Cv3LODfxNO9f"
    "s6x/8ZNP8x62yy1zeWQPu+7UT9TDzKqojdXCxPL+cLjEQxH2h5s3Tvu9yM755efDnJ05xs7vTpHzs8Vtt47nxzwRP9"
    "p4DR740TTt487OzsF+jt7X2/f2zXxfZbavrN/le9rjdnunkXNoxup495bwl4PVyCLIH/V3aa0sfriU8rH9fSmVL0qN"
    "VL56ee1Y2VopnZEninc93OXwnzm03uMSPPObf9QLTtguP0GzBa83bJ7D523UE6pvi9fWXMHz85QwUoujvpDhPZ7Dcs"
    "H39bRwKN+tlalpwCfZ7wuTX8+C9gtJki4Q"
)


def of_version_2() -> bytes:
    """A snapshot that an older daemon has left."""
    return zlib.decompress(base64.b64decode(_OF_VERSION_2))
