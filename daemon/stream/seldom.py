"""Which of many like lines are logged: the first, and then one a minute. Pure."""

from dataclasses import dataclass, field

INTERVAL_S = 60.0


@dataclass(slots=True)
class Seldom:
    """Remembers, kind by kind, when a line was logged last and how many were left out since."""

    _since_s: dict[str, float] = field(default_factory=dict)
    _n_untold: dict[str, int] = field(default_factory=dict)

    def told(self, kind: str, now_s: float) -> int | None:
        """Count a line.

        Args:
            kind: What it is about; kinds must be few.
            now_s: Seconds of a clock that never goes back.

        Returns:
            How many of its kind were left out before it; None: leave this one out too.
        """
        since_s = self._since_s.get(kind)
        if since_s is not None and now_s - since_s < INTERVAL_S:
            self._n_untold[kind] = self._n_untold.get(kind, 0) + 1
            return None
        self._since_s[kind] = now_s
        return self._n_untold.pop(kind, 0)
