"""A converted bundle is held to the f32 one that it was made from, before it serves."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from daemon.models.reading import check_model, must_be_compared
from engine.bundle.model_bundle import MANIFEST, ModelBundle, write_bundle
from engine.bundle.networks import Original
from engine.bundle.reference import reference_of
from engine.errors import BundleError
from tests.support.model_rig import FakeGpu, a_config, a_rig
from tests.support.tiny_convolutions import write_convolutional_bundle
from training.precision.convert import convert
from training.precision.half import to_precision

pytestmark = pytest.mark.openvino


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """The f32 bundle ``plain``, beside which all others lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ModelBundle.load(write_convolutional_bundle(tmp_path / "plain"))


@pytest.fixture
def half(plain, tmp_path):
    return convert(plain, "f16", tmp_path / "half", name="half")


def stranger(plain: ModelBundle, folder: Path) -> Path:
    """A bundle in f16 that says it was made from ``plain``, and sees other things."""
    network = onnx.load(plain.backbone_path)
    for weight in network.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim == 5:
            weight.CopyFrom(numpy_helper.from_array(np.flip(values, 0).copy(), weight.name))
    return write_bundle(
        folder,
        replace(plain.card, precision="f16"),
        backbone=to_precision(network.SerializeToString(), "f16"),
        localizer=plain.localizer_path.read_bytes(),
        original=Original(plain.backbone_sha256, "plain"),
    )


async def test_one_that_is_the_same_model_serves_and_is_called_what_it_is(plain, half):
    async with a_rig(a_config(plain.path)) as rig:
        rig.swap.want(a_config(half))
        await rig.until(lambda: rig.count("done") == 1)

        assert "half@" in rig.slot.current.description
        assert "on openvino f16 as f32 CPU" in rig.slot.current.description
        assert any("snippet 36 of 36" in words for words in rig.told)


@pytest.mark.parametrize("backend", ["openvino", "tensorrt"])
async def test_one_that_sees_otherwise_leaves_the_old_one_serving(plain, tmp_path, backend):
    other = stranger(plain, tmp_path / "other")
    gpu = FakeGpu(other)  # answers just as its file does
    gpu.may_finish.set()
    async with a_rig(a_config(plain.path), gpu.steps()) as rig:
        before = rig.slot.current
        rig.swap.want(a_config(other, backend=backend))
        await rig.until(lambda: rig.count("failed") == 1)

        assert before is rig.slot.current
        assert "strays from" in rig.status.last_error
        rig.swap.want(a_config(other, verify=False))
        await rig.until(lambda: rig.count("done") == 1)


async def test_verification_asked_for_later_is_made_up_for(plain, tmp_path):
    other = stranger(plain, tmp_path / "other")
    async with a_rig(a_config(other, verify=False)) as rig:
        rig.swap.want(a_config(other, verify=True))
        await rig.until(lambda: rig.count("failed") == 1)

        assert "strays from" in rig.status.last_error


async def test_one_whose_original_is_nowhere_does_not_serve(plain, half, tmp_path):
    async with a_rig(a_config(plain.path)) as rig:
        plain.path.rename(tmp_path / "elsewhere")
        rig.swap.want(a_config(half))
        await rig.until(lambda: rig.count("failed") == 1)

        assert "half is f16 of plain, which is not here to compare it with" in (
            rig.status.last_error
        )


def test_checking_a_configuration_tells_that_too(plain, half, tmp_path):
    assert check_model(a_config(half)).startswith("half@")
    plain.path.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="which is not here to compare it with"):
        check_model(a_config(half))
    assert check_model(a_config(half, verify=False)).startswith("half@")


async def test_a_bundle_replaced_while_its_plan_is_built_does_not_serve(plain, tmp_path):
    place = tmp_path / "place"
    shutil.copytree(plain.path, place)
    gpu = FakeGpu(plain.path)
    async with a_rig(a_config(plain.path), gpu.steps()) as rig:
        rig.swap.want(a_config(place, backend="tensorrt"))
        await rig.until(lambda: gpu.n_begun == 1)
        shutil.rmtree(place)
        write_bundle(
            place,
            replace(plain.card, version=9),
            backbone=plain.backbone_path.read_bytes(),
            localizer=plain.localizer_path.read_bytes(),
        )
        gpu.may_finish.set()
        await rig.until(lambda: rig.count("failed") == 1)

        assert "was replaced while it was being opened" in rig.status.last_error


def test_the_original_is_looked_for_among_pulled_bundles_too(plain, half, tmp_path):
    pulled = tmp_path / "cache" / "s2netd" / "bundles" / "plain"
    pulled.parent.mkdir(parents=True)
    plain.path.rename(pulled)
    seen = reference_of(ModelBundle.load(half))

    assert pulled / "backbone.onnx" == seen.backbone_path
    assert ("f32", plain.backbone_sha256) == (seen.card.precision, seen.backbone_sha256)
    (pulled / "backbone.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"and what .*plain holds is another one"):
        reference_of(ModelBundle.load(half))
    assert write_convolutional_bundle(plain.path) / "backbone.onnx" == (
        reference_of(ModelBundle.load(half)).backbone_path  # beside it lies the right one
    )


def test_a_converted_bundle_is_not_its_own_original(half):
    sha256 = ModelBundle.load(half).backbone_sha256
    content = yaml.safe_load((half / MANIFEST).read_text())
    content["original"] = {"sha256": sha256, "from_bundle": "half"}
    (half / MANIFEST).write_text(yaml.safe_dump(content))
    with pytest.raises(BundleError, match=r"names .*half/backbone\.onnx as its original: that is"):
        reference_of(ModelBundle.load(half))


def test_an_f32_bundle_is_its_own_reference(plain):
    assert plain == reference_of(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"original": None}, "half is f16 and does not say what it was made from"),
        ({"precision": "f32"}, "the manifest says f32, the backbone computes in f16"),
        ({"original": {"sha256": "0", "from_bundle": "../x"}}, "from_bundle is '../x'"),
        ({"original": {"sha256": "0"}}, "original.from_bundle is missing"),
        ({"original": {"sha256": "0", "from_bundle": "plain"}}, "holds is another one"),
    ],
)
def test_a_manifest_cannot_talk_its_way_out(half, change, message):
    content = yaml.safe_load((half / MANIFEST).read_text())
    if "precision" in change:
        content["model"].update(change)
    else:
        content.update(change)
    (half / MANIFEST).write_text(yaml.safe_dump(content))
    with pytest.raises(BundleError, match=message):
        reference_of(ModelBundle.load(half))


class Described:
    """A network of which only the description matters."""

    def __init__(self, description: str) -> None:
        self.description = description


@pytest.mark.parametrize(
    ("backbone", "localizer", "wanted"),
    [
        ("openvino f32 CPU", "openvino f32 CPU", False),
        ("openvino bf16 CPU", "openvino bf16 CPU", True),
        ("openvino int8 CPU", "openvino f32 CPU", True),
        ("openvino f32 CPU", "openvino f16 as f32 CPU", True),
        ("tensorrt 10.15 f32 NVIDIA L4", "tensorrt 10.15 f32 NVIDIA L4", True),
        ("scripted", "scripted", False),
    ],
)
def test_only_plain_f32_on_the_cpu_needs_no_comparison(backbone, localizer, wanted):
    assert wanted == must_be_compared([Described(backbone), Described(localizer)])
