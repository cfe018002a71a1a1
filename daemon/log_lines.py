"""What every log line goes through: no flood, no endless field, nothing that acts on a terminal.

A sender may give us a name, a header or an error as long as it likes, and the same fault again and
again. So of one kind of line so many pass a minute, and the others are counted into the next one;
every field and every line is cut where it is too long, and says so.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from daemon.text import cut_as_json

MOST_FIELDS = 32
MOST_FIELD_CHARS = 2000  # in JSON, as all of these
MOST_TRACEBACK_CHARS = 8000
MOST_LINE_CHARS = 16_384  # Docker splits longer lines, and journald those of 48 K

_PER_FIELD_CHARS = 130  # its name, quotes, and the note on what was cut
_MOST_KEY_CHARS = 40
_OURS = ("event", "level", "timestamp", "exception")

PERIOD_S = 60.0
_MOST_KINDS = 4096
_KIND_FIELDS = ("event", "camera", "partition", "error", "state", "logger")

# <3> and so on, as sd-daemon(3) has it: what journalctl -p goes by.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def bounded(_logger: object, _method: str, fields: EventDict) -> EventDict:
    """Cut what is too long, so that a line has at most ``MOST_LINE_CHARS``."""
    n_untold = max(len(fields) - MOST_FIELDS, 0)
    if n_untold:
        others = [key for key in fields if key not in _OURS]
        dropped = set(others[-n_untold:])
        fields = {key: value for key, value in fields.items() if key not in dropped}
        fields["fields_cut"] = n_untold
    traceback = fields.get("exception")
    room = MOST_LINE_CHARS - (MOST_TRACEBACK_CHARS if traceback else 0)
    most = min(MOST_FIELD_CHARS, room // len(fields) - _PER_FIELD_CHARS)
    shown = {
        cut_as_json(key, _MOST_KEY_CHARS): _short(value, most) for key, value in fields.items()
    }
    if traceback:
        shown["exception"] = cut_as_json(
            str(traceback), MOST_TRACEBACK_CHARS - _PER_FIELD_CHARS, keep_end=True
        )
    return shown


def _short(value: Any, most: int) -> Any:
    """The value, or the beginning of what it says where that is too long."""
    if isinstance(value, str):
        return cut_as_json(value, most)
    try:
        text = json.dumps(value, default=repr)
    except (ValueError, TypeError, RecursionError):  # a number of thousands of digits, say
        return f"<{type(value).__name__}>"
    return value if len(text) <= most else cut_as_json(text, most)


def printable(_logger: object, _method: str, fields: EventDict) -> EventDict:
    """Escape what would act on a terminal or begin another line, except in tracebacks."""
    return {key: value if key == "exception" else _escaped(value) for key, value in fields.items()}


def _escaped(value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)


class Prioritized:
    """Renders as another processor does, with the level before each line, for the journal."""

    def __init__(self, render: Processor) -> None:
        self._render = render

    def __call__(self, logger: object, method: str, fields: EventDict) -> str:
        """Render."""
        level = str(fields.get("level"))  # a renderer may take the fields apart
        return prioritized(str(self._render(logger, method, fields)), level)


def prioritized(text: str, level: str) -> str:
    """The text with its level before each line."""
    prefix = f"<{_PRIORITIES.get(level, 6)}>"
    return prefix + text.replace("\n", f"\n{prefix}")


def is_journal(out: TextIO) -> bool:
    """True if what is written there goes to systemd's journal, which takes priorities."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):  # it is no file, or closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@dataclass(slots=True)
class _Seen:
    """What passed of one kind since ``since_s``, and what did not."""

    since_s: float
    n_passed: int = 0
    n_untold: int = 0


class Floods:
    """Lets so many lines of one kind pass a minute, and counts the others.

    Lines are of one kind if their event and what it happened to are the same.

    Args:
        clock_s: Seconds of a clock that never goes back.
        most: Event → lines a minute; any number of others.
    """

    def __init__(self, clock_s: Callable[[], float], most: Mapping[str, int]) -> None:
        self._clock_s = clock_s
        self._most = most
        self._seen: OrderedDict[tuple[Hashable, ...], _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, _logger: object, _method: str, fields: EventDict) -> EventDict:
        """Count a line.

        Raises:
            structlog.DropEvent: Enough of its kind have passed.
        """
        most = self._most.get(str(fields.get("event")))
        if most is None:
            return fields
        n_untold = self.count(tuple(str(fields.get(key)) for key in _KIND_FIELDS), most)
        if n_untold is None:
            raise structlog.DropEvent
        return {**fields, "n_untold": n_untold} if n_untold else fields

    def count(self, kind: tuple[Hashable, ...], most: int) -> int | None:
        """Count a line of a kind: how many were left out before it; None: leave it out."""
        with self._lock:
            now_s = self._clock_s()
            seen = self._seen.get(kind)
            n_before = 0
            if seen is None or now_s - seen.since_s >= PERIOD_S:
                n_before = seen.n_untold if seen else 0
                seen = self._seen[kind] = _Seen(now_s)
                self._seen.move_to_end(kind)
            if seen.n_passed < most:
                seen.n_passed += 1
                return n_before
            seen.n_untold += 1
            return None

    def ended(self) -> list[tuple[tuple[Hashable, ...], int]]:
        """Kinds of which no line came for long, each with how many were left out untold."""
        with self._lock:
            over: list[tuple[tuple[Hashable, ...], int]] = []
            while self._seen:
                kind, seen = next(iter(self._seen.items()))
                is_over = self._clock_s() - seen.since_s >= 2 * PERIOD_S
                if not is_over and len(self._seen) <= _MOST_KINDS:
                    break
                del self._seen[kind]
                if seen.n_untold:
                    over.append((kind, seen.n_untold))
            return over
