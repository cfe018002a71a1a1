"""When a camera is not tried for a while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.stream.strikes import FIRST_PAUSE_S, LONGEST_PAUSE_S, MEMORY_S, Strikes

pauses = st.lists(st.floats(0, 2 * LONGEST_PAUSE_S), min_size=1, max_size=30)


def test_one_strike_is_forgiven_and_a_second_within_minutes_is_not():
    strikes = Strikes()

    assert 0 == strikes.strike(10)
    assert 0 == strikes.left_s(10)
    assert FIRST_PAUSE_S == strikes.strike(20)
    assert FIRST_PAUSE_S - 5 == strikes.left_s(25)
    assert 0 == strikes.left_s(20 + FIRST_PAUSE_S)


def test_nothing_is_forgiven_of_a_name_that_was_never_any_good():
    strikes = Strikes()

    assert FIRST_PAUSE_S == strikes.strike(10, is_proven=False)
    assert 2 * FIRST_PAUSE_S == strikes.strike(20 + FIRST_PAUSE_S, is_proven=False)


def test_each_quarantine_is_twice_as_long_until_things_have_been_good_for_long():
    strikes, now_s = Strikes(), 0.0
    strikes.strike(now_s)
    for number in range(10):
        pause_s = strikes.strike(now_s)
        assert min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S) == pause_s
        now_s += pause_s

    assert 0 == strikes.strike(now_s + MEMORY_S + 1)


@given(pauses)
def test_a_camera_always_gets_another_try(waits_s):
    strikes, now_s = Strikes(), 0.0
    for wait_s in waits_s:
        now_s += wait_s
        pause_s = strikes.strike(now_s)
        assert pause_s in (0, pytest.approx(strikes.left_s(now_s)))
        assert strikes.left_s(now_s) <= LONGEST_PAUSE_S
