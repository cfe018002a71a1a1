"""Which calls are running now, and for how long; this tells slow work from a hang.

A daemon is not well if one decoder or the device never comes back, even if other work goes on.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.clock import Clock


class RunningCalls:
    """Remembers when the calls began that have not come back; any thread may tell and ask.

    Args:
        clock: Gives the monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s: dict[int, float] = {}
        self._n_begun = 0
        self._lock = threading.Lock()

    def begin(self, allowance_s: float = 0) -> int:
        """Take note of a call that begins.

        Args:
            allowance_s: Seconds that it may take longer than others; its age counts from then on.

        Returns:
            Its number, for ``end``.
        """
        started_s = self._clock.monotonic_s() + allowance_s
        with self._lock:
            number = self._n_begun
            self._n_begun += 1
            self._started_s[number] = started_s
        return number

    def end(self, number: int) -> None:
        """Take note of a call that came back."""
        with self._lock:
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
        with self._lock:
            oldest_s = min(self._started_s.values(), default=None)
        return 0.0 if oldest_s is None else max(self._clock.monotonic_s() - oldest_s, 0.0)
