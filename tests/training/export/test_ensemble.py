"""Several networks as one: the mean of their scores, in torch and exported."""

from dataclasses import replace

import numpy as np
import pytest

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.errors import DataError
from tests.support.error_bounds import gamma
from tests.support.real_parts import torch_imports
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_training import planted, small_config

with torch_imports():
    from training.evaluation.whole_video import attended_scores
    from training.export.ensemble import ensemble_of
    from training.export.export import export
    from training.feature_files import manifest_of
    from training.learning.train import train

pytestmark = [pytest.mark.torch, pytest.mark.openvino]


@pytest.fixture
def base(tmp_path):
    return ModelBundle.load(write_tiny_bundle(tmp_path / "base"))


@pytest.fixture
def runs(base, tmp_path):
    configs = [small_config(seed=seed) for seed in range(3)]
    return [
        train(config, planted(), tmp_path / f"{seed}", manifest=manifest_of(base), threads=1)
        for seed, config in enumerate(configs)
    ]


def test_its_scores_are_the_mean_of_its_members(runs):
    record = planted().records[1]

    seen = attended_scores(ensemble_of(runs), record)

    each = np.stack([attended_scores(run, record) for run in runs]).astype(np.float64)
    # The mean of three numbers in [0, 1].
    assert np.abs(seen - each.mean(axis=0)).max() <= gamma(8)
    assert not np.array_equal(seen, attended_scores(runs[0], record))


def test_it_is_exported_like_any_other(base, runs, tmp_path):
    joint = ensemble_of(runs)
    bundle = ModelBundle.load(export(joint, base, tmp_path / "out", name="joint", source="three"))
    record = planted().records[1]
    backend = open_backend("openvino", bundle.localizer_path, precision="f32", threads=1)

    inputs = {
        "features": record.features[None],
        "valid": np.ones((1, len(record.features)), np.float32),
        "background": joint.camera_mean(record.camera)[None],
    }
    found = backend.run(inputs)
    backend.close()

    scores = found["cas"][0] * found["attention"][0][:, None]
    assert np.abs(scores - attended_scores(joint, record)).max() < 1e-4  # as `s2net parity` wants


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"class_names": ("a", "c")}, "class_names"),
        ({"feature_dim": 4}, "feature_dim"),
        ({"camera_means": {"": np.ones(3, np.float32)}}, "camera_means"),
    ],
)
def test_networks_of_other_data_make_no_ensemble(runs, changes, named):
    with pytest.raises(DataError, match=f"another {named} make no ensemble"):
        ensemble_of([runs[0], replace(runs[1], **changes)])
