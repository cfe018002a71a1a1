"""Dead letters ↔ records of their topic.

Key and value are those of the record that could not be used. The headers begin with ours, which
say why and where it lay; its own headers follow, and ``vd_headers`` is their number. What is too
large for the topic is cut, and ``vd_truncated`` says so. Numbers in headers are decimal digits.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from daemon.errors import MalformedRecordError
from daemon.journal.base import DeadLetter
from daemon.kafka.topics import RECORD_MARGIN_BYTES
from daemon.text import cut
from daemon.wire.headers import read_number, to_headers
from daemon.wire.records import Record

_VERSION = "1"
_FIRST_BYTES = 65_536  # of a record that is too large; enough to see what it was
_MOST_KEY_BYTES = 1024
_MOST_HEADERS_BYTES = RECORD_MARGIN_BYTES - _MOST_KEY_BYTES
_PER_HEADER_BYTES = 10  # two lengths, of at most five bytes each
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter, as it lies in its topic.

    Attributes:
        letter: The letter; its payload is cut if it is ``truncated``.
        size: Bytes of the whole payload.
        sha256: Of the whole payload, in hexadecimal digits.
        truncated: Key, headers or payload are not all there.
        offset: Its offset in the topic.
        at_us: When it was written, Unix microseconds.
    """

    letter: DeadLetter
    size: int
    sha256: str
    truncated: bool
    offset: int = 0
    at_us: int = 0


def dead_record(letter: DeadLetter, *, most_bytes: int) -> Record:
    """A dead letter as a record of at most ``most_bytes``, and twice ``RECORD_MARGIN_BYTES``.

    The key is empty if there was none.
    """
    key = letter.key or b""
    sizes = [
        len(name) * 4 + len(value or b"") + _PER_HEADER_BYTES for name, value in letter.headers
    ]
    n_headers = sum(1 for total in accumulate(sizes) if total <= _MOST_HEADERS_BYTES)
    is_large = len(letter.payload) > most_bytes
    truncated = is_large or n_headers < len(sizes) or len(key) > _MOST_KEY_BYTES
    ours = to_headers(
        {
            "vd_version": _VERSION,
            "vd_camera": letter.camera,
            "vd_partition": letter.partition,
            "vd_offset": letter.offset,
            "vd_error": letter.error,
            "vd_reason": cut(letter.reason),
            "vd_size": len(letter.payload),
            "vd_sha256": hashlib.sha256(letter.payload).hexdigest(),
            "vd_key": None if letter.key is None else "1",
            "vd_truncated": "1" if truncated else None,
            "vd_headers": n_headers,
        }
    )
    kept = letter.payload[: min(_FIRST_BYTES, most_bytes)] if is_large else letter.payload
    headers = [*ours, *letter.headers[:n_headers]]
    return Record(key[:_MOST_KEY_BYTES], headers, kept)  # type: ignore[arg-type] # one may have no value


def parse_dead(
    key: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    value: bytes | None,
    *,
    offset: int = 0,
    at_us: int = 0,
) -> StoredLetter:
    """The inverse of ``dead_record``.

    Raises:
        MalformedRecordError: It is no dead letter of this version.
    """
    fields = _ours(headers)
    n_headers = read_number(fields, "vd_headers", len(headers))
    letter = DeadLetter(
        camera=fields.get("vd_camera", ""),
        partition=fields.get("vd_partition", ""),
        offset=read_number(fields, "vd_offset", _MOST),
        error=fields.get("vd_error", ""),
        reason=fields.get("vd_reason", ""),
        payload=value or b"",
        key=(key or b"") if "vd_key" in fields else None,
        headers=tuple(headers[len(headers) - n_headers :]),
    )
    return StoredLetter(
        letter=letter,
        size=read_number(fields, "vd_size", _MOST),
        sha256=fields.get("vd_sha256", ""),
        truncated=fields.get("vd_truncated") == "1",
        offset=offset,
        at_us=at_us,
    )


def _ours(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Our headers, which come first and end with the number of the others."""
    fields: dict[str, str] = {}
    for name, value in headers:
        fields[name] = (value or b"").decode("utf-8", "replace")
        if name == "vd_headers":
            break
    if fields.get("vd_version") != _VERSION:
        seen = fields.get("vd_version")
        raise MalformedRecordError(f"vd_version is {seen!r}, wanted {_VERSION!r}")
    return fields
