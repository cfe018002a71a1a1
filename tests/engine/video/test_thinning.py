"""Leaving frames out must change nothing that the sampler gives."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RefusedChunkError
from engine.grid import Grid
from engine.snippets import SnippetSampler
from engine.types import FrameBatch
from engine.video.thinning import Thinner, within_span

GRID = Grid(fps=25, snippet_frames=4, stride_frames=2)
SPARSE = Grid(fps=12.5, snippet_frames=4, stride_frames=2)


def thinned(times_us: list[int], grid: Grid = GRID) -> list[int]:
    return [frame for _, frame in Thinner(grid).thin((us, us) for us in times_us)]


def test_every_frame_of_a_slow_video_is_kept() -> None:
    times_us = list(range(0, 2_000_000, 100_000))

    assert times_us == thinned(times_us)


def test_of_a_fast_video_one_frame_a_grid_point_is_kept() -> None:
    times_us = list(range(0, 1_000_000, 10_000))

    kept = thinned(times_us)

    assert [*range(0, 1_000_000, 40_000), 990_000] == kept


def test_late_frames_are_left_out_and_counted() -> None:
    thinner = Thinner(GRID)

    kept = [us for us, _ in thinner.thin((us, "frame") for us in (0, 80_000, 40_000, 80_000))]

    assert [0, 80_000] == kept
    assert 2 == thinner.n_late
    assert 4 == thinner.n_decoded


def test_no_frames_give_no_frames() -> None:
    assert [] == thinned([])


@given(
    grid=st.sampled_from([GRID, SPARSE]),
    n_periods=st.integers(2, 5),
    shares=st.lists(st.integers(25, 8000), min_size=1, max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=6),
    start_us=st.integers(0, 200_000),
)
def test_the_sampler_gives_the_same_snippets_with_and_without_thinning(
    grid: Grid, n_periods: int, shares: list[int], cuts: list[int], start_us: int
) -> None:
    """Gaps just under and over the longest allowed one included, and cut anywhere."""
    steps_us = np.array(shares) * (grid.frame_us // 1000)
    times_us = (start_us + np.cumsum(steps_us)).tolist()
    bounds = sorted({0, len(times_us), *(cut for cut in cuts if cut < len(times_us))})
    pieces = [times_us[a:b] for a, b in pairwise(bounds)]

    max_gap_us = n_periods * grid.frame_us
    whole = _snippets([times_us], grid, max_gap_us)
    cut = _snippets([thinned(piece, grid) for piece in pieces], grid, max_gap_us)

    assert whole == cut


def _snippets(
    batches: list[list[int]], grid: Grid, max_gap_us: int
) -> list[tuple[int, int, list[int]]]:
    """Index, segment and the times of the frames shown."""
    sampler = SnippetSampler(grid, max_gap_us)
    snippets = []
    for times_us in batches:
        pictures = np.array(times_us, np.int64).reshape(-1, 1, 1, 1)
        batch = FrameBatch(np.array(times_us, np.int64), pictures, len(times_us))  # type: ignore[arg-type]
        snippets += sampler.push(batch)
    return [(each.index, each.segment, each.rgb.ravel().tolist()) for each in snippets]


def test_frames_too_far_from_the_first_are_refused() -> None:
    frames = within_span(((us, "frame") for us in (5, 1_000_005, 1_000_006)), 1_000_000)

    assert [5, 1_000_005] == [next(frames)[0], next(frames)[0]]
    with pytest.raises(RefusedChunkError, match="more than 1 s"):
        next(frames)


def test_a_burst_between_two_pauses_makes_no_gap_that_thinning_could_hide() -> None:
    """More frames than the grid has points forget a pause no sooner than few do."""
    burst = [700_000 + 3_000 * n for n in range(7)]
    times_us = [0, 700_000, *burst[1:], 1_500_000]

    assert _snippets([times_us], GRID, 500_000) == _snippets([thinned(times_us)], GRID, 500_000)
