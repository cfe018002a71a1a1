import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from engine.bundle import MANIFEST, ModelBundle, resolve_bundle, write_bundle
from engine.cache import bundles_dir, cache_dir
from engine.errors import BundleError
from tests.support.scripted import CLASS_NAMES, a_spec
from tests.support.tiny_bundle import backbone, localizer, write_tiny_bundle


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def changed(folder: Path, key: str, value: object) -> None:
    """Set one dotted key of the manifest; the value ``...`` deletes it."""
    content = yaml.safe_load((folder / MANIFEST).read_text())
    *parents, last = key.split(".")
    node: Any = content
    for parent in parents:
        node = node[int(parent) if parent.isdigit() else parent]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    (folder / MANIFEST).write_text(yaml.safe_dump(content))


def test_a_written_bundle_reads_back_as_the_same_model(tiny: Path) -> None:
    bundle = ModelBundle.load(tiny)
    spec = a_spec()
    assert bundle.spec.class_names == CLASS_NAMES
    assert (bundle.spec.timeline, bundle.spec.geometry) == (spec.timeline, spec.geometry)
    assert (bundle.spec.window, bundle.spec.proposals) == (spec.window, spec.proposals)
    assert bundle.spec.tracker == spec.tracker
    assert bundle.model_id == f"tiny@{bundle.digest[:12]}"
    assert bundle.backbone_path.is_file()
    assert bundle.localizer_path.is_file()


def test_the_same_model_has_the_same_digest_wherever_it_is_written(tmp_path: Path) -> None:
    digests = {ModelBundle.load(write_tiny_bundle(tmp_path / name)).digest for name in "ab"}
    assert len(digests) == 1


@pytest.mark.parametrize("file_name", ["backbone.onnx", "localizer.onnx"])
def test_one_flipped_bit_in_a_network_is_refused_with_both_digests(
    tiny: Path, file_name: str
) -> None:
    blob = bytearray((tiny / file_name).read_bytes())
    blob[len(blob) // 2] ^= 1
    (tiny / file_name).write_bytes(blob)
    with pytest.raises(BundleError, match=rf"{file_name}: SHA-256 is \w{{64}}, .* says \w{{64}}"):
        ModelBundle.load(tiny)


@pytest.mark.parametrize("file_name", ["backbone.onnx", "localizer.onnx", MANIFEST])
def test_a_missing_file_is_named(tiny: Path, file_name: str) -> None:
    (tiny / file_name).unlink()
    with pytest.raises(BundleError, match=f"{file_name} cannot be read: No such file"):
        ModelBundle.load(tiny)


def test_another_schema_version_is_refused_with_both_versions(tiny: Path) -> None:
    changed(tiny, "schema_version", 2)
    with pytest.raises(BundleError, match="schema_version is 2, this s2netd reads 1"):
        ModelBundle.load(tiny)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("model.feature_dim", 5, r"backbone.onnx: tensor features is .*needs .*5"),
        ("model.feature_dim", 3.0, r"model.feature_dim is 3.0, wanted int"),
        ("model.feature_dim", True, r"model.feature_dim is True, wanted int"),
        ("model.class_names", ["red"], r"localizer.onnx: tensor cas"),
        ("model.class_names", ["red", "red"], "class_names must"),
        ("model.class_names", "red", "class_names is 'red', wanted"),
        ("model.class_names", ["red", 3], r"class_names\[1\] is 3, wanted str"),
        ("model.precision", "f8", "precision is 'f8', wanted"),
        ("model.name", "a/b", "name is 'a/b'"),
        ("model.geometry.fit", "stretch", "geometry.fit is 'stretch'"),
        ("model.geometry.crop_px", 0, "crop_px is 0"),
        ("model.timeline.fps", 30, "microseconds a grid frame"),
        ("model.window.hop_snippets", 0, "hop_snippets is 0"),
        ("model.proposals.step_us", 70_000, "stride in interpolation steps"),
        ("model.tracker.keep_score", 0.9, "keep_score is 0.9"),
        ("model.tracker.open_score", ..., "model.tracker.open_score is missing"),
        ("model.tracker.colour", "red", "model.tracker.colour is unknown"),
        ("model.pixels.mean", [1.0, 2.0], "pixels.mean is"),
        ("backbone.inputs.0.dtype", "float32", "backbone.onnx: tensor snippets is"),
        ("backbone", [], "backbone is a list, wanted a mapping"),
    ],
)
def test_a_manifest_that_lies_is_refused_naming_the_key(
    tiny: Path, key: str, value: object, complaint: str
) -> None:
    changed(tiny, key, value)
    with pytest.raises(BundleError, match=complaint) as refused:
        ModelBundle.load(tiny)
    assert str(tiny) in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"[1, 2]", b"a: [", b"\xff\xfe\x00", b"!!python/object:os.system {}", b"x" * 2**21],
)
def test_a_manifest_that_is_no_yaml_mapping_is_one_clear_error(tiny: Path, text: bytes) -> None:
    (tiny / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match=MANIFEST):
        ModelBundle.load(tiny)


def test_networks_that_contradict_the_card_are_not_written(tiny: Path, tmp_path: Path) -> None:
    model = backbone()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 99
    with pytest.raises(BundleError, match=r"tensor snippets is .*99"):
        write_bundle(
            tmp_path / "bad",
            ModelBundle.load(tiny).card,
            backbone=model.SerializeToString(),
            localizer=localizer().SerializeToString(),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_network_with_weights_in_another_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = backbone()
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], np.zeros(1, np.float32))
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(weight)
    with pytest.raises(BundleError, match="which no digest covers"):
        write_bundle(
            tmp_path / "external",
            ModelBundle.load(tiny).card,
            backbone=model.SerializeToString(),
            localizer=localizer().SerializeToString(),
        )


def test_what_is_no_onnx_file_is_not_written_and_the_old_bundle_stays(tiny: Path) -> None:
    before = ModelBundle.load(tiny)
    with pytest.raises(BundleError, match="is not an ONNX file"):
        write_bundle(tiny, before.card, backbone=b"nonsense", localizer=b"")
    assert ModelBundle.load(tiny) == before
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny"]


def test_writing_over_a_bundle_replaces_it_whole(tiny: Path) -> None:
    (tiny / "stray").write_text("left over")
    write_tiny_bundle(tiny)
    assert sorted(path.name for path in tiny.iterdir()) == [
        "backbone.onnx",
        "bundle.yaml",
        "localizer.onnx",
    ]


def test_a_bundle_is_found_by_path_or_by_the_name_it_was_pulled_under(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert resolve_bundle(tiny) == tiny
    assert resolve_bundle("tiny") == Path("tiny")
    bundles_dir().mkdir(parents=True)
    shutil.move(tiny, bundles_dir() / "tiny")
    assert resolve_bundle("tiny") == bundles_dir() / "tiny"


def test_a_name_that_was_not_pulled_says_how_to_pull_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BundleError, match="s2netd models pull kinetics400"):
        resolve_bundle("kinetics400")
    with pytest.raises(BundleError, match=r"holds no bundle.yaml"):
        resolve_bundle(tmp_path / "nowhere")


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert cache_dir() == tmp_path / ".cache" / "s2netd"
