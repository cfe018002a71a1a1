"""A run becomes a bundle that gives the same answers."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from engine.bundle.model_bundle import ModelBundle
from engine.errors import DataError
from engine.judging.agreement import Agreement
from tests.support.real_parts import torch_imports
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_training import planted, small_config

with torch_imports():
    from training.export.export import export, localizer_onnx
    from training.export.parity import TOLERANCE, Deviation, ParityReport, event_agreement, parity
    from training.feature_files import manifest_of
    from training.learning.train import train

pytestmark = [pytest.mark.torch, pytest.mark.openvino]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return ModelBundle.load(write_tiny_bundle(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, base):
    out = tmp_path_factory.mktemp("run")
    config = small_config(schedule__length=40)
    return train(
        config, planted(), out, manifest=manifest_of(base), device="cpu", threads=1, note=print
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, run, base):
    out = tmp_path_factory.mktemp("bundles") / "small"
    return ModelBundle.load(export(run, base, out, name="small", source="planted clips"))


def test_the_bundle_says_what_the_run_decided_and_else_what_its_base_said(bundle, base, run):
    assert ("small", "planted clips", ("a", "b")) == (
        bundle.card.name,
        bundle.card.source,
        bundle.spec.class_names,
    )
    assert (base.spec.window, base.spec.proposals) == (bundle.spec.window, bundle.spec.proposals)
    assert base.backbone_sha256 == bundle.backbone_sha256
    assert {"cam-0", "cam-1"} == set(bundle.spec.camera_mean.cameras)
    assert np.array_equal(run.camera_means[""], bundle.spec.camera_mean.default)


@pytest.mark.numeric
def test_torch_and_openvino_agree(bundle, run):
    report = parity(run, bundle.localizer_path, planted().records)

    # What parity promises: 1600 roundings of a score of 1; test_networks shows that far fewer do.
    assert report.max_error <= TOLERANCE
    assert report.holds
    assert 3 * 6 * 3 == len(report.deviations)  # lengths, windows, outputs
    assert {24, 48, 320} == {deviation.length for deviation in report.deviations}
    assert "max abs error" in report.table()


@pytest.mark.numeric
def test_the_same_precision_finds_the_same_events(bundle, run):
    records = planted().records
    seen = event_agreement(bundle.localizer_path, run, records, bundle.spec, "f32")

    assert (1.0, 1.0) == (seen.f1, seen.mean_tiou)
    assert seen.n_reference == seen.n_candidate == seen.n_matched


def test_agreement_is_told_in_a_line():
    report = ParityReport("x", (), Agreement(10, 8, 6, 0.9))
    told = "10 of the reference, 8 of the candidate, 6 match: F1 0.667, mean tIoU 0.900"

    assert f"with f32 for the reference, events: {told}" in report.table()


@pytest.mark.parametrize("order", [1, -1])
def test_a_number_that_is_none_is_no_parity(order):
    errors = [0.0, float("nan"), 1e-6][::order]
    rows = tuple(Deviation("random", 24, "cas", error, 1.0) for error in errors)

    assert ParityReport("x", rows[::2]).holds
    assert not ParityReport("x", rows).holds
    assert "nan: does not hold" in ParityReport("x", rows).table()


def test_equal_weights_give_equal_files_without_traces_of_the_machine(run):
    blob = localizer_onnx(run.network, 3)
    model = onnx.load_from_string(blob)

    assert blob == localizer_onnx(run.network, 3)
    assert "" == model.producer_version
    assert b"/site-packages/" not in blob
    assert 18 == model.opset_import[0].version


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "no manifest of its features"),
        ({"extractor_sha256": "1" * 64}, "extractor_sha256 is '1111"),
    ],
)
def test_foreign_features_are_refused(tmp_path, run, base, manifest, message):
    foreign = replace(run, manifest={**run.manifest, **manifest} if manifest else {})
    with pytest.raises(DataError, match=message) as caught:
        export(foreign, base, tmp_path / "b", name="b", source="x")

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"windows": 3}, "bundle b: .*windows"), ({"name": "a/b"}, "^$")],
)
def test_a_change_that_the_card_cannot_take_is_refused(tmp_path, run, base, changes, message):
    if "name" in changes:  # a name is no change: what the caller gives wins
        path = export(run, base, tmp_path / "b", name="b", source="x", changes=changes)
        assert "b" == ModelBundle.load(path).name
        return
    with pytest.raises(DataError, match=message):
        export(run, base, tmp_path / "b", name="b", source="x", changes=changes)


def test_a_network_trained_without_backgrounds_gets_zeros_that_stay(tmp_path, base):
    out = tmp_path / "run"
    config = small_config(background="none", schedule__length=1)
    run = train(config, planted(), out, manifest=manifest_of(base), device="cpu", note=print)
    path = export(run, base, tmp_path / "b", name="b", source="x")
    camera_mean = ModelBundle.load(path).spec.camera_mean

    assert not camera_mean.default.any()
    assert not camera_mean.cameras
    assert camera_mean.prior_snippets_new == camera_mean.memory_snippets
