"""Where chunks without headers lie, of which nothing is known but their records' times."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.stream.foreign import (
    BURST_US,
    TREMBLE_US,
    ForeignTime,
    Placement,
    moved,
    placed,
)
from engine.grid import US_PER_S
from engine.types import FrameBatch, Place

NOW_US = 1_800_000_000 * US_PER_S
APART_US = 40_000
CHUNK_US = US_PER_S


def a_chunk(start_us: int = NOW_US, *, n_frames: int = 25, apart_us: int = APART_US) -> FrameBatch:
    pts_us = start_us + np.arange(n_frames, dtype=np.int64) * apart_us
    return FrameBatch(pts_us, np.zeros((n_frames, 1, 1, 3), np.uint8), n_frames)


class Camera:
    """Keeps of each chunk what a worker keeps."""

    def __init__(self, rule: ForeignTime = "end") -> None:
        self.rule = rule
        self.begin_anew()

    def begin_anew(self) -> None:
        self.place, self.seen_us = Place(), None

    def takes(self, stamp_us: int, frames: FrameBatch | None = None) -> Placement:
        frames = frames or a_chunk(stamp_us)
        placement = placed(frames, stamp_us, self.rule, self.place, self.seen_us)
        if placement.is_step:
            self.begin_anew()
        self.place = placement.kept_in(self.place)
        self.seen_us = int(moved(frames, placement.start_us).pts_us[-1])
        return placement


@pytest.mark.parametrize(("rule", "start_us"), [("end", -CHUNK_US), ("start", 0), ("record", 0)])
def test_the_rule_says_which_moment_the_records_time_marks(
    rule: ForeignTime, start_us: int
) -> None:
    assert NOW_US + start_us == Camera(rule).takes(NOW_US).start_us


def test_of_a_single_picture_nobody_knows_how_long_it_lasts() -> None:
    assert NOW_US == Camera().takes(NOW_US, a_chunk(n_frames=1)).start_us


def test_no_footage_begins_before_time_does() -> None:
    assert 0 == Camera().takes(100).start_us


@given(
    jitter_us=st.lists(st.integers(-150_000, 150_000), min_size=2, max_size=100),
    rule=st.sampled_from(["end", "start"]),
)
def test_chunks_whose_records_were_now_early_and_now_late_overlap_nowhere(
    jitter_us: list[int], rule: ForeignTime
) -> None:
    camera, until_us = Camera(rule), 0
    for n, late_us in enumerate(jitter_us):
        stamp_us = NOW_US + n * CHUNK_US + late_us
        placement = camera.takes(stamp_us)
        first_us = stamp_us - CHUNK_US * (rule == "end")

        assert not placement.is_step
        assert placement.start_us >= until_us
        assert 0 <= placement.start_us - first_us <= 300_000
        until_us = placement.start_us + CHUNK_US


@pytest.mark.parametrize("n_burst", [2, 5, 30])
@pytest.mark.parametrize("rule", ["end", "start"])
def test_a_burst_is_footage_in_a_row(n_burst: int, rule: ForeignTime) -> None:
    """So many chunks of a second, all at once, each so many seconds."""
    camera, starts_us = Camera(rule), []
    for n in range(10 * n_burst):
        placement = camera.takes(NOW_US + n // n_burst * n_burst * CHUNK_US + n % n_burst * 1000)
        starts_us.append(placement.start_us)
        assert not placement.is_step

    assert {CHUNK_US} == set(np.diff(starts_us).tolist())


def test_under_the_rule_record_nothing_is_moved() -> None:
    camera = Camera("record")
    for late_us in (0, 500_000, 700_000):
        assert NOW_US + late_us == camera.takes(NOW_US + late_us).start_us


@pytest.mark.parametrize("rule", get_args(ForeignTime))
@pytest.mark.parametrize("back_us", [TREMBLE_US + 1, 3600 * US_PER_S, 3650 * 86_400 * US_PER_S])
def test_a_clock_that_was_set_back_is_told_at_its_first_chunk(
    back_us: int, rule: ForeignTime
) -> None:
    camera = Camera(rule)
    camera.takes(NOW_US)
    placement = camera.takes(NOW_US + CHUNK_US - back_us - CHUNK_US)

    assert placement.is_step
    assert placement.start_us <= NOW_US - back_us
    assert not camera.takes(NOW_US + CHUNK_US - back_us).is_step


def test_one_time_in_the_far_future_costs_no_more_than_two_runs() -> None:
    camera = Camera()
    stamps_us = [NOW_US + n * CHUNK_US for n in range(9)]
    stamps_us[4] += 10 * 365 * 86_400 * US_PER_S

    assert [5] == [n for n, stamp_us in enumerate(stamps_us) if camera.takes(stamp_us).is_step]


def test_footage_that_stays_ahead_of_its_records_is_dated_anew() -> None:
    """A clock that was set back by so little that nobody could tell it from a burst."""
    camera = Camera()
    steps = [
        n for n in range(60) if camera.takes(NOW_US + n * CHUNK_US - 1_500_000 * (n >= 20)).is_step
    ]

    assert [20 + BURST_US // CHUNK_US + 1] == steps


def test_what_an_older_snapshot_does_not_know_is_told_by_what_was_seen() -> None:
    camera = Camera()
    camera.takes(NOW_US)
    camera.place = Place()

    assert not camera.takes(NOW_US + CHUNK_US).is_step
    camera.place = Place()
    assert camera.takes(NOW_US - 10 * US_PER_S).is_step


def test_a_place_keeps_what_is_known_of_records_times() -> None:
    place = replace(Place(), stamp_us=NOW_US, ahead_since_us=NOW_US - 5)

    assert place == Place.from_json(place.to_json())
