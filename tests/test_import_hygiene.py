"""Nothing loads what it may never use: a command no heavy library, a test no other test."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests.support.checkout import CHECKOUT
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


def imported(source: str) -> Iterator[str]:
    """The modules that a file names, at its head or anywhere else in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_of_a_test(module: str) -> bool:
    """Does it lie among the tests, and neither in what they share nor in a harness?"""
    harnesses = ("faults", "misery", "clock", "overhead")
    shared = tuple(f"tests.{name}." for name in ("support", *harnesses))
    is_shared = module.startswith(shared) and ".test_" not in module
    return (module + ".").startswith(("tests.", ".")) and not is_shared


def test_no_file_of_the_tests_imports_a_test() -> None:
    files = sorted((CHECKOUT / "tests").rglob("*.py"))
    found = {
        f"{path.relative_to(CHECKOUT)}: {module}"
        for path in files
        for module in imported(path.read_text(encoding="utf-8"))
        if is_of_a_test(module)
    }

    assert len(files) > 100
    assert set() == found


@pytest.mark.parametrize(
    ("line", "is_seen"),
    [
        ("from tests.daemon.test_cli import cli", True),
        ("def late():\n    import tests.conftest", True),
        ("from tests import conftest", True),
        ("from . import test_cli", True),
        ("from tests.support import cli", False),
        ("from tests.support.cli import Cli", False),
        ("import testscenarios", False),
    ],
)
def test_an_import_of_a_test_is_seen(line: str, *, is_seen: bool) -> None:
    assert is_seen == any(map(is_of_a_test, imported(line)))


@pytest.mark.slow
def test_every_file_of_the_tests_is_read_where_torch_is_not_installed() -> None:
    """As a newcomer has it; what needs torch is skipped there, and must not fail before."""
    words = [sys.executable, "-m", "tests.support.without_torch", "--collect-only", "-q"]
    without = ["-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*words, *without, "tests"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout[-4000:]
