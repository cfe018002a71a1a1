"""Resampled mAP: equal to mAP of the drawn videos; differences and their p."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.judging.truth import TruthSpan
from engine.types import Proposal, Span
from training.evaluation.average_precision import mean_average_precision
from training.evaluation.matching import Detections, Truth
from training.evaluation.resampling import difference, draws_of_videos, holm, resampled_maps
from training.records import VideoRecord

S = 1_000_000
N_CLASSES = 2


def a_video(name: str, truth: tuple[TruthSpan[int], ...]) -> VideoRecord:
    empty = np.zeros((0, 2), np.float32)
    return VideoRecord(name, "", empty, np.zeros(0, np.int64), 100 * S, None, truth)


@st.composite
def footage(draw):
    """Three videos, their actions, and detections whose scores all differ."""
    times = st.integers(0, 20)
    videos, found, rank = [], {}, 0
    for name in ("a", "b", "c"):
        rows = draw(st.lists(st.tuples(st.integers(0, 1), times), max_size=4))
        actions = tuple(
            TruthSpan(label, Span(at * S, (at + 3) * S)) for label, at in dict.fromkeys(rows)
        )
        videos.append(a_video(name, actions))
        guesses = draw(st.lists(st.tuples(st.integers(0, 1), times), max_size=5))
        found[name] = []
        for label, at in guesses:
            rank += 1
            score = draw(st.integers(0, 9)) / 10 + rank / 1000
            found[name].append(Proposal(label, Span(at * S, (at + 3) * S), score))
    return videos, found


@given(footage(), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_video_drawn_twice_counts_as_two(given_case, draws):
    videos, found = given_case
    truth = Truth.of(videos)
    seen = resampled_maps(
        truth, Detections.of(found, truth.videos), N_CLASSES, np.array([draws], np.float64)
    )

    # The same videos, truly copied.
    copies = [
        (replace(video, name=f"{video.name}{number}"), found[video.name])
        for video, count in zip(videos, draws, strict=True)
        for number in range(count)
    ]
    again = Truth.of([video for video, _ in copies])
    detections = Detections.of({video.name: rows for video, rows in copies}, again.videos)
    wanted = mean_average_precision(again, detections, N_CLASSES)
    assert len(again.video) == sum(
        count * len(video.truth) for video, count in zip(videos, draws, strict=True)
    )
    # Sums of at most 20 terms, in another order. Copies of a detection follow each other, and the
    # precision after the last of them is the highest that any of them reaches, if it is right.
    assert seen[0] == pytest.approx(wanted.average, rel=1e-12, nan_ok=True)


def test_every_resample_has_as_many_videos():
    draws = draws_of_videos(7, 50, seed=1)

    assert (50, 7) == draws.shape
    assert {7.0} == set(draws.sum(axis=1).tolist())
    assert np.array_equal(draws, draws_of_videos(7, 50, seed=1))


def test_a_difference_that_every_video_shows_is_real_and_one_by_chance_is_not():
    rng = np.random.default_rng(0)
    base = rng.normal(0.8, 0.03, (5, 1000))
    better, alike = base + 0.05, rng.normal(0.8, 0.03, (5, 1000))

    found = difference(better, base, measured=0.05)
    by_chance = difference(alike, base, measured=float(alike.mean() - base.mean()))

    assert 5.0 == pytest.approx(found.mean)
    assert found.low < 5.0 < found.high
    assert found.p < 0.05 < by_chance.p
    assert by_chance.low < 0 < by_chance.high


def test_equal_sides_do_not_differ():
    same = np.full((2, 100), 0.5)

    found = difference(same, same, measured=0.0)

    assert (0.0, 0.0, 0.0, 1.0) == (found.mean, found.low, found.high, found.p)


def test_p_is_never_below_what_the_resamples_can_tell():
    assert 0.01 == difference(np.ones((1, 100)), np.zeros((1, 100)), 1.0).p


def test_holm_raises_the_smallest_most():
    assert [0.03, 0.06, 0.06, 0.02] == pytest.approx(holm([0.01, 0.04, 0.03, 0.005]))
    assert [] == holm([])
    assert [1.0, 1.0] == holm([0.9, 0.8])
