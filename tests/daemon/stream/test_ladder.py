"""The ladder: down while a camera is late, up once it is not and the device could do more."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.stream.ladder import CALM_S, LOWER_AT_S, MOST_BUSY, RUNGS, Ladder
from engine.spec import EconomySpec, Rung

ALL = EconomySpec(lowest=Rung.GATED)


def played(
    ladder: Ladder, lags_s: list[float], busy: float = 0.1, from_s: float = 0.0
) -> list[Rung]:
    """A chunk a second; the device is busy for that share of the time."""
    return [
        ladder.saw(lag_s, busy * (from_s + second), from_s + second)
        for second, lag_s in enumerate(lags_s)
    ]


def test_three_times_the_load_is_answered_within_ten_seconds():
    """Of each second, a third is finished: the camera falls behind by the rest."""
    rungs = played(Ladder(ALL), [0.5 + second * 2 / 3 for second in range(10)])

    assert Rung.FULL is rungs[0]
    assert Rung.HALF in rungs


def test_a_camera_that_stays_late_goes_down_to_the_lowest_rung_and_no_further():
    rungs = played(Ladder(EconomySpec(lowest=Rung.QUARTER)), [0, *[60.0] * 20])

    assert [Rung.FULL, Rung.HALF] == rungs[:2]
    assert Rung.QUARTER is rungs[-1]
    assert Rung.GATED not in rungs


def test_full_quality_is_back_within_thirty_seconds():
    ladder = Ladder(ALL)
    played(ladder, [0, *[60.0] * 10])
    assert Rung.GATED is ladder.rung

    rungs = played(ladder, [0.2] * 30, from_s=100)

    assert Rung.FULL is rungs[-1]


@pytest.mark.parametrize("busy", [0.5, 0.8, 1.0])
def test_how_busy_the_device_was_for_minutes_does_not_keep_a_camera_down(busy):
    """On a low rung nobody is late; then most cameras go away."""
    ladder, busy_s = Ladder(ALL), 0.0
    played(ladder, [0, *[60.0] * 10], busy=0.0)
    for second in range(180):
        busy_s += busy
        ladder.saw(0.2, busy_s, 100.0 + second)
    assert ladder.is_lowered

    for second in range(30):
        busy_s += 0.15
        ladder.saw(0.2, busy_s, 280.0 + second)

    assert Rung.FULL is ladder.rung


def test_a_rung_up_waits_until_the_device_could_do_it():
    ladder = Ladder(EconomySpec(lowest=Rung.HALF))
    played(ladder, [0, 60.0, 60.0])

    assert Rung.HALF is played(ladder, [0.0] * 60, busy=0.6 * MOST_BUSY, from_s=100)[-1]
    assert Rung.FULL is played(ladder, [0.0] * 60, busy=0.4 * MOST_BUSY, from_s=200)[-1]


def test_clocks_that_are_apart_make_nobody_late():
    rungs = played(Ladder(ALL), [3600.0] * 60)

    assert {Rung.FULL} == set(rungs)


def test_another_run_may_have_another_clock():
    ladder = Ladder(ALL)
    played(ladder, [0.0] * 5)
    ladder.began()

    assert {Rung.FULL} == set(played(ladder, [3600.0] * 20, from_s=10))


@pytest.mark.parametrize("top", RUNGS)
@pytest.mark.parametrize("lowest", RUNGS)
def test_nobody_goes_above_what_is_configured(top, lowest):
    ladder = Ladder(EconomySpec(top, lowest))
    rungs = played(ladder, [0, *[60.0] * 20]) + played(ladder, [0.0] * 60, from_s=100)

    assert {top, max(top, lowest, key=RUNGS.index)} >= {rungs[0], rungs[-1]}
    assert all(RUNGS.index(rung) >= RUNGS.index(top) for rung in rungs)
    assert top is rungs[-1]


@given(st.lists(st.floats(-10, 1000), min_size=2, max_size=60), st.floats(0, 1))
def test_it_moves_by_one_rung_and_down_only_for_lateness(lags_s, busy):
    ladder = Ladder(ALL)
    rungs = played(ladder, lags_s, busy)

    assert Rung.FULL is rungs[0]
    for n, (before, after) in enumerate(itertools.pairwise(rungs), 1):
        step = RUNGS.index(after) - RUNGS.index(before)
        assert abs(step) <= 1
        if step == 1:
            assert lags_s[n] - min(lags_s[: n + 1]) > LOWER_AT_S
        if step == -1:
            quiet = lags_s[max(n - int(CALM_S), 0) : n + 1]
            assert max(quiet) - min(lags_s[: n + 1]) <= LOWER_AT_S
