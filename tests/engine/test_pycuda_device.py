"""The real pycuda, and our own calls of the driver, over a driver written in C for tests.

What a GPU does is not tested here; that every call exists, takes what it is given, and leaves
nothing behind, is. The driver is loaded into a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import which

import pytest

from tests.support.real_parts import missing, missing_gpu_part

SUPPORT = Path(__file__).resolve().parents[1] / "support"
Run = Callable[..., subprocess.CompletedProcess[str]]

# Symbols of the driver that pycuda links to and nothing here calls.
_REFUSING = "int {}(void) {{ return 801; }}\n"


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if which("cc") is None or which("nm") is None:
        missing("no C compiler (cc and nm): apt install build-essential")
    folder = tmp_path_factory.mktemp("libcuda")
    library, source = folder / "libcuda.so.1", SUPPORT / "fake_libcuda" / "libcuda.c"
    build(library, source)
    rest = sorted(needed_by_pycuda() - symbols("--defined-only", library))
    (folder / "rest.c").write_text("".join(_REFUSING.format(name) for name in rest))
    build(library, source, folder / "rest.c")
    return library


def build(library: Path, *sources: Path) -> None:
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, "-o", library, *sources], check=True)


def symbols(kind: str, library: Path) -> set[str]:
    listing = subprocess.run(
        ["nm", "-D", kind, library], check=True, capture_output=True, text=True
    ).stdout
    return {line.split()[-1] for line in listing.splitlines() if line.split()[-1][:2] == "cu"}


def pycuda_folder() -> Path | None:
    spec = importlib.util.find_spec("pycuda")
    return Path(spec.origin).parent if spec and spec.origin else None


def needed_by_pycuda() -> set[str]:
    folder = pycuda_folder()
    names = [] if folder is None else list(folder.glob("_driver*.so"))
    return {symbol for name in names for symbol in symbols("--undefined-only", name)}


@pytest.fixture
def run(libcuda: Path) -> Run:
    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        found = {"LD_PRELOAD": str(libcuda), "LD_LIBRARY_PATH": str(libcuda.parent)}
        return subprocess.run(
            [sys.executable, SUPPORT / "fake_libcuda" / script],
            env={**os.environ, "PYTHONPATH": python_path(), **found, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def python_path() -> str:
    return os.pathsep.join([str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def with_pycuda() -> None:
    if pycuda_folder() is None:
        missing_gpu_part("pycuda is not installed")


def test_graphs_are_recorded_launched_and_given_back(run: Run) -> None:
    done = run("record.py")
    assert (0, "") == (done.returncode, done.stderr)
    assert "recorded, launched, freed" in done.stdout


@pytest.mark.parametrize("name", ["cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_recording_that_fails_leaves_nothing_behind(run: Run, name: str) -> None:
    done = run("record.py", FAKE_CUDA_FAIL=name, FAKE_CUDA_CODE="2")
    assert 0 == done.returncode, done.stderr
    assert f"{name} failed: out of memory (2), memory" in done.stdout


@pytest.mark.usefixtures("with_pycuda")
def test_a_backend_runs_over_pycuda_and_gives_everything_back(run: Run) -> None:
    done = run("backend.py")
    assert (0, "") == (done.returncode, done.stderr)
    assert "Fake 0 (compute 8.9, driver 13.2)" in done.stdout
    assert "right, and nothing is left" in done.stdout


@pytest.mark.usefixtures("with_pycuda")
@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("cuInit", "100", "finds no GPU it can use (cuInit failed: no CUDA-capable device"),
        ("cuDevicePrimaryCtxRetain", "2", "GPU 0 cannot be opened"),
        ("cuCtxPushCurrent_v2", "700", "illegal memory access"),
        ("cuMemAlloc_v2", "2", "of 1024 MiB are free: lower max_batch (now 3)"),
        ("cuMemHostAlloc", "2", "page-locked memory"),
        ("cuStreamCreate", "2", "a stream: "),
        ("cuEventCreate", "2", "an event: "),
        ("cuMemcpyHtoDAsync_v2", "700", "this process cannot use the GPU any more"),
        ("cuMemcpyDtoHAsync_v2", "1", "copying from the GPU"),
        ("cuEventRecord", "1", "recording an event"),
        ("cuStreamWaitEvent", "1", "waiting for an event"),
        ("cuEventSynchronize", "719", "the GPU's work"),
        ("cuGraphLaunch", "719", "must be restarted"),
    ],
)
def test_each_failing_call_becomes_one_told_error(
    run: Run, name: str, code: str, told: str
) -> None:
    done = run("backend.py", FAKE_CUDA_FAIL=name, FAKE_CUDA_CODE=code)
    assert 1 == done.returncode
    assert "DeviceError: " in done.stdout
    assert told in done.stdout
