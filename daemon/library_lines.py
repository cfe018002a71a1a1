"""Keeps the Kafka client from flooding the log: an outage of a minute made it say 4,000 lines.

What it says of each failed request is what an outage is already told by, so it is only counted.
Now and then one line tells how many were left out, and of which. Other lines are the log's
business.
"""

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic

import structlog
from typing_extensions import override

TOLD_EVERY_S = 300.0
TOLD_AFTER_S = 60.0
_MOST_KINDS = 200
_MOST_TOLD = 5
_MOST_CHARS = 80
_CHANGES = re.compile(r"0x[0-9a-f]+|\d+")
# Of aiokafka: a request that failed, which it makes again, or a coordinator that it looks for.
_CHATTER = (
    "Unable connect ",
    "Unable to request metadata",
    "Unable to update metadata",
    "No broker metadata",
    "Error fetching metadata",
    "Topic %s is not authorized",
    "Not authorized to read",
    "Unexpected error while fetching data",
    "Failed fetch ",
    "Attempt to fetch offsets",
    "Group Coordinator Request failed",
    "FindCoordinator Request failed",
    "Marking the coordinator dead",
    "Error sending ",
    "Cannot send ",
    "Could not send ",
    "Heartbeat ",
    "Got error produce response",
    "OffsetCommit failed",
    "LeaveGroup request failed",
    "Failed to commit on finallization",
)


class LibraryLines(logging.Filter):
    """Lets a library's line pass, or counts it.

    Args:
        now_s: The time, in seconds.
    """

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._left_out: Counter[str] = Counter()
        self._since_s = 0.0  # when the first of them was left out
        self._told_s = float("-inf")

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """True if it is to be shown."""
        template = str(record.msg)
        if not (record.name.startswith("aiokafka") and template.startswith(_CHATTER)):
            return True
        kind = f"{record.name}: {_CHANGES.sub('#', template)[:_MOST_CHARS]}"
        with self._lock:
            if not self._left_out:
                self._since_s = self._now_s()
            is_known = kind in self._left_out or len(self._left_out) < _MOST_KINDS
            self._left_out[kind if is_known else "others"] += 1
        return False

    def tell(self, log: structlog.stdlib.BoundLogger, *, at_once: bool = False) -> None:
        """Say how many lines were left out, if that is due or wanted at once; call it often."""
        with self._lock:
            now_s = self._now_s()
            due_s = max(self._told_s + TOLD_EVERY_S, self._since_s + TOLD_AFTER_S)
            if not self._left_out or (now_s < due_s and not at_once):
                return
            left_out, self._left_out, self._told_s = self._left_out, Counter(), now_s
        log.warning(
            "library.left_out",
            lines=left_out.total(),
            most=dict(left_out.most_common(_MOST_TOLD)),
        )


LINES = LibraryLines()  # one for the process, as the root logger is


def silence_kafka_client() -> None:
    """Of a command: it would repeat at length what the command's own error says in a line."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
