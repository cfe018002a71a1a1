"""Footage in which nothing happens → clips of it, there where a network finds most."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.errors import DataError
from engine.types import FloatArray
from training.learning.batches import Bag, check_record
from training.records import FeatureSet, VideoRecord


def silent_records(quiet: FeatureSet, feature_set: FeatureSet) -> tuple[VideoRecord, ...]:
    """Return quiet footage as records in which nothing happens, held to the form of the clips.

    Raises:
        DataError: Its features are of another form, or would spoil a training.
    """
    if (quiet.grid, quiet.feature_dim) != (feature_set.grid, feature_set.feature_dim):
        raise DataError(
            f"the quiet footage has features of {quiet.feature_dim} numbers on {quiet.grid}, the "
            f"clips of {feature_set.feature_dim} on {feature_set.grid}: extract both with one "
            "bundle"
        )
    silent = tuple(replace(one, tags=(), truth=None, points=()) for one in quiet.records)
    for record in silent:
        check_record(record, feature_set)
    return silent


def part(bag: Bag, first: int, end: int) -> Bag:
    """Return the rows of a bag from ``first`` to ``end`` as a bag of its own, without targets."""
    return replace(
        bag,
        name=f"{bag.name} from {first}",
        features=bag.features[first:end],
        places=bag.places[first:end] - bag.places[first],
        targets=None,
        points=None,
    )


def hardest_stretches(
    curves: Sequence[FloatArray], length: int, n_wanted: int
) -> list[tuple[int, int, int]]:
    """Choose stretches around the highest scores, highest first, none of which overlap.

    Args:
        curves: A video's highest score of any class at each of its snippets, float32 (T,) each.
        length: Snippets in a stretch; a shorter video is one stretch as a whole.
        n_wanted: How many; fewer where the footage holds no more.

    Returns:
        Number of the video, first snippet and the one after the last.

    Source: bootstrapping of Sung, Poggio, Example-based learning for view-based human face
    detection (TPAMI 1998): what a detector finds where there is nothing is learned from next.
    """
    places = [(video, at) for video, curve in enumerate(curves) for at in range(len(curve))]
    scores = np.concatenate([np.zeros(0, np.float32), *curves])
    is_free = [np.ones(len(curve), bool) for curve in curves]
    found: list[tuple[int, int, int]] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if len(found) >= n_wanted:
            break
        video, at = places[row]
        n_snippets = len(curves[video])
        first = min(max(at - length // 2, 0), max(n_snippets - length, 0))
        end = min(first + length, n_snippets)
        if is_free[video][first:end].all():
            is_free[video][first:end] = False
            found.append((video, first, end))
    return found
