from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import Grid
from engine.snippets import LONGEST_HOLD_US, SamplerState, SnippetSampler
from tests.support.scripted import frames_of

GRID = Grid(fps=25, snippet_frames=4, stride_frames=4)


def a_sampler(stride_frames: int = 4) -> SnippetSampler:
    return SnippetSampler(Grid(25, 4, stride_frames), max_gap_us=500_000)


def numbered(pts_us):
    """Frames whose red is their number."""
    return frames_of(pts_us, range(len(pts_us)), [0] * len(pts_us))


def shown(snippet):
    return snippet.rgb[:, 0, 0, 0].tolist()


def test_at_the_grid_rate_every_frame_is_shown_once():
    snippets = a_sampler().push(numbered([i * 40_000 for i in range(9)]))

    assert [[0, 1, 2, 3], [4, 5, 6, 7]] == [shown(s) for s in snippets]
    assert [(0, 160_000), (160_000, 320_000)] == [
        (s.span.start_us, s.span.end_us) for s in snippets
    ]


def test_a_slower_camera_repeats_frames_and_a_faster_one_skips_them():
    slow = a_sampler().push(numbered([i * 100_000 for i in range(4)]))
    fast = a_sampler().push(numbered([i * 20_000 for i in range(9)]))

    assert [0, 0, 0, 1] == shown(slow[0])
    assert [0, 2, 4, 6] == shown(fast[0])


def test_a_grid_point_shows_the_latest_frame_not_the_nearest():
    snippets = a_sampler().push(numbered([0, 41_000, 79_000, 121_000, 200_000]))

    # 40 ms: frame 0 (frame 1 is 1 ms late); 80 ms: frame 2; 120 ms: frame 2.
    assert [0, 0, 2, 2] == shown(snippets[0])


def test_a_snippet_is_given_out_as_soon_as_its_last_frame_is_certain():
    sampler = a_sampler()

    assert 1 == len(sampler.push(numbered([0, 40_000, 80_000, 120_000])))


def test_overlapping_snippets_share_frames():
    snippets = a_sampler(stride_frames=2).push(numbered([i * 40_000 for i in range(8)]))

    assert [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]] == [shown(s) for s in snippets]
    assert [0, 1, 2] == [s.index for s in snippets]


def test_a_gap_invents_no_frames_and_starts_a_segment_on_the_same_grid():
    pts_us = [*range(0, 240_000, 40_000), *range(1_000_000, 1_400_000, 40_000)]
    sampler = a_sampler()
    snippets = sampler.push(numbered(pts_us))

    # Frames 4 and 5 were the beginning of snippet 1; 1.0 s lies in snippet 6, so 7 is the first.
    assert [(0, 0), (7, 1)] == [(s.index, s.segment) for s in snippets]
    assert 1_120_000 == snippets[1].span.start_us
    assert 1 == sampler.n_gaps


def test_the_longest_allowed_hold_is_not_a_gap():
    sampler = a_sampler()
    sampler.push(numbered([0, 40_000, 540_000]))
    assert 0 == sampler.n_gaps
    sampler.push(numbered([580_000 + 40_000 * n for n in range(9)]))
    sampler.push(numbered([1_400_001]))

    assert 1 == sampler.n_gaps


@pytest.mark.parametrize("fps", [0.4, 0.5, 1, 2, 5])
def test_a_slow_camera_has_no_gaps(fps):
    sampler = a_sampler()
    snippets = sampler.push(numbered([round(i * 1e6 / fps) for i in range(20)]))

    assert 0 == sampler.n_gaps
    assert list(range(len(snippets))) == [s.index for s in snippets]
    assert snippets[-1].span.end_us > 18e6 / fps


def test_a_slow_camera_may_lose_a_frame_and_tremble():
    sampler = a_sampler()
    sampler.push(numbered([0, 700_000, 2_100_000, 2_900_000, 4_900_000, 6_000_000]))

    assert 0 == sampler.n_gaps


def test_a_slow_camera_may_send_two_frames_sooner():
    sampler = a_sampler()
    sampler.push(numbered([0, 1_000_000, 1_400_000, 1_800_000, 2_800_000]))

    assert 0 == sampler.n_gaps


def test_no_frame_is_held_for_longer_than_the_stated_time():
    sampler = a_sampler()
    sampler.push(numbered([i * (LONGEST_HOLD_US + 1) for i in range(9)]))

    assert 8 == sampler.n_gaps


def test_a_camera_that_slows_down_has_one_gap():
    sampler = a_sampler()
    fast = [i * 40_000 for i in range(50)]
    sampler.push(numbered([*fast, *(fast[-1] + i * 1_000_000 for i in range(1, 20))]))

    assert 1 == sampler.n_gaps


def test_what_an_earlier_version_kept_of_a_slow_camera_counts_for_as_long():
    kept = SamplerState(0, 0, 1_000_000, 1_000_000, apart_us=900_000)
    for pause_us, is_gap in ((1_700_000, False), (1_900_000, True)):
        sampler = SnippetSampler(GRID, max_gap_us=500_000, state=kept)
        sampler.push(numbered([1_000_000, 1_000_000 + pause_us]))

        assert is_gap == (sampler.n_gaps > 0)


@given(
    apart_us=st.lists(st.integers(1_000, 3_000_000), min_size=2, max_size=30),
    at=st.integers(1, 29),
    n_earlier=st.integers(0, 30),
)
def test_a_restart_finds_the_gaps_that_there_were(apart_us, at, n_earlier):
    pts_us = np.cumsum(apart_us).tolist()
    undisturbed = a_sampler()
    wanted = undisturbed.push(numbered(pts_us))
    before = a_sampler()
    given_out = before.push(numbered(pts_us[:at]))
    state = before.state
    first = next((i for i, us in enumerate(pts_us) if us == state.resume_us), at)

    after = SnippetSampler(GRID, max_gap_us=500_000, state=state)
    # What is read again begins with a chunk, and that with frames that are not needed.
    from_chunk = max(first - n_earlier, 0) if state.resume_us is not None else first
    given_out += after.push(numbered(pts_us[from_chunk:]))

    assert in_segments(wanted) == in_segments(given_out)


def in_segments(snippets):
    """Indices, segment by segment; a restart between two may skip a number."""
    return [[s.index for s in of_one] for _, of_one in groupby(snippets, lambda s: s.segment)]


def test_a_break_without_footage_counts_nothing():
    sampler = a_sampler()
    sampler.break_segment()
    sampler.push(numbered([0]))
    sampler.break_segment()
    sampler.break_segment()

    assert 1 == sampler.n_gaps
    assert 1 == sampler.state.segment


def test_frames_that_do_not_rise_are_counted_and_left_out():
    sampler = a_sampler()
    sampler.push(numbered([0, 40_000]))
    sampler.push(numbered([40_000, 80_000]))

    assert 1 == sampler.n_late_frames


def test_footage_may_begin_anywhere_on_the_grid():
    snippets = a_sampler().push(numbered([i * 40_000 + 50_000 for i in range(12)]))

    assert 1 == snippets[0].index
    assert np.array_equal([2, 3, 4, 5], shown(snippets[0]))


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_comes_of_too_few_frames(n):
    assert [] == a_sampler().push(numbered([i * 40_000 for i in range(n)]))
