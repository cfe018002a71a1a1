"""Clicks: which rows they are of, and which segments are grown from them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.real_parts import torch_imports
from tests.support.tiny_training import a_record, planted, small_config
from training.records import Point

with torch_imports():
    from training.learning.batches import (
        camera_means,
        clicked_rows,
        clip_batch,
        training_bags,
        video_batch,
    )
    from training.learning.point_segments import grown_segments, with_points
    from training.learning.scoring import score_video
    from training.learning.train import train

pytestmark = pytest.mark.torch

SHARE, LEVEL = 6, 0.7


@st.composite
def curves_and_clicks(draw):
    values = draw(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
    clicks = draw(st.sets(st.integers(0, len(values) - 1), min_size=1, max_size=4))
    return np.array(values, np.float32), sorted(clicks)


@given(curves_and_clicks(), st.floats(0, 1), st.integers(1, 8))
def test_every_click_has_a_segment_of_its_own(given_case, level, share):
    scores, clicks = given_case
    found = grown_segments(scores, clicks, share, level)

    assert len(clicks) == len(found)
    for click, (start, stop) in zip(clicks, found, strict=True):
        assert 0 <= start <= click < stop <= len(scores)
    for (_, stop), (start, _) in itertools.pairwise(found):
        assert stop <= start


@given(curves_and_clicks(), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_level_grows_no_segment_less(given_case, one, other):
    scores, clicks = given_case
    low, high = (grown_segments(scores, clicks, SHARE, level) for level in sorted((one, other)))

    for wide, narrow in zip(low, high, strict=True):
        assert wide[0] <= narrow[0]
        assert narrow[1] <= wide[1]


def test_the_segment_is_what_is_high_around_its_click():
    scores = np.repeat([0, 0.9, 0, 0.5, 0], 5).astype(np.float32)

    assert [(5, 10), (15, 20)] == grown_segments(scores, [7, 17], SHARE, LEVEL)
    assert [(5, 10), (15, 20)] == grown_segments(scores, [5, 19], SHARE, LEVEL)


def test_two_clicks_on_one_rise_part_where_it_is_lowest_between_them():
    scores = np.array([0, 0.9, 0.9, 0.9, 0.85, 0.9, 0.9, 0.9, 0], np.float32)

    (first, second) = grown_segments(scores, [2, 6], SHARE, LEVEL)

    assert first[1] == second[0] == 4


def test_targets_of_clicked_classes_alone_are_replaced():
    scores = np.array([[0.0, 0.3], [0.9, 0.3], [0.9, 0.3], [0, 0.3], [0, 0.3]], np.float32)
    targets = np.full((5, 2), 0.25, np.float32)
    points = np.zeros((5, 2), bool)
    points[2, 0] = True

    seen = with_points(targets, scores, points, share=SHARE, level=LEVEL)

    assert [0, 1, 1, 0, 0] == seen[:, 0].tolist()
    assert [0.25] * 5 == seen[:, 1].tolist()


def test_a_click_is_of_the_row_whose_middle_is_nearest():
    grid = planted(1).grid  # snippets of 0.16 s, end to end
    points = tuple(Point(1, at) for at in (0, 159_999, 161_000, 500_000, 10_000_000))
    record = a_record("one", np.zeros((3, 3)), indices=np.array([0, 1, 5]), points=points)

    seen = clicked_rows(record, 2, grid)

    assert [True, True, True] == seen[:, 1].tolist()
    assert not seen[:, 0].any()
    assert clicked_rows(a_record("two", np.zeros((3, 3))), 2, grid) is None


def clicked(n_clips=12):
    """Planted clips, each tag clicked in the middle of what was planted."""
    feature_set = planted(n_clips)
    records = []
    for record in feature_set.records:
        middles = [
            Point(tag, int(np.convolve(record.features[:, tag], np.ones(3), "same").argmax()))
            for tag in record.tags
        ]
        points = tuple(Point(p.class_id, p.time_us * 160_000 + 80_000) for p in middles)
        records.append(replace(record, points=tuple(sorted(points, key=lambda p: p.time_us))))
    return replace(feature_set, records=tuple(records))


def bags_of(feature_set):
    return training_bags(feature_set, camera_means(feature_set.records))


def test_points_lie_where_their_features_do():
    bags = bags_of(clicked())
    batch = clip_batch(bags, 3)

    for i, bag in enumerate(bags):
        wanted = np.zeros((len(bag.features), 2), bool) if bag.points is None else bag.points
        assert np.array_equal(wanted, batch.points[batch.bags == i].numpy())
    assert not batch.points[~batch.valid].any()
    assert clip_batch(bags_of(planted()), 3).points is None


@pytest.mark.parametrize("length", [3, 7, 40])
def test_no_click_is_lost_where_videos_are_sampled(length):
    bags = bags_of(clicked())
    batch = video_batch(bags, length, np.random.default_rng(0))

    for row, bag in zip(batch.points.numpy(), bags, strict=True):
        wanted = np.zeros(2) if bag.points is None else bag.points.any(axis=0)
        assert np.array_equal(wanted, row.any(axis=0))


def test_clicks_are_learned_from_in_both_rounds(tmp_path):
    """The same clips with every click at their very beginning: the network follows it there."""
    # So few steps tell it surely at a full weight: of three seeds .74, .65, .66 and .92, .90, .89.
    config = small_config(rounds=2, schedule__length=40, points__weight=1.0)
    feature_set = clicked(24)
    astray = replace(
        feature_set,
        records=tuple(
            replace(record, points=tuple(Point(p.class_id, 0) for p in record.points))
            for record in feature_set.records
        ),
    )
    runs = {
        name: train(config, videos, tmp_path / name, threads=1)
        for name, videos in (("true", feature_set), ("astray", astray), ("none", planted(24)))
    }

    shown = {name: clicked_scores(run, feature_set) for name, run in runs.items()}
    assert shown["true"] > shown["astray"]
    columns = {name: (tmp_path / name / "log.csv").read_text().split("\n")[0] for name in runs}
    assert ",point" in columns["true"]
    assert ",point" not in columns["none"]


def clicked_scores(run, feature_set):
    """The mean score of every class at its true clicks."""
    found = []
    for record in feature_set.records:
        cas, _ = score_video(run.network, record, run.camera_mean(record.camera))
        points = clicked_rows(record, 2, feature_set.grid)
        found += [] if points is None else cas[points].tolist()
    return np.mean(found)


def test_a_training_with_other_clicks_is_another_training(tmp_path):
    config = small_config(schedule__length=2)
    first = train(config, clicked(8), tmp_path / "a", threads=1)
    plain = train(config, planted(8), tmp_path / "b", threads=1)
    unweighed = train(
        small_config(schedule__length=2, points__weight=0), planted(8), tmp_path / "c", threads=1
    )

    assert first.identity != plain.identity
    assert plain.identity == unweighed.identity  # without clicks their weight decides nothing
