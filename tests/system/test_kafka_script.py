"""scripts/kafka: says what is missing and how to get it, and cleans up after itself."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
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
    "realpath",
    "rm",
    "sed",
    "sha256sum",
)


# Listens where its settings say until it is ended, as the broker does; other programs do nothing.
FAKE_JAVA = """#!{python}
import re, signal, socket, sys
if "kafka.Kafka" in sys.argv:
    port = re.search(r"^listeners=.*?:(\\d+)", open(sys.argv[-1]).read(), re.M)[1]
    with socket.create_server(("127.0.0.1", int(port))):
        signal.pause()
"""


def a_path_with(folder: Path, *tools: str) -> str:
    """A PATH on which nothing else is found."""
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    return str(folder)


def run(
    tmp_path: Path, *command: str, path: str | None = None, handed: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PATH": path or os.environ["PATH"],
        "S2NETD_KAFKA_HOME": str(tmp_path / "home"),
        "S2NETD_KAFKA_PORT": "0",
    }
    bash = shutil.which("bash") or "bash"
    return subprocess.run(
        [bash, SCRIPT, *command],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=handed,
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


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with a java that only listens, and jars that need not be fetched."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(FAKE_JAVA.format(python=sys.executable))
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{java.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pom = hashlib.sha256((SCRIPT.parent / "kafka.pom.xml").read_bytes()).hexdigest()
    (tmp_path / "cache" / "s2netd" / f"kafka-{pom[:12]}").mkdir(parents=True)


@pytest.mark.usefixtures("fake_java")
@pytest.mark.parametrize("number", [3, 63, 255])
def test_a_lock_around_the_start_is_free_again_while_the_broker_runs(
    tmp_path: Path, number: int
) -> None:
    lock = tmp_path / "lock"
    held = os.open(lock, os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    handed = fcntl.fcntl(held, fcntl.F_DUPFD, number)
    os.close(held)
    try:
        started = run(tmp_path, "start", handed=(handed,))
        os.close(handed)
        with lock.open() as mine:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody holds it
        running = run(tmp_path, "status")
    finally:
        run(tmp_path, "stop")

    assert 0 == started.returncode, started.stderr
    assert started.stdout == running.stdout != ""


@pytest.mark.usefixtures("fake_java")
def test_another_process_that_has_the_number_of_a_killed_broker_is_none(tmp_path: Path) -> None:
    first = run(tmp_path, "start")
    pid = tmp_path / "home" / "pid"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    with subprocess.Popen(["sleep", "600"]) as other:
        pid.write_text(f"{other.pid}\n")
        gone, _stopped = run(tmp_path, "status"), run(tmp_path, "stop")
        again, running = run(tmp_path, "start"), run(tmp_path, "status")
        run(tmp_path, "stop")
        is_unharmed = other.poll() is None
        other.kill()

    assert (1, 0) == (gone.returncode, again.returncode), again.stderr
    assert first.stdout == again.stdout == running.stdout != ""
    assert is_unharmed


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
