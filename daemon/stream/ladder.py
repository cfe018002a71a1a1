"""How late a camera is, and how busy the device → how much of its footage is looked at. Pure.

A camera that falls behind goes down the ladder, a rung at a time, so that the device has less to
do for it; when it has caught up, and the device could do the work of the rung above for all, it
goes up again. Lateness counts from the least that was ever seen of the run, for clocks differ.
"""

from dataclasses import dataclass

from engine.spec import EconomySpec, Rung

RUNGS = tuple(Rung)

# A camera that has fallen behind by so much goes down, and one that is so close again may go up.
LOWER_AT_S = 3.0
RAISE_AT_S = 1.5
SETTLE_S = 2.0  # a rung is given so long to take effect, before the next one down
CALM_S = 5.0  # a rung up must be waited for
# The share of time that the device may be busy, if all cameras went up a rung.
MOST_BUSY = 0.9


@dataclass(slots=True)
class _Calm:
    """Since when a camera has not been late, and how long the device had been busy by then."""

    since_s: float
    busy_s: float


class Ladder:
    """Where one camera is.

    Args:
        spec: The rung that is configured, and the lowest one to go down to.

    Attributes:
        rung: The rung to work on.
    """

    def __init__(self, spec: EconomySpec) -> None:
        self.rung = spec.rung
        self._top = RUNGS.index(spec.rung)
        self._lowest = RUNGS.index(spec.lowest)
        self._least_lag_s: float | None = None
        self._changed_s = float("-inf")
        self._calm: _Calm | None = None

    @property
    def is_lowered(self) -> bool:
        """True if less is looked at than is configured."""
        return RUNGS.index(self.rung) > self._top

    def began(self) -> None:
        """Another run begins, whose clock may be another."""
        self._least_lag_s = self._calm = None

    def saw(self, lag_s: float, busy_s: float, now_s: float) -> Rung:
        """Take note of a chunk that was finished; give the rung for the next one.

        Args:
            lag_s: How long ago the chunk's last frame was captured; clocks may be apart.
            busy_s: How long the device has been busy with cameras, in all.
            now_s: Seconds of a clock that never goes back.
        """
        least_s = lag_s if self._least_lag_s is None else min(lag_s, self._least_lag_s)
        self._least_lag_s = least_s
        late_s = lag_s - least_s
        if late_s > RAISE_AT_S:
            self._calm = None
        elif self._calm is None:
            self._calm = _Calm(now_s, busy_s)
        at = RUNGS.index(self.rung)
        if late_s > LOWER_AT_S and at < self._lowest and now_s - self._changed_s >= SETTLE_S:
            self._go_to(at + 1, now_s)
        elif at > self._top and self._could_do_more(busy_s, now_s):
            self._go_to(at - 1, now_s)
        return self.rung

    def _could_do_more(self, busy_s: float, now_s: float) -> bool:
        calm = self._calm
        if calm is None or now_s - max(calm.since_s, self._changed_s) < CALM_S:
            return False
        share = (busy_s - calm.busy_s) / (now_s - calm.since_s)
        above = RUNGS[RUNGS.index(self.rung) - 1]
        if share * self.rung.every / above.every <= MOST_BUSY:
            return True
        # Asked again by what the device does from now on: how busy it was long ago says nothing.
        self._calm = _Calm(now_s, busy_s)
        return False

    def _go_to(self, at: int, now_s: float) -> None:
        self.rung, self._changed_s, self._calm = RUNGS[at], now_s, None
