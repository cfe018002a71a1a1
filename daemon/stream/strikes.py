"""How often a camera may do harm before nothing of it is tried for a while. Pure."""

from dataclasses import dataclass

# One strike may be bad luck, of a camera that was good before; a second within this time is its
# own.
MEMORY_S = 300.0
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 3600.0


@dataclass(slots=True)
class Strikes:
    """A camera's strikes, and the quarantine that follows.

    Each quarantine is twice as long as the one before, as long as strikes go on after it.
    """

    _last_s: float | None = None
    _pause_s: float = 0.0
    _until_s: float = 0.0

    def strike(self, now_s: float, *, is_proven: bool = True) -> float:
        """Count one more.

        Args:
            now_s: Seconds of a clock that never goes back.
            is_proven: The camera has been good before. Nothing is forgiven of one that has not, or
                whoever does harm would only have to make up a new name each time.

        Returns:
            How long nothing of the camera is to be tried, in seconds; 0: it may go on.
        """
        last_s, self._last_s = self._last_s, now_s
        if last_s is None or now_s - max(last_s, self._until_s) > MEMORY_S:
            self._pause_s = 0.0
            if is_proven:
                return 0.0
        self._pause_s = min(2 * self._pause_s or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._until_s = now_s + self._pause_s
        return self._pause_s

    def left_s(self, now_s: float) -> float:
        """Seconds of quarantine that are left; 0: none."""
        return max(self._until_s - now_s, 0.0)
