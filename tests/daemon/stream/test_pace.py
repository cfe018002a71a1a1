"""How dense a camera's footage is, and how many snippets come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.stream.pace import Pace
from engine.grid import Grid

GRID = Grid(25, 16, 8)


def saw(pace: Pace, fps: float, n_chunks: int, chunk_s: float = 1.0) -> None:
    for number in range(n_chunks):
        pace.saw(round(number * chunk_s * 1e6), round(fps * chunk_s), 3, number * chunk_s)


@given(st.integers(1, 120), st.integers(2, 100), st.sampled_from([0.5, 1.0, 2.0, 10.0]))
def test_frames_in_a_second_however_it_is_cut(fps: int, n_chunks: int, chunk_s: float) -> None:
    pace = Pace(GRID)
    saw(pace, fps * 2, n_chunks, chunk_s)

    assert fps * 2 == pace.fps
    assert pace.is_sparse == (fps * 2 < 22.5 and (n_chunks - 1) * chunk_s >= 2)


@pytest.mark.parametrize(("fps", "is_sparse"), [(5, True), (12, True), (24, False), (60, False)])
def test_fewer_frames_than_the_grid_are_sparse(fps: int, is_sparse) -> None:
    pace = Pace(GRID)
    saw(pace, fps, 4)

    assert is_sparse == pace.is_sparse


def test_nothing_is_said_of_what_was_not_seen_for_long() -> None:
    pace = Pace(GRID)
    assert (None, False) == (pace.fps, pace.is_sparse)
    saw(pace, 2, 2)
    assert (2, False) == (pace.fps, pace.is_sparse)
    pace.broke()
    assert pace.fps is None


def test_a_hole_is_no_low_rate() -> None:
    pace = Pace(GRID)
    saw(pace, 25, 4)
    pace.broke()
    pace.saw(100_000_000, 25, 3, 10)
    pace.saw(101_000_000, 25, 3, 11)

    assert 25 == pace.fps


def test_snippets_of_the_last_minute() -> None:
    pace = Pace(GRID)
    for tenth in range(1200):
        pace.saw(tenth * 100_000, 2, 1, tenth / 10)

    assert 0 == Pace(GRID).snippets_a_minute(5)
    assert 590 <= pace.snippets_a_minute(120) <= 600
    assert len(pace._snippets) <= 61
    assert 0 == pace.snippets_a_minute(1000)
