"""The daemon's clock. An event's times come from the footage, never from this clock."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the daemon may ask of time."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def unix_us(self) -> int:
        """Microseconds since 1970, by this machine's clock."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        """See ``Clock``."""
        return time.monotonic()

    def unix_us(self) -> int:
        """See ``Clock``."""
        return time.time_ns() // 1000
