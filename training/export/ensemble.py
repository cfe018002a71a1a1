"""Several trained networks → one that is exported like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from engine.errors import DataError
from engine.types import FloatArray
from training.learning.checkpoints import TrainedNetwork
from training.networks.ensemble import Ensemble


def ensemble_of(runs: Sequence[TrainedNetwork]) -> TrainedNetwork:
    """Several trained networks as one: the mean of their scores.

    Args:
        runs: At least one; of the same classes, features and cameras.

    Raises:
        DataError: They differ in these.
    """
    first = runs[0]
    for other in runs[1:]:
        same = ("class_names", "feature_dim", "grid", "manifest")
        odd = [name for name in same if getattr(other, name) != getattr(first, name)]
        if not _are_equal(other.camera_means, first.camera_means):
            odd.append("camera_means")  # one mean is subtracted for all members
        if odd:
            raise DataError(
                f"networks with another {odd[0]} make no ensemble: train all on the same "
                "features, tags, quiet footage and background"
            )
    return replace(
        first,
        network=Ensemble([run.network for run in runs]).eval(),
        identity=" ".join(run.identity for run in runs),
    )


def _are_equal(one: Mapping[str, FloatArray], other: Mapping[str, FloatArray]) -> bool:
    """Are these the same cameras, with the same means (D,)?"""
    return one.keys() == other.keys() and all(
        np.array_equal(one[camera], other[camera]) for camera in one
    )
