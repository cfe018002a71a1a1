"""Header texts ↔ values.

Every reader checks what it reads. For a wrong text it raises ``MalformedRecordError`` with the
header's name, the text seen and the text wanted.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from daemon.errors import MalformedRecordError

Headers = list[tuple[str, bytes]]
Fields = Mapping[str, str]

MAX_NAME_CHARS = 200
MAX_US = 10**17  # the year 5138: refuses nonsense, and the sum of two is still a date

_UNIX_0 = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,20}")
_TIME_BASE = re.compile(r"([0-9]{1,10})/([0-9]{1,10})")


def to_headers(values: Mapping[str, str | int | None]) -> Headers:
    """Values as headers, in the order given; what is None is left out."""
    return [(name, str(value).encode()) for name, value in values.items() if value is not None]


def to_fields(headers: Iterable[tuple[str, bytes | None]]) -> Fields:
    """The ``ce_*`` and ``vc_*`` headers, as text by name; all others are left out."""
    fields: dict[str, str] = {}
    for name, value in headers:
        if not name.startswith(("ce_", "vc_")):
            continue
        if name in fields:
            raise MalformedRecordError(f"header {name} is there twice")
        if value is None:
            raise MalformedRecordError(f"header {name} has no value")
        try:
            fields[name] = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedRecordError(f"header {name} is {value!r}, wanted UTF-8") from error
    return fields


def rfc3339(unix_us: int | None) -> str | None:
    """Unix microseconds as text, in UTC; None, an unknown time, stays None."""
    if unix_us is None:
        return None
    moment = _UNIX_0 + timedelta(microseconds=unix_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_rfc3339(name: str, text: str) -> int:
    """Read a time as Unix microseconds, 0..``MAX_US``."""
    try:
        moment = datetime.fromisoformat(text)
        unix_us = (moment - _UNIX_0) // timedelta(microseconds=1)
    except (ValueError, TypeError) as error:  # TypeError: no UTC offset
        raise MalformedRecordError(
            f"{name} is {text!r}, wanted RFC 3339 such as 2026-01-31T09:30:00.25Z"
        ) from error
    return within(name, unix_us, MAX_US)


def read_name(what: str, text: str) -> str:
    """Read a name that is fit to be logged, to label a metric and to be a key."""
    if not 0 < len(text) <= MAX_NAME_CHARS or not text.isprintable():
        raise MalformedRecordError(
            f"{what} is {text[:MAX_NAME_CHARS]!r}, wanted 1..{MAX_NAME_CHARS} printable characters"
        )
    return text


def read_flag(fields: Fields, name: str) -> bool:
    """Read a flag: ``1`` is True; ``0`` is False, and so is a header that is missing."""
    text = fields.get(name, "0")
    if text not in ("0", "1"):
        raise MalformedRecordError(f"{name} is {text!r}, wanted 0 or 1")
    return text == "1"


def read_number(fields: Fields, name: str, most: int) -> int:
    """Read a whole number 0..``most``; the header must be there."""
    text = fields.get(name)
    if text is None or not _WHOLE_NUMBER.fullmatch(text):
        raise MalformedRecordError(f"{name} is {text!r}, wanted a whole number")
    return within(name, int(text), most)


def within(what: str, number: int, most: int) -> int:
    """Return ``number``; refuse it unless it is 0..``most``."""
    if not 0 <= number <= most:
        raise MalformedRecordError(f"{what} is {number}, wanted 0..{most}")
    return number


def read_time_base(fields: Fields, name: str) -> Fraction:
    """Read the length of a tick in seconds, > 0; the header must be there."""
    text = fields.get(name)
    match = _TIME_BASE.fullmatch(text or "")
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise MalformedRecordError(f"{name} is {text!r}, wanted seconds a tick such as 1/90000")
    return Fraction(int(match[1]), int(match[2]))
