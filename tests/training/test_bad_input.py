"""What is wrong with what a user gave is said in one line, which names the file and the fix."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.bundle.model_bundle import ModelBundle
from engine.video.encoding import encode_video
from tests.support.real_parts import torch_imports
from tests.support.tiny_bundle import write_tiny_bundle
from training.cli import main
from training.feature_files import manifest_of

with torch_imports():
    from tests.support.tiny_training import small_content

    SMALL = small_content(schedule__length=2)

pytestmark = [pytest.mark.torch, pytest.mark.openvino]

DIM = 3


class Command:
    """Runs a command that must fail; gives the one line that says why, the last one.

    Attributes:
        notes: What it said before.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.notes: list[str] = []

    def __call__(self, *arguments: object) -> str:
        self._monkeypatch.setattr(sys, "argv", ["s2net", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        lines = self._capsys.readouterr().err.splitlines()
        assert 1 == caught.value.code, lines
        assert [lines[-1]] == [line for line in lines if line.startswith("s2net: ")], lines
        assert not any("Traceback" in line for line in lines), lines
        self.notes = lines[:-1]
        return lines[-1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def write_video(path: Path, n_pictures: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [np.full((16, 16, 3), 99, np.uint8)] * n_pictures
    encode_video(pictures, path, fps=25, key_frame_every=25)
    return path


def write_clip(folder: Path, stem: str, rows: Any) -> Path:
    np.savez(folder / f"{stem}.npz", features=rows, indices=np.arange(len(rows)))
    return folder / f"{stem}.npz"


@pytest.fixture
def features(tmp_path: Path, bundle: Path) -> Path:
    """Two tagged and annotated clips that can be trained on."""
    folder = tmp_path / "features"
    folder.mkdir()
    manifest = manifest_of(ModelBundle.load(bundle))
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "tags.csv").write_text("video,tags\none,a\ntwo,b\n", encoding="utf-8")
    draws = np.random.default_rng(0)
    for stem in ("one", "two"):
        write_clip(folder, stem, draws.random((6, DIM)).astype(np.float32))
    annotate(folder, "a")
    return folder


def annotate(folder: Path, label: str) -> Path:
    one = {
        "subset": "testing",
        "duration": 0.9,
        "annotations": [{"segment": [0.1, 0.5], "label": label}],
    }
    path = folder / "annotations.json"
    content = {"version": 1, "classes": ["a", "b", "c"], "database": {"one": one}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def training(tmp_path: Path, features: Path) -> tuple[object, ...]:
    """The arguments of a training that works."""
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return ("train", "--features", features, "--config", config, "--out", tmp_path / "run")


@pytest.fixture
def run(training: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["s2net", *map(str, training)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    return tmp_path / "run"


class TestExtract:
    def test_a_video_of_no_length(self, tmp_path, bundle, said) -> None:
        empty = tmp_path / "empty.mp4"
        empty.write_bytes(b"")

        line = said("extract", empty, "--out", tmp_path / "f", "--bundle", bundle)

        assert "empty.mp4" in line
        assert not list((tmp_path / "f").glob("*.npz"))

    def test_two_videos_of_one_name(self, tmp_path, bundle, said) -> None:
        first = write_video(tmp_path / "a/same.mp4")
        second = write_video(tmp_path / "b/same.mp4")

        line = said("extract", first, second, "--out", tmp_path / "f", "--bundle", bundle)

        assert f"{first} and {second} would share one feature file: rename one" in line

    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            ("{}", "extractor_sha256 is None, this bundle has"),
            ("{", "is damaged"),
        ],
    )
    def test_features_of_another_extractor(
        self, tmp_path, bundle, said, manifest, message
    ) -> None:
        out = tmp_path / "f"
        out.mkdir()
        (out / "manifest.json").write_text(manifest, encoding="utf-8")
        video = write_video(tmp_path / "clip.mp4")

        line = said("extract", video, "--out", out, "--bundle", bundle)

        assert f"{out / 'manifest.json'}: {message}" in line
        assert "choose another --out" in line

    def test_a_bundle_that_is_not_there(self, tmp_path, said) -> None:
        video = write_video(tmp_path / "clip.mp4")

        assert "no-such" in said("extract", video, "--bundle", "no-such")

    def test_a_folder_without_videos(self, tmp_path, said) -> None:
        (tmp_path / "notes.txt").write_text("x", encoding="utf-8")

        assert f"{tmp_path}: holds no video" in said("extract", tmp_path)


class TestTrain:
    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ("", "tags.csv: column 'video' is missing"),
            ("video,tags\n", "tags.csv lists no video: add one row a video"),
            ("video,tags\none,\n", "tags.csv tags no video with anything"),
            ("video,tags\nother,a\n", "tags.csv lists other, but"),
            ("video,tag\none,a\n", "column 'tag' is unknown: did you mean 'tags'?"),
        ],
    )
    def test_tags(self, features, training, said, tags, message) -> None:
        (features / "tags.csv").write_text(tags, encoding="utf-8")

        assert message in said(*training)

    def test_no_tags(self, features, training, said) -> None:
        (features / "tags.csv").unlink()

        assert "tags.csv: say where the labels are with --tags" in said(*training)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (np.full((6, DIM), np.nan, np.float32), "holds NaN or infinity"),
            (np.zeros((6, DIM + 1), np.float32), f"shape (6, {DIM + 1}), wanted (T, {DIM})"),
            (np.zeros((0, DIM), np.float32), "has no snippets: the video is shorter than one"),
        ],
    )
    def test_features(self, features, training, said, rows, message) -> None:
        path = write_clip(features, "two", rows)

        line = said(*training)

        assert message in line
        assert str(path) in line
        assert [] == said.notes

    def test_features_cut_off(self, features, training, said) -> None:
        path = features / "two.npz"
        path.write_bytes(path.read_bytes()[:100])

        assert str(path) in said(*training)

    @pytest.mark.parametrize("text", [None, "{", '{"fps": 25}'])
    def test_a_manifest(self, features, training, said, text) -> None:
        path = features / "manifest.json"
        path.unlink()
        if text is not None:
            path.write_text(text, encoding="utf-8")

        line = said(*training)

        assert "manifest.json" in line
        assert str(features) in line

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (("--set", "network.stas=false"), "there is no key network.stas to change"),
            (("--set", "network"), "is no key=value"),
            (("--set", "optimiser.learning_rate=-1"), "learning_rate is -1.0, wanted > 0"),
            (("--set", "network.kind=s3net"), "network.kind is 's3net', wanted one of"),
            (("--set", "network.trunk.whitening_dims=9"), "whitening_dims is 9"),
            (("--device", "tpu"), "--device is 'tpu', wanted one of 'cpu', 'cuda', 'auto'"),
            (("--config", "none.yaml"), "--config none.yaml: there is no such file"),
        ],
    )
    def test_settings(self, training, said, changed, message) -> None:
        assert message in said(*training, *changed)

    def test_an_out_that_holds_another_run(self, run, training, said) -> None:
        line = said(*training, "--seed", 1)

        assert str(run / "checkpoint.safetensors") in line
        assert "choose another --out" in line


class TestEvaluateAndExport:
    def test_a_class_the_run_does_not_know(self, run, features, said) -> None:
        annotations = annotate(features, "c")

        line = said("evaluate", run, "--features", features)

        assert str(annotations) in line
        assert "'c'" in line

    def test_no_annotations(self, run, features, said) -> None:
        (features / "annotations.json").unlink()

        line = said("evaluate", run, "--features", features)

        assert "annotations.json: say where the labels are with --annotations" in line

    def test_an_unknown_subset(self, run, features, said) -> None:
        line = said("evaluate", run, "--features", features, "--subset", "testin")

        assert "no subset 'testin': did you mean 'testing'?" in line

    def test_a_model_that_is_none(self, tmp_path, features, said) -> None:
        assert str(tmp_path) in said("evaluate", tmp_path, "--features", features)

    def test_features_of_another_extractor(self, run, features, said) -> None:
        path = features / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["extractor_sha256"] = "0" * 64
        path.write_text(json.dumps(manifest), encoding="utf-8")

        line = said("evaluate", run, "--features", features)

        assert str(path) in line
        assert "extractor_sha256" in line

    def test_a_run_that_is_not_there(self, tmp_path, bundle, said) -> None:
        none = tmp_path / "none"

        line = said("export", none, "--out", tmp_path / "b", "--base", bundle)

        assert f"run {none}: there is no such file or folder" in line

    def test_a_damaged_checkpoint(self, run, tmp_path, bundle, said) -> None:
        path = run / "checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:50])

        line = said("export", run, "--out", tmp_path / "b", "--base", bundle)

        assert f"{path} is damaged" in line
        assert "train again" in line

    def test_another_backbone(self, run, tmp_path, bundle, said) -> None:
        path = run / "features.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["extractor_sha256"] = "0" * 64
        path.write_text(json.dumps(manifest), encoding="utf-8")

        line = said("export", run, "--out", tmp_path / "b", "--base", bundle)

        assert "extractor_sha256" in line
        assert not (tmp_path / "b").exists()
