"""`scripts/network-bundle`, behind `make demo NETWORK=…`: any network, from nothing to live."""

import subprocess
from pathlib import Path

import pytest
import yaml

from engine.files.cache import bundles_dir
from tests.support.checkout import CHECKOUT
from tests.support.footage import colour_clip
from tests.support.processes import s2netd
from tests.support.real_parts import missing

KNOWN = "s2net sal sdanet tsc-net two-stream"
SCALE = "0.04"  # of the scenes: enough to go all the way, too little to learn much


def shown(network: str) -> "subprocess.CompletedProcess[str]":
    words = ["make", "--no-print-directory", "demo", f"NETWORK={network}"]
    return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def made(*arguments: object) -> "subprocess.CompletedProcess[str]":
    words = [str(CHECKOUT / "scripts/network-bundle"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


UNKNOWN = ("resnet", "ablation", "../sal", "s2net sal")


def refusal(name: str) -> str:
    return f"there is no network {name} for scenes: choose one of {KNOWN}"


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_network_is_refused_in_one_line_that_names_those_there_are(
    tmp_path: Path, name: str
):
    for done in (made(name, tmp_path / "work"), made("--known", name)):
        assert (2, "", [refusal(name)]) == (
            done.returncode,
            done.stdout,
            done.stderr.splitlines(),
        )
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", UNKNOWN)
def test_make_refuses_it_before_anything_is_set_up(name: str):
    done = shown(name)

    assert (2, "") == (done.returncode, done.stdout)
    assert refusal(name) in done.stderr.splitlines()


@pytest.mark.parametrize("name", KNOWN.split())
def test_each_network_is_known(name: str):
    assert (0, "", "") == ((done := made("--known", name)).returncode, done.stdout, done.stderr)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.weights
@pytest.mark.openvino
def test_a_network_is_made_from_nothing_once_and_the_daemon_runs_it(tmp_path: Path):
    if not (bundles_dir() / "kinetics400-160").is_dir():
        missing("no weights: s2netd models pull scenes")
    work = tmp_path / "work"
    done = made("two-stream", work, SCALE)
    assert 0 == done.returncode, done.stderr
    manifest = (work / "two-stream" / "bundle.yaml").read_text()
    assert "fall" in yaml.safe_load(manifest)["model"]["class_names"]

    again = made("two-stream", work, SCALE)
    assert (0, "") == (again.returncode, again.stdout)
    assert manifest == (work / "two-stream" / "bundle.yaml").read_text()

    clip = colour_clip(tmp_path / "clip.mp4", [(6.0, 90, 90)])
    shown = s2netd("demo", clip, "--bundle", work / "two-stream", "--out", tmp_path / "demo")
    assert 0 == shown.returncode, shown.stderr
