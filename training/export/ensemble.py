"""Several trained networks → one that is exported like any other."""

from collections.abc import Sequence
from dataclasses import replace

from engine.errors import DataError
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
        if odd or other.config.background != first.config.background:
            raise DataError(
                f"networks with another {(odd or ['background'])[0]} make no ensemble: train all "
                "on the same features and tags"
            )
    return replace(
        first,
        network=Ensemble([run.network for run in runs]).eval(),
        identity=" ".join(run.identity for run in runs),
    )
