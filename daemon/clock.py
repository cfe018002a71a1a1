"""The only clock. Event time comes from the footage, never from here."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the daemon may ask of time."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def unix_us(self) -> int:
        """Microseconds since 1970, as this machine believes."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        """See ``Clock``."""
        return time.monotonic()

    def unix_us(self) -> int:
        """See ``Clock``."""
        return time.time_ns() // 1000
