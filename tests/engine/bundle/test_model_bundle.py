import contextlib
import hashlib
import io
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.backends import open_backend
from engine.bundle.means import CAMERA_MEANS, CameraMeans, read_camera_means
from engine.bundle.model_bundle import MANIFEST, ModelBundle, resolve_bundle, write_bundle
from engine.cas import BackendLocalizer
from engine.errors import BundleError
from engine.files.cache import bundles_dir, cache_dir
from engine.types import FeatureWindow
from tests.support.scripted import CLASS_NAMES, a_camera_mean, a_spec
from tests.support.tiny_bundle import backbone, localizer, tiny_card, write_tiny_bundle


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the bundle ``pulled`` lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundles_dir().mkdir(parents=True)
    return write_tiny_bundle(bundles_dir() / "pulled")


@pytest.fixture
def borrower(cache: Path, tmp_path: Path) -> Path:
    """A bundle that uses its backbone."""
    assert cache.is_dir()
    return write_tiny_bundle(tmp_path / "borrower", backbone_of="pulled")


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A bundle whose localizer takes camera means."""
    return write_tiny_bundle(tmp_path / "watched", camera_mean=a_camera_mean())


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
    assert (bundle.spec.grid, bundle.spec.geometry) == (spec.grid, spec.geometry)
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
    changed(tiny, "schema_version", 1)
    with pytest.raises(BundleError, match="schema_version is 1, this s2netd reads 2"):
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
        ("model.timeline.fps", 30, "fps is 30, wanted a rate whose period"),
        ("model.window.hop_snippets", 0, "hop_snippets is 0"),
        ("model.proposals.step_us", 70_000, "stride in interpolation steps"),
        ("model.tracker.keep_score", 0.9, "keep_score is 0.9"),
        ("model.tracker.open_score", ..., "model.tracker.open_score is missing"),
        ("model.tracker.colour", "red", "model.tracker.colour is unknown"),
        ("model.pixels.mean", [1.0, 2.0], "pixels.mean is"),
        ("backbone.inputs.0.dtype", "float32", "backbone.onnx: tensor snippets is"),
        ("backbone", [], "backbone is a list, wanted a mapping"),
        ("backbone.from_model", 3, "backbone.from_model is 3, wanted str"),
        ("backbone.from_model", "../x", "from_model is '../x', wanted the name"),
        ("backbone.from_model", "..", "from_model is '..', wanted the name"),
        ("backbone.from_model", "", "from_model is '', wanted the name"),
        ("background", 3, "background is a int, wanted a mapping"),
        ("model.tracker.class_open_scores", [0.5], "class_open_scores is 1 scores"),
        ("model.tracker.class_open_scores", [".5", 1], r"class_open_scores\[0\] is '.5'"),
        ("model.camera_open_scores", {"a": [0.5]}, r"camera_open_scores\.a is \(0\.5,\), wanted"),
        ("model.camera_open_scores", {"a": 0.5}, r"camera_open_scores\.a is 0\.5"),
        ("model.camera_open_scores", {3: [0.5, 0.5]}, "camera_open_scores key is 3, wanted str"),
        ("model.camera_open_scores", [0.5], "camera_open_scores is"),
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
    (tiny / "backgrounds.npz").write_text("left over")
    write_tiny_bundle(tiny)
    assert sorted(path.name for path in tiny.iterdir()) == [
        "backbone.onnx",
        "bundle.yaml",
        "localizer.onnx",
    ]


def test_nothing_but_a_bundle_is_replaced(tiny: Path, tmp_path: Path) -> None:
    clips, file = tmp_path / "clips", tmp_path / "file"
    clips.mkdir()
    write_tiny_bundle(clips)  # an empty folder may be taken
    for folder in (clips, tiny):
        (folder / "gate.mp4").write_text("somebody's own")
        with pytest.raises(BundleError, match=r"gate\.mp4, which is no part of a bundle"):
            write_tiny_bundle(folder)
        assert (folder / "gate.mp4").read_text() == "somebody's own"
    file.write_text("kept")
    with pytest.raises(BundleError, match="file cannot hold a bundle: Not a directory"):
        write_tiny_bundle(file)
    assert file.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "file", "tiny"]


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


def test_a_backbone_by_reference_is_that_of_the_pulled_model(borrower: Path, cache: Path) -> None:
    bundle, lender = ModelBundle.load(borrower), ModelBundle.load(cache)
    assert sorted(path.name for path in borrower.iterdir()) == ["bundle.yaml", "localizer.onnx"]
    assert bundle.backbone_path == cache / "backbone.onnx" == lender.backbone_path
    assert bundle.backbone_sha256 == lender.backbone_sha256
    assert (bundle.backbone_model, lender.backbone_model) == ("pulled", None)
    assert bundle.spec.model_id != lender.spec.model_id


def test_a_reference_to_what_was_not_pulled_says_how_to_pull_it(
    borrower: Path, cache: Path, tmp_path: Path
) -> None:
    shutil.rmtree(cache)
    with pytest.raises(BundleError, match=r"No such file.*: s2netd models pull pulled$"):
        ModelBundle.load(borrower)
    with pytest.raises(BundleError, match=r"is not there: s2netd models pull pulled$"):
        write_tiny_bundle(tmp_path / "another", backbone_of="pulled")


def test_a_backbone_by_reference_is_held_to_the_digest_too(borrower: Path, cache: Path) -> None:
    with (cache / "backbone.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"backbone.onnx: SHA-256 is .*models pull pulled$"):
        ModelBundle.load(borrower)


def test_backgrounds_read_back_as_they_were_written(watched: Path) -> None:
    wanted, seen = a_camera_mean(), ModelBundle.load(watched).spec.camera_mean
    assert seen == wanted  # the counts
    assert seen is not None
    assert np.array_equal(seen.default, wanted.default)
    assert list(seen.cameras) == ["red-door"]
    assert np.array_equal(seen.cameras["red-door"], wanted.cameras["red-door"])
    assert ModelBundle.load(watched) == ModelBundle.load(watched)


@pytest.mark.parametrize("names", [(), ("b", "a", "Tür 3/Ost")])
def test_any_number_of_cameras_may_have_a_background(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    cameras = {name: np.full(3, i, np.float32) for i, name in enumerate(names)}
    folder = write_tiny_bundle(tmp_path / "x", camera_mean=a_camera_mean(cameras=cameras))
    seen = ModelBundle.load(folder).spec.camera_mean
    assert seen is not None
    assert {name: row.tolist() for name, row in seen.cameras.items()} == {
        name: [i] * 3 for i, name in enumerate(names)
    }


def test_the_same_backgrounds_have_the_same_digest(tmp_path: Path) -> None:
    folders = [write_tiny_bundle(tmp_path / name, camera_mean=a_camera_mean()) for name in "ab"]
    assert len({ModelBundle.load(folder).digest for folder in folders}) == 1


def test_changed_backgrounds_are_refused(watched: Path) -> None:
    with (watched / CAMERA_MEANS).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"backgrounds.npz: SHA-256 is"):
        ModelBundle.load(watched)
    (watched / CAMERA_MEANS).unlink()
    with pytest.raises(BundleError, match=r"backgrounds.npz cannot be read"):
        ModelBundle.load(watched)


def with_backgrounds(folder: Path, blob: bytes) -> None:
    """As if the bundle had been exported with this file."""
    (folder / CAMERA_MEANS).write_bytes(blob)
    changed(folder, "background.sha256", hashlib.sha256(blob).hexdigest())


def npz(**arrays: object) -> bytes:
    blob = io.BytesIO()
    whole: dict[str, Any] = {
        "default": np.zeros(3, np.float32),
        "names": np.array(["a", "b"]),
        "vectors": np.zeros((2, 3), np.float32),
        **arrays,
    }
    np.savez_compressed(blob, **{key: value for key, value in whole.items() if value is not None})
    return blob.getvalue()


@pytest.mark.parametrize(
    ("blob", "complaint"),
    [
        (b"no zip", "not a zip file"),
        (npz(default=None), "default is not a file"),
        (npz(default=np.zeros(4, np.float32)), r"default is float32 \(4,\), wanted"),
        (npz(default=np.zeros(3)), "default is float64"),
        (npz(default=np.full(3, np.nan, np.float32)), "default is not finite"),
        (npz(vectors=np.zeros((3, 3), np.float32)), r"vectors is float32 \(3, 3\), wanted"),
        (npz(vectors=np.full((2, 3), np.inf, np.float32)), "vectors is not finite"),
        (npz(names=np.array(["a", "a"])), "names must be texts that differ"),
        (npz(names=np.array([1, 2])), "names must be texts"),
        (npz(names=np.array(["a", {}], object)), "allow_pickle=False"),
        (npz(stray=np.zeros(2**25)), "at most 67108864 are read"),
        (npz().replace(b"default.npy", b"default.np\0"), ""),
    ],
)
def test_backgrounds_are_trusted_in_nothing(watched: Path, blob: bytes, complaint: str) -> None:
    with_backgrounds(watched, blob)
    with pytest.raises(BundleError, match=rf"backgrounds.npz: .*{complaint}.*export .* again"):
        ModelBundle.load(watched)


@given(st.data())
def test_damaged_backgrounds_are_one_clear_error_or_none(data: st.DataObject) -> None:
    """Bits flipped, and the manifest made to say so: what an enemy would write."""
    blob = bytearray(data.draw(st.sampled_from([npz(), stored_npz()])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        (Path(folder) / CAMERA_MEANS).write_bytes(blob)
        with contextlib.suppress(BundleError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's, of names that come twice
            read_camera_means(Path(folder), CameraMeans("", 1, 1, 1), 3)


def stored_npz() -> bytes:
    """Without compression, so that the arrays' own headers are hit too."""
    blob = io.BytesIO()
    np.savez(
        blob,
        default=np.zeros(3, np.float32),
        names=np.array(["a"]),
        vectors=np.zeros((1, 3), np.float32),
    )
    return blob.getvalue()


def test_an_array_that_claims_to_be_huge_is_refused(watched: Path) -> None:
    header = b"'shape': (1, 3), }                 "
    claim = b"'shape': (999999999999999, 3), }   "
    blob = io.BytesIO()
    with ZipFile(io.BytesIO(stored_npz())) as old, ZipFile(blob, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(header, claim))
    assert claim in blob.getvalue()
    with_backgrounds(watched, blob.getvalue())
    with pytest.raises(BundleError, match=r"backgrounds\.npz: "):
        ModelBundle.load(watched)


def test_a_localizer_that_takes_no_background_has_no_use_for_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"localizer.onnx: tensor background is None"):
        write_bundle(
            tmp_path / "bad",
            tiny_card(),
            backbone=backbone().SerializeToString(),
            localizer=localizer().SerializeToString(),
            camera_mean=a_camera_mean(),
        )


@pytest.mark.openvino
def test_a_bundle_with_backgrounds_runs(watched: Path) -> None:
    backend = open_backend("openvino", ModelBundle.load(watched).localizer_path, precision="f32")
    window = FeatureWindow(
        0, 0, np.full((4, 3), 0.75, np.float32), np.ones(4, np.bool_), np.full(3, 0.5, np.float32)
    )
    (answer,) = BackendLocalizer(backend).localize([window])
    backend.close()
    assert answer.cas.tolist() == [[0.25, 0.25]] * 4


def test_a_bundle_that_comes_along_is_found_by_name_unless_one_was_pulled(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.bundle.model_bundle.shipped_dir", lambda: tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    for name in ("scenes", "pulled"):
        write_tiny_bundle(tmp_path / "shipped" / name, backbone_of="pulled")
    assert resolve_bundle("scenes") == tmp_path / "shipped" / "scenes"
    assert resolve_bundle("pulled") == cache
