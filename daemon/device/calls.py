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

    def begin(self, allowance_s: float = 0) -> int:
        """A call begins.

        Args:
            allowance_s: How much longer than others it may take; its age counts from then on.

        Returns:
            Its number, for ``end``.
        """
        number = self._n_begun
        self._n_begun += 1
        self._started_s[number] = self._clock.monotonic_s() + allowance_s
        return number

    def end(self, number: int) -> None:
        """It came back."""
        del self._started_s[number]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one call."""
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    def oldest_s(self) -> float:
        """Age of the oldest running call in seconds; 0 if none runs."""
        if not self._started_s:
            return 0.0
        return max(self._clock.monotonic_s() - min(self._started_s.values()), 0.0)
