"""What an installed s2netd owns, carries and needs."""

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.checkout import CHECKOUT

OURS = ("daemon", "engine", "training")
HEAVY = {"torch", "onnxscript", "tensorrt", "pycuda"}


def requirements(of: Requirement) -> list[Requirement]:
    """What an installed distribution needs here, with the extras in ``of``."""
    wanted = [Requirement(line) for line in metadata.requires(of.name) or ()]
    extras = ["", *of.extras]
    return [
        need
        for need in wanted
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)
    ]


def closure(roots: list[Requirement]) -> set[str]:
    """Names of all distributions that the roots need, themselves included."""
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        need = todo.pop()
        if str(need) in seen:
            continue
        seen.add(str(need))
        todo += requirements(need)
    return {canonicalize_name(Requirement(text).name) for text in seen}


def dev_group() -> list[Requirement]:
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return [Requirement(line) for line in pyproject["dependency-groups"]["dev"]]


def pinned() -> dict[str, Version]:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): Version(str(pin.specifier)[2:]) for pin in pins}


def direct(extra: str = "") -> list[str]:
    """The requirements named in pyproject.toml, of the base or of one extra only."""
    base = {str(need) for need in requirements(Requirement("s2netd"))}
    if not extra:
        return sorted(base)
    return sorted({str(n) for n in requirements(Requirement(f"s2netd[{extra}]"))} - base)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    source = tmp_path_factory.mktemp("source")
    for folder in OURS:
        shutil.copytree(
            CHECKOUT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip_wheel, "--no-build-isolation", "--wheel-dir", "dist", "."], cwd=source, check=True
    )
    (path,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("package", OURS)
def test_no_other_distribution_owns_a_package_of_ours(package: str) -> None:
    # `python-daemon` also installs a package named daemon, over ours.
    assert set(metadata.packages_distributions()[package]) == {"s2netd"}


@pytest.mark.slow
def test_the_wheel_carries_every_file_of_the_packages_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    files = {PurePosixPath(name) for name in wheel.namelist()}
    carried = {file for file in files if not file.parts[0].endswith(".dist-info")}
    own = {
        PurePosixPath(file.relative_to(CHECKOUT))
        for folder in OURS
        for file in (CHECKOUT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    # Configurations are shipped, too: `training/configs` is a link to them.
    configs = (CHECKOUT / "configs" / "training").glob("*.yaml")
    assert carried == own | {PurePosixPath("training/configs") / file.name for file in configs}


@pytest.mark.slow
def test_the_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.parametrize("command", ["s2netd", "s2net"])
def test_each_command_has_its_function(command: str) -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name=command)
    assert callable(entry.load())


def test_the_daemon_needs_no_training_framework() -> None:
    needed = closure([Requirement("s2netd[cpu]")])
    assert {"numpy", "openvino"} <= needed
    assert not needed & HEAVY


@pytest.mark.parametrize("requirement", [*direct(), *direct("cpu")])
def test_each_dependency_can_be_imported(requirement: str) -> None:
    name = canonicalize_name(Requirement(requirement).name)
    packages = [
        package
        for package, owners in metadata.packages_distributions().items()
        if name in map(canonicalize_name, owners) and not package.startswith("_")
    ]
    assert packages, f"{name} is installed without an import package"
    for package in packages:
        importlib.import_module(package)


def test_installed_versions_are_the_ones_in_constraints() -> None:
    roots = [Requirement("s2netd[cpu]"), *dev_group()]
    pins = pinned()
    differing = {
        name: (metadata.version(name), str(pins.get(name)))
        for name in closure(roots) - {"s2netd"}
        # A local build (+cpu) of a version is that version.
        if Version(Version(metadata.version(name)).public) != pins.get(name)
    }
    assert not differing, "installed, pinned; renew constraints.txt as its head tells"


def test_constraints_name_versions_and_no_address() -> None:
    text = (CHECKOUT / "constraints.txt").read_text()
    assert "://" not in text
    assert " @ " not in text
