"""Which calls are running now, and for how long; this tells slow work from a hang.

A daemon is not well if a decoder, the device, or a write to its journal or its events never comes
back, even if other work goes on. A try that fails is no hang: what is waited for then is an
outage, and each try is a call of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import ParamSpec, TypeVar

from daemon.clock import Clock

Ps = ParamSpec("Ps")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Running:
    """A call that has not come back.

    Attributes:
        what: What it does.
        age_s: For how many seconds, not counting what it was allowed.
    """

    what: str
    age_s: float


class RunningCalls:
    """Remembers when the calls began that have not come back; for any thread.

    Args:
        clock: Gives the monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started: dict[int, tuple[float, str]] = {}
        self._numbers = count()

    def begin(self, allowance_s: float = 0, what: str = "device") -> int:
        """Take note of a call that begins.

        Args:
            allowance_s: Seconds that it may take longer than others; its age counts from then on.
            what: What it does.

        Returns:
            Its number, for ``end``.
        """
        number = next(self._numbers)
        self._started[number] = (self._clock.monotonic_s() + allowance_s, what)
        return number

    def end(self, number: int) -> None:
        """Take note of a call that came back."""
        del self._started[number]

    @contextmanager
    def running(self, what: str = "decode") -> Iterator[None]:
        """Take note of the call that is made inside the ``with`` block."""
        number = self.begin(what=what)
        try:
            yield
        finally:
            self.end(number)

    def watched(self, what: str, work: Callable[Ps, T]) -> Callable[Ps, T]:
        """``work``, to be done in a thread: it runs until it is back, whoever waits for it."""

        def do(*args: Ps.args, **options: Ps.kwargs) -> T:
            with self.running(what):
                return work(*args, **options)

        return do

    def all(self) -> list[Running]:
        """Those that run now, the oldest first."""
        now_s = self._clock.monotonic_s()
        started = sorted(list(self._started.values()))  # noqa: C414 - a copy, for it may change
        return [Running(what, max(now_s - at_s, 0.0)) for at_s, what in started]

    def oldest_s(self) -> float:
        """Age of the oldest running call in seconds; 0 if none runs."""
        started_s = [at_s for at_s, _ in list(self._started.values())]  # a copy, as above
        return max(self._clock.monotonic_s() - min(started_s), 0.0) if started_s else 0.0
