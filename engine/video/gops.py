"""How long a GOP lasts, while it comes. Pure."""

from fractions import Fraction

_LONGEST_COPIED_S = 45  # a GOP with its pauses; decoders take 60 s


class GopLength:
    """How long a GOP lasts, as its packets come.

    Its longest pause does not count: a camera that freezes for a while is none of long GOPs.

    Args:
        time_base: Seconds in a tick.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._most = _LONGEST_COPIED_S / time_base
        self._start = self._latest = self._longest_pause = 0

    def take(self, pts: int, *, is_first: bool) -> None:
        """The next packet, in order of decoding; the GOP's first one begins anew."""
        if is_first:
            self._start = self._latest = pts
            self._longest_pause = 0
        self._longest_pause = max(self._longest_pause, pts - self._latest)
        self._latest = max(self._latest, pts)

    def is_longer_than(self, ticks: int) -> bool:
        """Is it longer than so many ticks, or than a chunk may be with all its pauses?"""
        length = self._latest - self._start
        return length - self._longest_pause > ticks or length > self._most
