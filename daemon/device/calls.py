"""Which calls are running now, and for how long; this tells slow work from a hang.

A daemon is not well if one decoder or the device never comes back, even if other work goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from daemon.clock import Clock


class RunningCalls:
    """Remembers when the calls began that have not come back.

    Args:
        clock: Gives the monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s: dict[int, float] = {}
        self._n_begun = 0

    def begin(self, allowance_s: float = 0) -> int:
        """Take note of a call that begins.

        Args:
            allowance_s: Seconds that it may take longer than others; its age counts from then on.

        Returns:
            Its number, for ``end``.
        """
        number = self._n_begun
        self._n_begun += 1
        self._started_s[number] = self._clock.monotonic_s() + allowance_s
        return number

    def end(self, number: int) -> None:
        """Take note of a call that came back."""
        del self._started_s[number]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take note of the call that is made inside the ``with`` block."""
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
