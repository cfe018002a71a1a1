"""Pictures of a live camera are dated right, whatever clocks and networks do."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import US_PER_S
from engine.video.wall_clock import MOST_OFF_US, Dating, TrustedClock, WallClock
from tests.clock.play import dated, worst_s
from tests.clock.trouble import World

UNIX_US = 1_800_000_000 * US_PER_S
MOST_OFF_S = 0.3
MINUTE_S = 60


def no_delay(_picture: int) -> int:
    return 0


def errors_s(
    n_s: int,
    *,
    fps: float = 25,
    stamped_fps: float = 25,
    delay_us: Callable[[int], int] = no_delay,
    host_us: Callable[[int], int] = no_delay,
    says_us: Callable[[int], int] | None = None,
    set_us: Callable[[int], int] = no_delay,
) -> tuple[list[float], list[Dating]]:
    """How far off each picture is dated once its second is complete, later is positive.

    Args:
        n_s: Seconds of footage.
        fps: Pictures a second, in truth.
        stamped_fps: What the camera's stamps say.
        delay_us: By number of the picture, on the way.
        host_us: By the second, what the host's wall clock is wrong by.
        says_us: By number, what the camera's wall clock is wrong by; None: it does not tell.
        set_us: By number, what stamps are set ahead by.
    """
    law, errors, datings = WallClock(), [], []
    arrived_us = 0
    for second in range(n_s):
        wall_us = UNIX_US + host_us(second)
        chunk = []
        for n in range(round(second * fps), round((second + 1) * fps)):
            taken_us = round(n * US_PER_S / fps)
            arrived_us = max(arrived_us, taken_us + delay_us(n))
            source_us = round(n * US_PER_S / stamped_fps) + set_us(n)
            law.saw(
                source_us,
                now_us=arrived_us,
                unix_us=arrived_us + wall_us,
                camera_us=None if says_us is None else UNIX_US + taken_us + says_us(n),
            )
            chunk.append((taken_us, law.mended_us(source_us)))
        datings.append(law.date())
        errors += [
            (datings[-1].base_us + mended_us - taken_us - wall_us) / US_PER_S
            for taken_us, mended_us in chunk
        ]
    return errors, datings


def worst(errors: Iterable[float]) -> float:
    return max(map(abs, errors))


@pytest.mark.parametrize("ppm", [-200, -50, 50, 200])
def test_a_quartz_that_is_off_is_followed_without_new_runs(ppm: int) -> None:
    errors, datings = errors_s(3600, fps=2, stamped_fps=2 * (1 + ppm / 1e6))

    assert worst(errors) < 0.02
    assert not any(dating.is_anew for dating in datings)


@pytest.mark.parametrize(("sent", "stamped"), [(21, 25), (25, 21), (5, 25), (24, 25), (29.97, 30)])
def test_stamps_that_run_at_another_rate_than_pictures_do_not_drift(
    sent: float, stamped: float
) -> None:
    errors, _ = errors_s(5 * MINUTE_S, fps=sent, stamped_fps=stamped)

    assert worst(errors[round(MINUTE_S * sent) :]) < MOST_OFF_S


def test_a_picture_that_was_late_dates_nothing() -> None:
    """The network stands still for four seconds each half minute, and then brings all at once."""
    errors, datings = errors_s(
        5 * MINUTE_S, delay_us=lambda n: 50_000 + 4_000_000 * (n % 750 == 700)
    )

    assert worst(errors) < 0.06
    assert not any(dating.is_anew for dating in datings)


def test_pictures_that_waited_for_the_connection_are_dated_as_they_were_taken() -> None:
    errors, datings = errors_s(MINUTE_S, delay_us=lambda n: max(0, 3_000_000 - n * 40_000))

    assert worst(errors[4 * 25 :]) < 0.06
    assert not any(dating.is_anew for dating in datings)


@pytest.mark.parametrize("step_s", [-3600, -1, -0.1, 0.1, 1, 3600])
def test_a_host_whose_clock_is_set_dates_by_it_at_once(step_s: float) -> None:
    errors, datings = errors_s(
        2 * MINUTE_S, host_us=lambda second: round(step_s * US_PER_S) if second >= 30 else 0
    )

    assert worst(errors) < MOST_OFF_S
    assert [30] * (abs(step_s) > 0.25) == [n for n, d in enumerate(datings) if d.is_anew]


@pytest.mark.parametrize("ahead_s", [0.2, 1, 10])
def test_stamps_that_are_set_ahead_cost_nothing(ahead_s: float) -> None:
    errors, datings = errors_s(
        2 * MINUTE_S, set_us=lambda n: round(ahead_s * US_PER_S) if n >= 777 else 0
    )

    assert worst(errors) < MOST_OFF_S
    assert not any(dating.is_anew for dating in datings)


def test_a_delay_that_lasts_is_believed() -> None:
    """Nothing tells it from a camera that stood still, and whose stamps did, too."""
    errors, datings = errors_s(MINUTE_S, delay_us=lambda n: 6_000_000 if n >= 500 else 0)

    assert 1 == sum(dating.is_anew for dating in datings)
    assert {0.0} == {round(error, 2) for error in errors[:700]}
    assert {6.0} == {round(error, 2) for error in errors[800:]}


@pytest.mark.parametrize("wrong_s", [0, 0.05])
def test_a_camera_that_says_when_it_took_a_picture_is_believed(wrong_s: float) -> None:
    """Its pictures are on the way for half a second."""
    errors, datings = errors_s(
        MINUTE_S, delay_us=lambda _n: 500_000, says_us=lambda _n: round(wrong_s * US_PER_S)
    )

    assert {wrong_s} == {round(error, 3) for error in errors}
    assert {TrustedClock.RTCP} == {dating.clock for dating in datings}


@pytest.mark.parametrize("wrong_s", [-3600, -30, 2, 3600])
def test_a_camera_whose_wall_clock_is_wrong_is_not_believed(wrong_s: float) -> None:
    errors, datings = errors_s(
        MINUTE_S, delay_us=lambda _n: 50_000, says_us=lambda _n: round(wrong_s * US_PER_S)
    )

    assert worst(errors) < 0.06
    assert {TrustedClock.ARRIVAL} == {dating.clock for dating in datings}


def test_a_file_that_comes_faster_than_it_plays_begins_no_runs() -> None:
    errors, datings = errors_s(10 * MINUTE_S, delay_us=lambda n: -n * 39_000)

    assert errors
    assert not any(dating.is_anew for dating in datings)


@given(
    delays_us=st.lists(st.integers(0, 200_000), min_size=20, max_size=200),
    drift_ppm=st.integers(-200, 200),
    steps=st.dictionaries(st.integers(0, 99), st.integers(-(10**10), 10**10), max_size=4),
)
def test_no_date_is_off_by_more_than_the_law_says(
    delays_us: list[int], drift_ppm: int, steps: dict[int, int]
) -> None:
    errors, _ = errors_s(
        100,
        fps=4,
        stamped_fps=4 * (1 + drift_ppm / 1e6),
        delay_us=lambda n: delays_us[n % len(delays_us)],
        host_us=lambda second: sum(size for at, size in steps.items() if at <= second),
    )

    assert worst(errors) <= (MOST_OFF_US + 200_000) / US_PER_S


@given(stamps=st.lists(st.integers(0, 2**53), min_size=2, max_size=50), every=st.integers(1, 9))
def test_whatever_is_stamped_time_rises(stamps: list[int], every: int) -> None:
    law, mended = WallClock(), []
    for n, source_us in enumerate(sorted(set(stamps))):
        law.saw(source_us, now_us=n * 40_000, unix_us=UNIX_US)
        mended.append(law.mended_us(source_us))
        if n % every == 0:
            law.date()

    assert all(before < after for before, after in pairwise(mended))


@pytest.mark.parametrize("apart_us", [0, 1, 400, 39_000, 41_000, 10**9])
def test_stamps_that_make_no_sense_break_nothing(apart_us: int) -> None:
    law = WallClock()
    for n in range(2000):
        law.saw(n * apart_us, now_us=n * 40_000, unix_us=UNIX_US + n * 40_000)
        law.date()

    assert law.mended_us(2000 * apart_us) >= law.mended_us(0)


@pytest.mark.parametrize("says_when", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_days_of_trouble_are_dated_right(seed: int, says_when: bool) -> None:  # noqa: FBT001
    assert worst_s(dated(World(seed, days=0.5, says_when=says_when))) <= MOST_OFF_S
