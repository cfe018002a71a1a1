"""An end that comes in time, whatever hangs: a thread that ends the process at the deadline.

What is under way then is lost with the process, as at a kill: a step is kept whole or not at all,
and what was not kept is done again at the next start.
"""

import os
import threading
from collections.abc import Callable

import structlog

from daemon.calls import RunningCalls
from daemon.errors import EXIT_FAILED

# An end in order takes a moment, such as that to leave a consumer group.
LEAST_S = 5.0


class LastResort:
    """Ends the process if an end in order takes too long.

    Args:
        timeout_s: How long it may take, counted from ``begin``; at least ``least_s``.
        calls: The calls that run; those that hang then are named.
        log: Where they are named.
        leave: Ends the process at once.
        least_s: What an end in order needs.
    """

    def __init__(
        self,
        timeout_s: float,
        calls: RunningCalls,
        log: structlog.stdlib.BoundLogger,
        leave: Callable[[int], object] = os._exit,
        least_s: float = LEAST_S,
    ) -> None:
        self._timeout_s = max(timeout_s, least_s)
        self._calls = calls
        self._log = log
        self._leave = leave
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """The end has begun. Safe to repeat; the first time counts."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, name="last resort", daemon=True)
            self._thread.start()

    def ended(self) -> None:
        """The end came in order."""
        self._done.set()

    def leave_if_stuck(self, exit_code: int) -> None:
        """End the process at once if a call hangs, for Python would wait for its thread."""
        if self._calls.all():
            self._leave(exit_code)

    def _wait(self) -> None:
        if self._done.wait(self._timeout_s):
            return
        calls = sorted({call.what for call in self._calls.all()})
        self._log.error("daemon.cut_short", after_s=self._timeout_s, hanging=calls)
        self._leave(EXIT_FAILED)
