import json
import math
import re
from dataclasses import asdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import Grid, exact_div, ticks_to_us


def test_a_frame_rate_without_whole_microseconds_is_refused():
    with pytest.raises(
        ValueError, match="fps is 30, wanted a rate whose period is a whole number"
    ):
        Grid(fps=30, snippet_frames=16, stride_frames=16)


@pytest.mark.parametrize(
    "fps", [0, -25, 29.97, 1e9, 10**400, 1e-4, 5e-324, math.inf, -math.inf, math.nan]
)
def test_what_is_no_rate_of_a_grid_is_refused_with_the_value(fps: float) -> None:
    with pytest.raises(ValueError, match=rf"fps is {re.escape(str(fps))}, wanted a rate"):
        Grid(fps, snippet_frames=16, stride_frames=16)


@given(st.integers(1, 10**6))
def test_any_period_of_whole_microseconds_is_kept_as_it_is(frame_us: int) -> None:
    grid = Grid(1_000_000 / frame_us, 16, 8)

    assert frame_us == grid.frame_us
    assert 16 * frame_us == grid.snippet_us


def test_equal_rates_are_told_in_the_same_words() -> None:
    assert repr(Grid(25, 16, 8)) == repr(Grid(25.0, 16, 8))
    assert Grid(**json.loads(json.dumps(asdict(Grid(12.5, 8, 4))))) == Grid(12.5, 8, 4)


def test_half_the_rate_with_half_the_frames_has_the_same_snippets() -> None:
    dense, sparse = Grid(25, 16, 8), Grid(12.5, 8, 4)

    assert 2 * dense.frame_us == sparse.frame_us
    assert (dense.snippet_us, dense.stride_us) == (sparse.snippet_us, sparse.stride_us)


@pytest.mark.parametrize("stride", [0, 17])
def test_snippets_must_not_leave_frames_out(stride):
    with pytest.raises(ValueError, match=r"stride_frames is \d+, wanted 1..16"):
        Grid(fps=25, snippet_frames=16, stride_frames=stride)


def test_the_grid_of_the_field():
    grid = Grid(fps=25, snippet_frames=16, stride_frames=8)

    assert 40_000 == grid.frame_us
    assert 640_000 == grid.snippet_us
    assert 320_000 == grid.stride_us
    assert (960_000, 1_600_000) == (grid.snippet_start_us(3), grid.snippet_end_us(3))


@pytest.mark.parametrize(
    ("from_us", "until_us", "holds"),
    [
        (0, 1, True),
        (1, 40_000, False),
        (1, 40_001, True),
        (39_999, 40_000, False),
        (40_000, 40_000, False),
    ],
)
def test_a_frame_holds_the_grid_points_in_its_half_open_interval(from_us, until_us, holds):
    assert holds == Grid(25, 16, 16).holds_grid_point(from_us, until_us)


@given(st.integers(0, 10**12))
def test_the_first_grid_point_and_snippet_are_the_first(time_us):
    grid = Grid(25, 16, 8)
    point = grid.grid_at_or_after(time_us)
    snippet = grid.snippet_at_or_after(time_us)

    assert point * grid.frame_us >= time_us > (point - 1) * grid.frame_us
    assert grid.snippet_start_us(snippet) >= time_us > grid.snippet_start_us(snippet - 1)


@given(st.integers(-(10**9), 10**9), st.integers(1, 200_000), st.integers(1, 1001))
def test_ticks_are_rounded_once_and_by_at_most_half_a_microsecond(ticks, rate, scale):
    time_base = Fraction(scale, rate)

    assert abs(ticks_to_us(ticks, time_base) - ticks * time_base * 1_000_000) <= Fraction(1, 2)


def test_exact_div_names_what_it_refuses():
    assert 4 == exact_div(12, 3, "cells")
    with pytest.raises(ValueError, match="cells: 12 is not a whole multiple of 5"):
        exact_div(12, 5, "cells")
    with pytest.raises(ValueError, match="not a whole multiple of 0"):
        exact_div(12, 0, "cells")
