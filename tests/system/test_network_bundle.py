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

SCALE = "0.04"  # of the scenes: enough to go all the way, too little to learn much


def made(*arguments: object) -> "subprocess.CompletedProcess[str]":
    words = [str(CHECKOUT / "scripts/network-bundle"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_an_unknown_network_is_refused_in_one_line_that_names_those_there_are(tmp_path: Path):
    done = made("resnet", tmp_path / "work")

    assert 2 == done.returncode
    assert [
        "there is no network resnet for scenes: choose one of s2net sal sdanet tsc-net two-stream"
    ] == done.stderr.splitlines()
    assert not (tmp_path / "work").exists()


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
