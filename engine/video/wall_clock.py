"""When the pictures of a live camera were taken: the law that dates them. Pure.

A picture never arrives before it was taken, and seldom at once: what tells is the picture that was
delayed least of those of the last ten seconds. Where the camera says itself when it took a
picture (RTP sender reports) and that agrees with arrival, it is believed. What the dates are moved
by is slewed, as NTP does it; beyond ``MOST_OFF_US`` a new run begins with right ones. So no date
is ever off by more, whatever the clocks of camera and host do.

Stamps themselves may be wrong by more than a clock is: some cameras stamp 25 pictures a second
and send 21, and some set their stamps ahead. ``mended_us`` is what they should be: stretched where
they go on running at another rate than pictures come, and set back where a picture would have
come long before it was taken. (Where they go back, ``engine.video.steps`` has mended them.)
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from engine.grid import US_PER_S

MOST_OFF_US = 250_000
_SLEWED = 0.005  # of the time that has passed; quartz is off by less than a fiftieth of that
# What lasts for so long is no delay on the way: it is believed.
_WINDOW_US = 10 * US_PER_S
# As long as they may have waited on the way, pictures are not ahead of their time.
_MOST_WAITING_US = 60 * US_PER_S
# A new connection may begin with pictures that waited for it.
_SETTLES_US = 10 * US_PER_S
# What a camera says agrees with arrival if pictures were so long on the way: coding and network.
_LEAST_DELAY_US, _MOST_DELAY_US = -100_000, US_PER_S
# Stamps run at another rate if the least delay of a step of time, in microseconds, goes on
# changing by such a share of it, evenly, so many times.
_STEPS = ((US_PER_S, 0.03), (4 * US_PER_S, 0.003))
_N_STEPS = 5
_EVEN = 0.5
_MOST_STRETCHED = 100
# Twice as fast as it plays comes no camera, but a file.
_FASTEST = 2


class TrustedClock(StrEnum):
    """Whose clock dates pictures."""

    ARRIVAL = "arrival"
    RTCP = "rtcp"


@dataclass(frozen=True, slots=True)
class Dating:
    """How a source's time and wall-clock time belong together.

    Attributes:
        base_us: Unix time of the source's (mended) time 0, in microseconds.
        clock: Whose clock says so.
        off_us: By how much dates that were given before were off.
        is_anew: By more than may be slewed: a new run must begin.
    """

    base_us: int
    clock: TrustedClock
    off_us: int = 0
    is_anew: bool = False


class _Least:
    """The least of the values of the last while.

    Args:
        lasts_us: How long a value counts.
    """

    def __init__(self, lasts_us: int) -> None:
        self._lasts_us = lasts_us
        self._rising: deque[tuple[int, int]] = deque()  # when, value; later ones are larger

    def add(self, at_us: int, value: int) -> None:
        while self._rising and self._rising[-1][1] >= value:
            self._rising.pop()
        self._rising.append((at_us, value))
        while self._rising[0][0] < at_us - self._lasts_us:
            self._rising.popleft()

    @property
    def value(self) -> int:
        return self._rising[0][1]


class _Trend:
    """The least delay of each step of time → the rate at which it changes, if evenly.

    Args:
        step_us: Length of a step.
        least_rate: Slower changes do not count.
    """

    def __init__(self, step_us: int, least_rate: float) -> None:
        self._step_us = step_us
        self._least_rate = least_rate
        self._least: deque[tuple[int, int]] = deque(maxlen=_N_STEPS + 2)  # step, least

    def add(self, at_us: int, delay_us: int) -> bool:
        """Is another step over?"""
        step = at_us // self._step_us
        is_same = bool(self._least) and self._least[-1][0] == step
        if is_same:
            delay_us = min(delay_us, self._least.pop()[1])
        elif self._least and self._least[-1][0] != step - 1:
            self._least.clear()
        self._least.append((step, delay_us))
        return not is_same

    @property
    def newest_us(self) -> int:
        """The least delay of the last two steps."""
        return min(delay_us for _, delay_us in list(self._least)[-2:])

    @property
    def rate(self) -> float:
        """Change by time; 0 where it is slow, uneven, or not known yet."""
        whole = [delay_us for _, delay_us in self._least][:-1]  # the newest may still fall
        changes = [after - before for before, after in pairwise(whole)]
        if len(changes) < _N_STEPS:
            return 0
        mean = sum(changes) / len(changes)
        is_even = all(abs(change - mean) <= _EVEN * abs(mean) for change in changes)
        rate = mean / self._step_us
        return rate if is_even and abs(rate) >= self._least_rate else 0


class WallClock:
    """Dates the pictures of one connection to a camera."""

    def __init__(self) -> None:
        self._began_us: int | None = None
        self._first_us = 0  # of the first picture
        self._latest_us = 0  # of the latest one, as it should be
        self._newest_us = 0  # source's time of the one that came last
        self._apart_us: int | None = None  # how much later that is than the one before
        self._now_us = 0  # of the host's clock that never goes back
        self._unix_less_now_us = 0
        self._camera_base_us: int | None = None
        self._base_us: int | None = None
        self._dated_us = self._dated_unix_less_now_us = 0
        self._rate = 1.0
        self._pivot_us = (0, 0)  # a source's time, and what it should be
        self._forget()

    def _forget(self) -> None:
        self._delay, self._floor = _Least(_WINDOW_US), _Least(_MOST_WAITING_US)
        self._trends = [_Trend(*step) for step in _STEPS]

    def mended_us(self, source_us: int) -> int:
        """The source's time as it should be; until stamps are found to be wrong, the same."""
        if self._rate == 1:
            return source_us + self._pivot_us[1] - self._pivot_us[0]
        return self._pivot_us[1] + round((source_us - self._pivot_us[0]) * self._rate)

    def saw(
        self, source_us: int, *, now_us: int, unix_us: int, camera_us: int | None = None
    ) -> None:
        """Take note of a picture that has arrived.

        Args:
            source_us: When it is shown, by the source's stamps, which do not step.
            now_us: When it arrived, by a clock of the host that never goes back.
            unix_us: The same moment by the host's wall clock, which may be set.
            camera_us: When it was taken, by the camera's wall clock; None: it does not say.
        """
        if self._began_us is None:
            self._began_us = now_us
            self._first_us = self._latest_us = source_us
        else:
            self._set_back(source_us, now_us)
            self._apart_us = source_us - self._newest_us
        self._newest_us = source_us
        self._now_us, self._unix_less_now_us = now_us, unix_us - now_us
        mended_us = self.mended_us(source_us)
        self._latest_us = max(self._latest_us, mended_us)
        is_believed = camera_us is not None and self._rate == 1
        self._camera_base_us = (camera_us or 0) - mended_us if is_believed else None
        delay_us = now_us - mended_us
        # By footage, not by arrival: what waited comes at once.
        self._delay.add(self._latest_us, delay_us)
        self._floor.add(self._latest_us, delay_us)
        if any([trend.add(now_us, delay_us) for trend in self._trends]):  # noqa: C419 - all of them
            self._stretch(source_us)

    def date(self, *, may_begin_anew: bool = True) -> Dating:
        """How to date what has arrived; ask once a chunk.

        Args:
            may_begin_anew: A new run may begin here; else dates are slewed, however wrong.
        """
        target_us, clock = self._target()
        passed_us, self._dated_us = self._now_us - self._dated_us, self._now_us
        if self._base_us is None:
            self._base_us = target_us
            self._dated_unix_less_now_us = self._unix_less_now_us
            return Dating(target_us, clock)
        off_us = target_us - self._base_us
        was_set_us = self._unix_less_now_us - self._dated_unix_less_now_us
        self._dated_unix_less_now_us = self._unix_less_now_us
        is_young = self._now_us - (self._began_us or 0) < _SETTLES_US
        is_settling = off_us < 0 and is_young and abs(was_set_us) <= MOST_OFF_US
        if is_settling or self._is_no_camera:
            self._base_us += min(off_us, 0) if is_settling else 0
            return Dating(self._base_us, clock, off_us)
        if abs(off_us) > MOST_OFF_US and may_begin_anew:
            self._base_us = target_us
            return Dating(target_us, clock, off_us, is_anew=True)
        most_us = round(_SLEWED * passed_us)
        self._base_us += max(-most_us, min(most_us, off_us))
        return Dating(self._base_us, clock, off_us)

    @property
    def _is_no_camera(self) -> bool:
        passed_us = self._now_us - (self._began_us or 0)
        return self._latest_us - self._first_us > _FASTEST * passed_us + _SETTLES_US

    def _target(self) -> tuple[int, TrustedClock]:
        arrived_us = self._delay.value + self._unix_less_now_us
        if self._camera_base_us is not None:
            delay_us = arrived_us - self._camera_base_us
            if _LEAST_DELAY_US <= delay_us <= _MOST_DELAY_US:
                return self._camera_base_us, TrustedClock.RTCP
        return arrived_us, TrustedClock.ARRIVAL

    def _set_back(self, source_us: int, now_us: int) -> None:
        """Where stamps were set ahead, this picture was delayed by the least that is known."""
        if self._apart_us is None or self._is_no_camera:
            return
        apart_us = source_us - self._newest_us
        set_us = apart_us - max(self._apart_us, now_us - self._now_us)
        ahead_us = self._floor.value - (now_us - self.mended_us(source_us))
        if min(set_us, ahead_us) > MOST_OFF_US:
            at_us = max(now_us - self._delay.value, self.mended_us(self._newest_us) + 1)
            self._pivot_us = (source_us, at_us)

    def _stretch(self, source_us: int) -> None:
        rate = next((trend.rate for trend in self._trends if trend.rate), 0.0)
        least_us = self._trends[0].newest_us
        is_catching_up = rate < 0 and least_us > self._floor.value
        if not rate or is_catching_up or self._is_no_camera:
            return
        self._pivot_us = (source_us, self.mended_us(source_us))
        # In a second of arrival, 1 - rate seconds were stamped.
        stretched = self._rate / max(1 - rate, 1 / _MOST_STRETCHED)
        self._rate = min(max(stretched, 1 / _MOST_STRETCHED), _MOST_STRETCHED)
        self._forget()
        self._delay.add(self._latest_us, least_us)
        self._floor.add(self._latest_us, least_us)
