"""Videos → a bank of semantics: some snippets of each, clustered as the networks see them."""

import numpy as np
import torch

from engine.types import FloatArray
from training.config import TrainingConfig
from training.learning.batches import camera_means, check_feature_set, training_bags
from training.networks.semantics_bank import fit_bank
from training.records import FeatureSet


def build_bank(
    config: TrainingConfig,
    feature_set: FeatureSet,
    *,
    n_vectors: int,
    snippets_a_video: int,
    seed: int = 0,
) -> FloatArray:
    """Cluster snippets of every tagged video, each minus its camera's mean if training is.

    Args:
        config: It says whether camera means are subtracted.
        feature_set: The videos.
        n_vectors: K; 0 for one a class and one for the background.
        snippets_a_video: How many snippets are drawn of each video, of a shorter one all.
        seed: Seed of the draws and of the clustering.

    Returns:
        float32 (K, D), unit vectors.

    Raises:
        DataError: The features cannot be trained on, or there are fewer snippets than vectors.
    """
    check_feature_set(feature_set)
    known = camera_means(feature_set.records)
    if config.background == "none":
        known = {"": np.zeros(feature_set.feature_dim, np.float32)}
    rng = np.random.default_rng(seed)
    rows = []
    for bag in training_bags(feature_set, known):
        n_rows = min(snippets_a_video, len(bag.features))
        drawn = np.sort(rng.choice(len(bag.features), n_rows, replace=False))
        rows.append(bag.features[drawn] - bag.camera_mean)
    wanted = n_vectors or len(feature_set.class_names) + 1
    vectors: FloatArray = fit_bank(torch.from_numpy(np.concatenate(rows)), wanted, seed).numpy()
    return vectors
