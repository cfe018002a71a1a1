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
from types import SimpleNamespace
from typing import Any

import pytest

from engine.backends.tensorrt import cuda_pycuda
from engine.backends.tensorrt.cuda import CudaError
from engine.backends.tensorrt.cuda_pycuda import PyCuda
from engine.backends.tensorrt.gpu_identity import GpuIdentity, driver_version
from tests.support.checkout import CHECKOUT
from tests.support.real_parts import missing, missing_gpu_part

SUPPORT = CHECKOUT / "tests" / "support"
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
    return os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])


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
    assert "Fake 0 (compute 8.9, driver 13.2" in done.stdout
    assert "right, and nothing is left" in done.stdout


@pytest.mark.usefixtures("with_pycuda")
@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("cuInit", "100", "finds no GPU it can use (cuInit failed: no CUDA-capable device"),
        ("cuDevicePrimaryCtxRetain", "2", "GPU 0 cannot be opened"),
        ("cuDevicePrimaryCtxRetain", "2", "; end other programs that use this GPU"),
        ("cuDevicePrimaryCtxRetain", "1", "nvidia-smi may say more; a restart"),
        ("cuDevicePrimaryCtxSetFlags_v2", "1", "cuDevicePrimaryCtxSetFlags_v2 failed: an error"),
        ("cuCtxPushCurrent_v2", "700", "illegal memory access"),
        ("cuMemAlloc_v2", "2", "of 1024 MiB are free: lower max_batch (now 3)"),
        ("cuMemHostAlloc", "2", "page-locked memory"),
        ("cuStreamCreate", "2", "a stream: "),
        ("cuEventCreate", "2", "an event: "),
        ("cuMemcpyHtoDAsync_v2", "700", "this process cannot use the GPU any more"),
        ("cuMemcpyDtoHAsync_v2", "1", "copying from the GPU"),
        ("cuMemcpyDtoHAsync_v2", "1", "the kernel's log (dmesg, lines with NVRM) and nvidia-smi"),
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


# What needs no pycuda: which driver it is, and what its errors become.

CLOSED = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu Jan 16 17:40:52 UTC 2025
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs@U22-4)
GCC version:  gcc version 13.3.0
"""


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        pytest.param(CLOSED, "13.0, release 570.86.10", id="closed"),
        pytest.param(OPEN, "13.0, release 580.65.06", id="open"),
        pytest.param(OPEN.replace("x86_64", "aarch64"), "13.0, release 580.65.06", id="aarch64"),
        pytest.param("NVRM version: Kernel Module 590.1", "13.0, release 590.1", id="bare"),
        pytest.param(CLOSED.splitlines()[1], "13.0", id="compiler-only"),
        pytest.param("NVRM version: NVIDIA UNIX x86_64 Kernel Module", "13.0", id="no-number"),
        pytest.param("", "13.0", id="empty"),
        pytest.param("\udcff\udcfe", "13.0", id="no-text"),
        pytest.param(None, "13.0", id="absent"),
    ],
)
def test_a_driver_is_known_by_its_release_where_that_is_told(
    tmp_path: Path, told: str | None, wanted: str
) -> None:
    path = tmp_path / "version"
    if told is not None:
        path.write_text(told, encoding="utf-8", errors="surrogateescape")
    assert wanted == driver_version(13000, path)


def test_a_release_that_may_not_be_read_is_none(tmp_path: Path) -> None:
    assert "12.8" == driver_version(12080, tmp_path)  # a folder


class PlayedError(Exception):
    """Plays ``pycuda.driver.Error``, the base of all its errors."""


class PlayedMemoryError(PlayedError):
    pass


class PlayedLaunchError(PlayedError):
    pass


class PlayedDriver:
    """pycuda.driver, as far as nothing is given to the GPU."""

    Error, MemoryError, LaunchError = PlayedError, PlayedMemoryError, PlayedLaunchError

    def __init__(self, *, pop_fails: bool = False) -> None:
        self.depth = 0
        self._pop_fails = pop_fails
        self.Context = SimpleNamespace(pop=self._pop)
        self.free_memory: Exception | None = None

    def get_driver_version(self) -> int:
        return 13010

    def mem_get_info(self) -> tuple[int, int]:
        raise self.free_memory or AssertionError

    def open(self) -> PyCuda:
        device = SimpleNamespace(compute_capability=lambda: (8, 9), name=lambda: "NVIDIA L4")
        return PyCuda(self, device, SimpleNamespace(push=self._push))

    def _push(self) -> None:
        self.depth += 1

    def _pop(self) -> None:
        if self._pop_fails:
            raise PlayedError("cuCtxPopCurrent failed: invalid device context")
        self.depth -= 1


def test_the_identity_holds_the_drivers_release(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def told(cuda: int) -> str:
        seen.append(cuda)
        return "13.1, release 580.65.06"

    monkeypatch.setattr(cuda_pycuda, "driver_version", told)
    wanted = GpuIdentity("NVIDIA L4", "8.9", "13.1, release 580.65.06")
    assert (wanted, [13010]) == (PlayedDriver().open().identity, seen)


@pytest.mark.parametrize("pop_fails", [False, True])
def test_what_fails_first_is_what_is_raised(pop_fails: bool) -> None:  # noqa: FBT001
    driver = PlayedDriver(pop_fails=pop_fails)
    first = CudaError("the kernel went wrong", "lost")
    with pytest.raises(CudaError) as told, driver.open().current():
        raise first
    assert first is told.value
    assert int(pop_fails) == driver.depth


def test_a_gpu_that_cannot_be_let_go_is_told() -> None:
    with (
        pytest.raises(CudaError, match=r"the GPU: cuCtxPopCurrent failed: .*; the kernel's log"),
        PlayedDriver(pop_fails=True).open().current(),
    ):
        pass


ADVICE = "; the kernel's log (dmesg, lines with NVRM) and nvidia-smi may say more; a restart of"


@pytest.mark.parametrize(
    ("raised", "fault", "is_advised"),
    [
        (PlayedMemoryError("cuMemGetInfo failed: out of memory"), "memory", False),
        (PlayedLaunchError("cuMemGetInfo failed: launch"), "lost", False),
        (PlayedError("cuMemGetInfo failed: an illegal address"), "lost", False),
        (PlayedError("cuMemGetInfo failed: invalid argument"), "other", True),
    ],
)
def test_an_error_that_says_nothing_else_says_where_to_look(
    raised: Exception,
    fault: str,
    is_advised: bool,  # noqa: FBT001
) -> None:
    driver = PlayedDriver()
    driver.free_memory = raised
    with pytest.raises(CudaError) as told:
        driver.open().memory()
    assert (fault, is_advised) == (told.value.fault, ADVICE in str(told.value))
    assert str(told.value).startswith(f"asking for free memory: {raised}")


class PlayedDevices(PlayedDriver):
    """One GPU, which cannot be taken."""

    def __init__(self, refusal: Exception) -> None:
        super().__init__()
        self.Device: Any = lambda _gpu: SimpleNamespace(retain_primary_context=self._refuse)
        self.Device.count = lambda: 1
        self._refusal = refusal

    def init(self) -> None:
        pass

    def _refuse(self) -> None:
        raise self._refusal


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        (PlayedMemoryError("out of memory"), "end other programs that use this GPU"),
        (PlayedError("uncorrectable ECC error"), "look for Xid in the kernel's log"),
        (PlayedError("exclusive"), "nvidia-smi may say more"),
    ],
)
def test_a_gpu_that_cannot_be_opened_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception, advice: str
) -> None:
    slept: list[int] = []
    monkeypatch.setattr(cuda_pycuda, "_imported", lambda: PlayedDevices(refusal))
    monkeypatch.setattr(cuda_pycuda.cuda_driver, "let_waits_sleep", slept.append)
    with pytest.raises(CudaError, match=f"GPU 0 cannot be opened: {refusal}; .*{advice}"):
        cuda_pycuda.open_pycuda(0)
    assert [0] == slept
