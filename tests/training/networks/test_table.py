"""Every row of the table goes the whole way: trained, kept, exported, live; a new row does too."""

from dataclasses import dataclass

import pytest

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.cas import BackendLocalizer
from engine.files.strict_yaml import read_yaml
from tests.support.real_parts import has_torch, torch_imports
from tests.support.small_networks import CONFIGS, SMALL, shipped_network, small_section
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_training import planted

with torch_imports():
    import torch

    from training.config import read_training_config, training_config
    from training.evaluation.stream_runs import stream_video
    from training.export.export import export
    from training.export.parity import parity
    from training.feature_files import manifest_of
    from training.learning.checkpoints import load_run
    from training.learning.train import train
    from training.networks import NETWORKS, NetworkEntry
    from training.networks.base import Network, Scores, masked
    from training.networks.losses import BagLayout, bag_cross_entropy, linear_softmax_mean

pytestmark = [pytest.mark.torch, pytest.mark.openvino, pytest.mark.numeric]


def a_training(section):
    """The clips configuration with another network, in a second's length."""
    content, _ = read_yaml(CONFIGS / "s2net-clips.yaml")
    content["network"] = section
    content["batches"] = {"kind": "clips", "sequences": 2, "clips": 3}
    content["optimiser"]["learning_rate"] = 0.01
    content["schedule"]["length"] = 40
    content["rounds"] = 2
    return training_config(content, "test")


def goes_the_whole_way(tmp_path, section):
    base = ModelBundle.load(write_tiny_bundle(tmp_path / "base"))
    videos = planted()
    options = {"device": "cpu", "threads": 1, "note": print}
    run = train(
        a_training(section), videos, tmp_path / "run", manifest=manifest_of(base), **options
    )
    assert all(torch.isfinite(weight).all() for weight in run.network.parameters())
    kept = load_run(tmp_path / "run").network.state_dict()
    assert all(torch.equal(kept[name], one) for name, one in run.network.state_dict().items())

    bundle = ModelBundle.load(export(run, base, tmp_path / "made", name="made", source="planted"))
    report = parity(run, bundle.localizer_path, videos.records, lengths=(1, 24, 48))
    assert report.holds, report.table()

    backend = open_backend("openvino", bundle.localizer_path, precision="f32", threads=1)
    localizer = BackendLocalizer(backend)
    spec = bundle.spec.with_open_score(0.05)
    events = [stream_video(record, spec, localizer) for record in videos.records]
    backend.close()
    assert any(events)  # the session that the daemon runs finds something


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(SMALL))
def test_a_network_of_the_table_goes_the_whole_way(tmp_path, kind):
    goes_the_whole_way(tmp_path, small_section(kind, "scenes"))


def test_small_forms_are_of_the_networks_there_are():
    assert set(NETWORKS) - {"s2net"} == set(SMALL)


@pytest.mark.parametrize("kind", ["s2net", *sorted(SMALL)])
@pytest.mark.parametrize(
    ("of", "feature_dim"),
    [
        ("thumos14", 2048),
        ("thumos14-rgb", 1024),
        ("activitynet", 2048),
        ("activitynet-rgb", 1024),
        ("scenes", 1024),
    ],
)
def test_each_data_set_has_its_form(kind, of, feature_dim):
    config = read_training_config(CONFIGS / f"{kind}-{of}.yaml")
    is_joint = feature_dim == 2 * 1024

    assert kind == config.network.kind
    assert ("joint" if is_joint else "rgb") == config.data.modality
    # A network that parts its features parts them into what there is.
    own = config.network.config
    assert 1 + is_joint == getattr(getattr(own, "trunk", own), "modalities", 1 + is_joint)
    network = shipped_network(f"{kind}-{of}", feature_dim=feature_dim, n_classes=5)
    assert {"meta"} == {one.device.type for one in network.parameters()}


@dataclass(frozen=True, slots=True)
class ToyConfig:
    gain: float


if has_torch():

    class Toy(Network):
        """One linear map."""

        def __init__(self, config, *, feature_dim, n_classes):
            super().__init__()
            self.gain, self.map = config.gain, torch.nn.Linear(feature_dim, n_classes)

        def forward(self, features, valid):
            cas = masked((self.gain * self.map(masked(features, valid))).sigmoid(), valid)
            attention = valid.to(features.dtype)
            return Scores(cas, attention, linear_softmax_mean(cas, valid), {})

        def losses(self, scores, batch, step):  # noqa: ARG002 - it is the same at every step
            layout = BagLayout(batch.bags, len(batch.tags))
            pooled = linear_softmax_mean(layout.arranged(scores.cas), layout.valid)
            return {"bag": bag_cross_entropy(pooled, batch.tags)}


def test_another_network_is_one_file_and_one_row(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "toy", NetworkEntry(ToyConfig, Toy))

    goes_the_whole_way(tmp_path, {"kind": "toy", "gain": 2.0})
