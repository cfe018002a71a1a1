"""Starting a command does not load what that command may never use."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.support.tiny_bundle import backbone

HEAVY = ("torch", "tensorrt", "openvino")


@pytest.mark.parametrize("module", ["daemon.cli", "engine.straight_line", "engine.backends"])
def test_importing_loads_no_inference_or_training_library(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == ([], "")


@pytest.mark.openvino
def test_opening_the_cpu_backend_loads_no_telemetry_and_leaves_home_alone(tmp_path: Path) -> None:
    # `import openvino` by itself writes a client id into HOME and reports the import.
    onnx.save(backbone(), tmp_path / "backbone.onnx")
    home = tmp_path / "home"
    home.mkdir()
    script = f"""
import sys
from pathlib import Path
from engine.backends import open_backend
open_backend("openvino", Path({str(tmp_path / "backbone.onnx")!r}), precision="f32", threads=1)
print("openvino" in sys.modules, sys.modules.get("openvino_telemetry"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True None\n", "")
    assert list(home.iterdir()) == []
