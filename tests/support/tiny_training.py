"""Planted clips and a small configuration, for tests that train in a second."""

from typing import Any

import numpy as np

from engine.files.strict_yaml import read_yaml
from engine.grid import Grid
from tests.support.checkout import CHECKOUT
from training.records import FeatureSet, VideoRecord

CONFIGS = CHECKOUT / "configs/training"
SMALL = {
    "network.trunk.whitening_dims": 3,
    "network.trunk.width": 8,
    "network.interaction.key_dims": 4,
    "network.trunk.input_dropout": 0.1,
    "batches.sequences": 2,
    "batches.clips": 3,
    "optimiser.learning_rate": 0.02,
    "schedule.length": 12,
    "log.every": 2,
    "log.save_every": 5,
    "rounds": 1,
}
MANIFEST = {"extractor_sha256": "0" * 64, "feature_dim": 3}


def a_record(name: str, features: Any, **changes: Any) -> VideoRecord:
    """A clip of camera ``cam-1`` without tags, a row a snippet."""
    rows = np.asarray(features, np.float32)
    known: dict[str, Any] = {
        "name": name,
        "camera": "cam-1",
        "features": rows,
        "indices": np.arange(len(rows), dtype=np.int64),
        "duration_us": len(rows) * 160_000,
        "tags": (),
        "truth": None,
    }
    return VideoRecord(**{**known, **changes})


def planted(n_clips: int = 24, seed: int = 0) -> FeatureSet:
    """Clips of two cameras; feature 0 is high for three rows of "a", feature 1 for "b"."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n_clips):
        rows = rng.normal(0, 0.1, (6 + i % 3, 3)) + np.array([0, 0, i % 2])
        tags = [(), (0,), (1,), (0, 1)][i % 4]
        for label in tags:
            start = int(rng.integers(len(rows) - 2))
            rows[start : start + 3, label] += 1
        records.append(a_record(f"clip-{i}", rows, tags=tags, camera=f"cam-{i % 2}"))
    return FeatureSet(("a", "b"), tuple(records), Grid(25, 4, 4), 3)


def small_content(**changes: Any) -> dict[str, Any]:
    """YAML values of the clips configuration, shrunk; ``a__b`` stands for the key ``a.b``."""
    from training.config import with_overrides  # noqa: PLC0415 - needs torch

    content, _ = read_yaml(CONFIGS / "s2net-clips.yaml")
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return with_overrides(content, {**SMALL, **dotted}, "test")


def small_config(**changes: Any) -> Any:
    """The same as a ``TrainingConfig``."""
    from training.config import training_config  # noqa: PLC0415 - needs torch

    return training_config(small_content(**changes), "test")
