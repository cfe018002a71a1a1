"""scripts/kafka: says what is missing and how to get it, and cleans up after itself."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.kafka import SCRIPT
from tests.support.real_parts import missing

TOOLS = (
    "bash",
    "dirname",
    "cat",
    "cut",
    "kill",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sha256sum",
)


def a_path_with(folder: Path, *tools: str) -> str:
    """A PATH on which nothing else is found."""
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    return str(folder)


def run(
    tmp_path: Path, *command: str, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PATH": path or os.environ["PATH"],
        "S2NETD_KAFKA_HOME": str(tmp_path / "home"),
        "S2NETD_KAFKA_PORT": "0",
    }
    bash = shutil.which("bash") or "bash"
    return subprocess.run(
        [bash, SCRIPT, *command], env=env, capture_output=True, text=True, check=False
    )


def test_without_java_it_names_the_package(tmp_path: Path) -> None:
    path = a_path_with(tmp_path / "bin", *TOOLS)

    done = run(tmp_path, "start", path=path)

    assert 1 == done.returncode
    assert "java is missing; on Debian: apt-get install default-jre-headless" in done.stderr


def test_without_maven_and_without_jars_it_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_path_with(tmp_path / "bin", *TOOLS)
    (tmp_path / "bin" / "java").symlink_to("/bin/true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    done = run(tmp_path, "start", path=path)

    assert 1 == done.returncode
    assert "mvn is missing; on Debian: apt-get install maven" in done.stderr


def test_status_of_nothing_fails_and_stop_of_nothing_is_fine(tmp_path: Path) -> None:
    status, stop = run(tmp_path, "status"), run(tmp_path, "stop")

    assert (1, 0) == (status.returncode, stop.returncode)
    assert "not running" in status.stderr


@pytest.mark.parametrize("command", [[], ["begin"], ["topic", "name-only"]])
def test_a_wrong_command_says_what_is_right(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)

    assert 1 == done.returncode
    assert "usage: scripts/kafka" in done.stderr


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_comes_goes_and_comes_again_at_its_address(tmp_path: Path) -> None:
    if shutil.which("java") is None or shutil.which("mvn") is None:
        missing("scripts/kafka needs Java and Maven (default-jre-headless, maven)")
    try:
        first = run(tmp_path, "start")
        twice = run(tmp_path, "start")
        topic = [run(tmp_path, "topic", "chunks", "3").returncode for _ in range(2)]
        stopped = run(tmp_path, "stop")
        gone = run(tmp_path, "status")
        again = run(tmp_path, "start")
    finally:
        run(tmp_path, "stop")

    assert first.stdout.startswith("127.0.0.1:")
    assert first.stdout == twice.stdout == again.stdout
    assert [0, 0] == topic
    assert (0, 1) == (stopped.returncode, gone.returncode)
