"""Calls that are running now, and for how long: what tells slow work from a hang.

A daemon that makes progress elsewhere is not well if one decoder or the device never comes back.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from daemon.clock import Clock


class RunningCalls:
    """Start times of the calls that have not come back.

    Args:
        clock: Monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s: dict[int, float] = {}
        self._n_begun = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one decode or device call."""
        number = self._n_begun
        self._n_begun += 1
        self._started_s[number] = self._clock.monotonic_s()
        try:
            yield
        finally:
            del self._started_s[number]

    def oldest_s(self) -> float:
        """Age of the oldest running call in seconds; 0 if none runs."""
        if not self._started_s:
            return 0.0
        return self._clock.monotonic_s() - min(self._started_s.values())
