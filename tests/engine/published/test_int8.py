"""What was measured once gives the same int8 network everywhere; a shipped bundle gets its own."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.bundle.forms import int8_form_of
from engine.bundle.model_bundle import ModelBundle, resolve_bundle, write_bundle
from engine.errors import BundleError, WeightsError
from engine.files.cache import bundles_dir, shipped_dir
from engine.published import int8_forms
from engine.published.int8 import Calibration, in_int8, read_calibration, write_calibration
from engine.published.int8_forms import CALIBRATIONS, ShippedCalibration
from engine.published.int8_graph import ConvolutionGraph
from engine.published.models import pull
from tests.support.real_parts import missing
from tests.support.tiny_bundle import tiny_card
from tests.support.tiny_convolutions import convolutional_backbone, write_convolutional_bundle

NETWORK = convolutional_backbone()
OTHER = convolutional_backbone(width=4)


def a_calibration(network: bytes = NETWORK) -> Calibration:
    import onnx  # noqa: PLC0415 - heavy

    graph = ConvolutionGraph(onnx.load_from_string(network))
    sources = [source for group in graph.groups() for source in group]
    biases = [c.bias for c in graph.convolutions if c.bias is not None]
    return Calibration(
        {name: float(np.float32(0.1 / (i + 3))) for i, name in enumerate(sources)},
        {name: graph.weights[name] + np.float32(0.01) for name in biases},
    )


def test_a_calibration_survives_its_file_to_the_bit(tmp_path: Path) -> None:
    calibration, path = a_calibration(), tmp_path / "calibration.npz"
    write_calibration(path, calibration)
    read = read_calibration(path)

    assert calibration.steps == read.steps
    assert [bias.tobytes() for bias in calibration.biases.values()] == [
        bias.tobytes() for bias in read.biases.values()
    ]
    assert in_int8(NETWORK, calibration) == in_int8(NETWORK, read)


def test_one_of_another_network_is_refused() -> None:
    known = a_calibration()
    fewer = replace(known, steps=dict(list(known.steps.items())[1:]))
    strange = replace(known, biases={"nowhere": np.zeros(3, np.float32)})
    for calibration in (fewer, strange):
        with pytest.raises(BundleError, match="is of another network"):
            in_int8(NETWORK, calibration)


@pytest.mark.parametrize("blob", [b"", b"PK\x03\x04 and no more", None])
def test_a_damaged_one_is_refused(tmp_path: Path, blob: bytes | None) -> None:
    path = tmp_path / "calibration.npz"
    write_calibration(path, a_calibration())
    path.write_bytes(path.read_bytes()[:200] if blob is None else blob)
    with pytest.raises(BundleError, match="is no calibration"):
        read_calibration(path)


@pytest.mark.numeric
@pytest.mark.weights
def test_the_shipped_one_gives_the_pinned_network_on_this_cpu_too() -> None:
    """Run on simulated CPUs, which round the same."""
    if not (bundles_dir() / "kinetics400-160").is_dir():
        missing("no weights: s2netd models pull scenes")
    scenes = ModelBundle.load(shipped_dir() / "scenes")
    (shipped,) = (one for one in CALIBRATIONS if one.of_sha256 == scenes.backbone_sha256)
    network = in_int8(scenes.backbone_path.read_bytes(), read_calibration(shipped.path))

    assert shipped.sha256 == hashlib.sha256(network).hexdigest()


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelBundle:
    """A shipped bundle with a calibration of its backbone, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("engine.published.models", "engine.bundle.model_bundle", "engine.bundle.forms"):
        monkeypatch.setattr(f"{module}.shipped_dir", lambda: tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    bundle = ModelBundle.load(write_convolutional_bundle(tmp_path / "shipped" / "scenes"))
    calibrate(bundle, tmp_path / "scenes-int8.npz", monkeypatch)
    return bundle


def calibrate(
    bundle: ModelBundle, path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str | None = None
) -> None:
    network = bundle.backbone_path.read_bytes()
    calibration = a_calibration(network)
    write_calibration(path, calibration)
    made = hashlib.sha256(in_int8(network, calibration)).hexdigest()
    shipped = ShippedCalibration(bundle.backbone_sha256, path, sha256 or made)
    monkeypatch.setattr(int8_forms, "CALIBRATIONS", (shipped,))


def test_to_pull_a_shipped_bundle_makes_its_int8_form_once(scenes: ModelBundle) -> None:
    stages: list[str] = []
    assert int8_form_of(scenes) is None
    assert scenes.path == pull("scenes", lambda stage, _done, _total: stages.append(stage))
    form = int8_form_of(scenes)
    pull("scenes", lambda stage, _done, _total: stages.append(stage))

    assert ["convert to int8"] == stages
    assert form is not None
    assert (bundles_dir() / "scenes-int8" / "backbone.onnx") == form.backbone_path
    assert scenes.spec == form.spec
    assert "int8" == form.card.precision
    assert "scenes-int8" == ModelBundle.load(resolve_bundle("scenes-int8")).name


@pytest.mark.parametrize("state", ["damaged", "of another backbone", "of another calibration"])
def test_a_form_that_is_not_the_shipped_one_is_made_again(scenes: ModelBundle, state: str) -> None:
    pull("scenes")
    folder = bundles_dir() / "scenes-int8"
    before = (folder / "backbone.onnx").read_bytes()
    match state:
        case "damaged":
            (folder / "backbone.onnx").write_bytes(b"damaged")
        case "of another backbone":
            shutil.rmtree(folder)
            write_convolutional_bundle(folder)
        case "of another calibration":
            other = Calibration(
                {name: 2 * step for name, step in a_calibration().steps.items()}, {}
            )
            write_bundle(
                folder,
                ModelBundle.load(folder).card,
                backbone=in_int8(scenes.backbone_path.read_bytes(), other),
                localizer=scenes.localizer_path.read_bytes(),
                original=ModelBundle.load(folder).original,
            )
    pull("scenes")

    assert before == (folder / "backbone.onnx").read_bytes()


def test_what_is_not_what_was_pinned_is_not_kept(
    scenes: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(scenes, tmp_path / "other.npz", monkeypatch, sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"gives a network with SHA-256 .*wanted 0000"):
        pull("scenes")

    assert not (bundles_dir() / "scenes-int8").exists()


@pytest.mark.usefixtures("scenes")
def test_where_the_cache_cannot_be_written_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(WeightsError, match=r"cannot write .*XDG_CACHE_HOME"):
        pull("scenes")


def test_a_bundle_without_a_calibration_is_pulled_without_a_form(
    scenes: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_forms, "CALIBRATIONS", ())

    assert scenes.path == pull("scenes")
    assert int8_form_of(scenes) is None


@pytest.mark.usefixtures("scenes")
def test_the_form_is_the_bundle_but_for_its_name_and_precision() -> None:
    pull("scenes")
    form = ModelBundle.load(bundles_dir() / "scenes-int8")

    assert replace(tiny_card(), name="scenes-int8", precision="int8") == form.card
