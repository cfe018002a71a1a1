"""Videos → bags → batches: nothing left out, nothing mixed up."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import DataError
from tests.support.real_parts import torch_imports
from tests.support.tiny_training import a_record, planted

with torch_imports():
    from training.config import ClipBatches, VideoBatches
    from training.learning.batches import (
        Sampler,
        camera_means,
        check_feature_set,
        clip_batch,
        perturbed,
        places_of,
        training_bags,
    )

pytestmark = pytest.mark.torch


@pytest.fixture
def bags():
    feature_set = planted(10)
    return training_bags(feature_set, camera_means(feature_set.records))


def with_record(record):
    feature_set = planted(4)
    return replace(feature_set, records=(*feature_set.records, record))


def test_every_bag_is_drawn_once_before_any_is_drawn_again(bags):
    sampler = Sampler(bags, ClipBatches(2, 2), (7,))
    turns = [bag for step in range(5) for bag in sampler.drawn(step)]

    assert list(range(10)) == sorted(turns[:10])
    assert list(range(10)) == sorted(turns[10:])
    assert turns[:10] != turns[10:]


def test_a_batch_is_a_function_of_seed_and_step_alone(bags):
    config = ClipBatches(2, 2)
    first = Sampler(bags, config, (7,))
    for step in range(6):
        first.batch(step)
    late = Sampler(bags, config, (7,)).batch(4)

    assert first.batch(4).features.equal(late.features)
    assert not late.tags.equal(Sampler(bags, config, (8,)).batch(4).tags)


def test_clips_lie_end_to_end_with_their_own_tags(bags):
    batch = clip_batch(bags[:5], 3)
    lengths = [len(bag.features) for bag in bags[:5]]

    assert (2, sum(lengths[:3]), 3) == tuple(batch.features.shape)
    assert Counter(dict(enumerate(lengths))) == Counter(batch.bags[batch.valid].tolist())
    assert batch.valid.equal(batch.bags >= 0)
    for i, bag in enumerate(bags[:5]):
        rows = batch.features[batch.bags == i].numpy()
        assert np.array_equal(bag.features - bag.camera_mean, rows)
        assert np.array_equal(bag.tags, batch.tags[i].numpy())
    assert not batch.features[~batch.valid].any()
    assert batch.targets is None


def test_targets_lie_where_their_features_do(bags):
    labelled = [replace(bag, targets=bag.features[:, :2].copy()) for bag in bags[:3]]
    batch = clip_batch(labelled, 2)

    for i, bag in enumerate(labelled):
        assert np.array_equal(bag.targets, batch.targets[batch.bags == i].numpy())
    assert not batch.targets[~batch.valid].any()


def test_missing_snippets_are_not_valid_and_long_gaps_are_cut():
    assert [0, 1, 4, 37] == places_of(np.array([5, 6, 9, 900])).tolist()

    holey = a_record("holey", np.ones((3, 3)), indices=np.array([2, 3, 5]), tags=(0,))
    feature_set = replace(planted(1), records=(holey,))
    batch = clip_batch(training_bags(feature_set, {"": np.zeros(3, np.float32)}), 1)

    assert [[True, True, False, True]] == batch.valid.tolist()
    assert [[0, 0, -1, 0]] == batch.bags.tolist()


def test_a_background_is_the_cameras_own_mean_and_unknown_cameras_get_everybodys():
    records = (
        a_record("a", [[1, 0, 0], [3, 0, 0]], tags=None),
        a_record("b", [[0, 6, 0]], camera="cam-2"),
        a_record("c", [[0, 0, 4]], camera=""),
    )
    seen = camera_means(records)

    assert {
        "": [1, 1.5, 1],
        "cam-1": [2, 0, 0],
        "cam-2": [0, 6, 0],
    } == {camera: vector.tolist() for camera, vector in seen.items()}


def test_videos_nobody_tagged_are_not_trained_on():
    feature_set = with_record(a_record("unknown", np.ones((3, 3)), tags=None))
    bags = training_bags(feature_set, camera_means(feature_set.records))

    assert [f"clip-{i}" for i in range(4)] == [bag.name for bag in bags]


def test_pairs_share_a_class_and_are_two_videos(bags):
    sampler = Sampler(bags, VideoBatches(videos=6, length=9, pairs=2), (1,))
    for step in range(20):
        batch = sampler.batch(step)
        assert (6, 9, 3) == tuple(batch.features.shape)
        assert batch.valid.all()
        for first in (0, 2):
            assert (batch.tags[first] * batch.tags[first + 1]).any()
            assert not batch.features[first].equal(batch.features[first + 1])


def test_sampling_takes_one_row_a_bin():
    rng = np.random.default_rng(0)
    draws = np.stack([perturbed(10, 4, rng) for _ in range(300)])

    # Edges 0, 2.5, 5, 7.5: [0..2], [2..5], [5..7], [7..9].
    assert [0, 2, 5, 7] == draws.min(axis=0).tolist()
    assert [2, 5, 7, 9] == draws.max(axis=0).tolist()


def test_a_short_video_repeats_rows_in_order():
    rng = np.random.default_rng(0)
    draws = np.stack([perturbed(2, 5, rng) for _ in range(50)])

    assert (np.diff(draws, axis=1) >= 0).all()
    assert {0, 1} == set(draws.ravel().tolist())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (a_record("bad", [[0, np.nan, 0]], tags=(0,)), "bad: row 0 of its features is not finite"),
        (a_record("bad", np.ones((2, 4)), tags=(0,)), r"bad: features are \(2, 4\), wanted"),
        (a_record("bad", np.ones((0, 3)), tags=(0,)), "bad: holds no whole snippet"),
        (a_record("bad", np.ones((2, 3)), tags=(2,)), "bad: tag 2 is no class; there are 2"),
        (a_record("bad", np.ones((2, 3)), indices=np.array([3, 3])), "bad: its snippet indices"),
    ],
)
def test_features_that_would_spoil_a_run_are_refused_by_name(record, message):
    with pytest.raises(DataError, match=message) as caught:
        check_feature_set(with_record(record))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("records", [(), (a_record("a", np.ones((2, 3))),)])
def test_nothing_tagged_is_refused(records):
    with pytest.raises(DataError, match="fill the tags in"):
        check_feature_set(replace(planted(1), records=records))
