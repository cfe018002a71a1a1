"""Scores that lean towards what looks like clicked snippets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.real_parts import torch_imports

with torch_imports():
    from training.config import Points, PseudoLabels
    from training.learning.batches import Bag
    from training.learning.click_looks import leaning_scores
    from training.learning.second_look import click_note, segments_of

pytestmark = pytest.mark.torch

SHARE = 6
ACTION, AFTER = slice(6, 14), slice(14, 17)  # rows, of 24


def falls(n_clips=60, where=(0.0, 1.0)):
    """Clips in which class 0 happens and leaves something behind that no click is on.

    The teacher hardly tells one from the other: to it both are of class 0. Class 1 leaves nothing
    behind, so its clicks tell how people click.
    """
    rng = np.random.default_rng(0)
    bags, scores = [], []
    for n in range(n_clips):
        curves, tags = np.full((24, 2), 0.05, np.float32), np.eye(2, dtype=np.float32)[n % 2]
        features = rng.normal(0, 0.3, (24, 8)).astype(np.float32)
        features[ACTION, n % 2] += 1
        curves[ACTION, n % 2] = 0.8
        if n % 2 == 0:
            features[AFTER, 2] += 1
            curves[AFTER, 0] = 0.7
        points = np.zeros((24, 2), bool)
        low, high = (ACTION.start + place * (ACTION.stop - ACTION.start) for place in where)
        points[int(rng.uniform(low, high)), n % 2] = True
        mean = np.zeros(8, np.float32)
        bags.append(Bag(f"{n}", features, mean, np.arange(24), tags, points=points))
        scores.append(curves)
    return bags, scores


def leant(bags, scores, config):
    features, means = [bag.features for bag in bags], [bag.camera_mean for bag in bags]
    return leaning_scores(scores, features, means, [bag.points for bag in bags], SHARE, config)


def ends(bags, scores, config):
    """The row after the last of each segment of class 0."""
    grown = segments_of(scores, bags, PseudoLabels(SHARE, 0.25, 0.75), config)[::2]
    return [int(np.flatnonzero(targets[:, 0])[-1]) + 1 for targets in grown]


def test_what_is_never_clicked_is_no_part_of_an_action():
    bags, scores = falls()

    assert min(ends(bags, scores, Points(lean=0))) >= AFTER.stop - 1  # smoothed
    assert np.mean(ends(bags, scores, Points())) < ACTION.stop + 1


def test_what_all_footage_of_a_camera_shows_is_no_look_of_an_action():
    bags, scores = falls()
    moved = [
        replace(bag, features=bag.features + shift, camera_mean=shift)
        for bag, shift in zip(bags, np.random.default_rng(1).normal(0, 9, (60, 8)), strict=True)
    ]

    assert ends(bags, scores, Points()) == ends(moved, scores, Points())


def test_clicks_that_all_lie_in_the_middle_say_nothing_of_edges():
    bags, scores = falls(where=(0.5, 0.5))

    assert ends(bags, scores, Points(lean=0)) == ends(bags, scores, Points())


def test_the_narrower_clicks_lie_the_less_they_move():
    moved = []
    for where in ((0.5, 0.5), (0.4, 0.8), (0.0, 1.0)):
        bags, scores = falls(where=where)
        pairs = zip(scores, leant(bags, scores, Points()), strict=True)
        moved.append(float(np.mean([np.abs(after - before).mean() for before, after in pairs])))

    assert moved[0] < moved[1] < moved[2] / 2


@pytest.mark.parametrize(
    ("where", "n_clips", "is_said"),
    [
        ((0.0, 1.0), 60, False),
        ((0.45, 0.55), 60, True),
        ((0.6, 0.95), 60, True),
        ((0.45, 0.55), 19, False),
    ],
)
def test_clicks_in_one_place_of_their_actions_are_told_of(where, n_clips, is_said):
    bags, scores = falls(n_clips, where)
    labels = PseudoLabels(SHARE, 0.25, 0.75)
    unclicked = [replace(bag, points=None) for bag in bags]

    line = click_note(scores, bags, labels, Points())

    assert is_said == (line is not None and "click sooner and later" in line)
    assert click_note(scores, bags, labels, Points(lean=0)) is None
    assert click_note(scores, unclicked, labels, Points()) is None


def test_features_that_are_all_the_same_move_nothing():
    bags, scores = falls(8)
    flat = [replace(bag, features=np.ones_like(bag.features)) for bag in bags]

    for before, after in zip(scores, leant(flat, scores, Points()), strict=True):
        np.testing.assert_array_equal(before, after)


@st.composite
def clips(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    scores = [rng.random((length, 3)).astype(np.float32) for length in lengths]
    features = [rng.normal(0, 1, (length, 4)).astype(np.float32) for length in lengths]
    points = [None if draw(st.booleans()) else rng.random((n, 3)) < 0.2 for n in lengths]
    return scores, features, points


@given(clips(), st.floats(0, 100), st.floats(0, 1))
def test_only_classes_that_are_clicked_move_and_stay_numbers(given_clips, lean, reach):
    scores, features, points = given_clips
    before = [curves.copy() for curves in scores]
    means = [np.zeros(4, np.float32)] * len(scores)
    seen = leaning_scores(scores, features, means, points, SHARE, Points(lean=lean, reach=reach))

    for was, given_curves, now, clicked in zip(before, scores, seen, points, strict=True):
        np.testing.assert_array_equal(was, given_curves)  # nothing is changed in place
        still = np.ones(3, bool) if clicked is None else ~clicked.any(axis=0)
        np.testing.assert_array_equal(was[:, still], now[:, still])
        assert now.dtype == np.float32
        assert np.isfinite(now).all()
        assert (now >= 0).all()
