"""Two daemons never use one folder of chunks or one journal; the second one names the first."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.claims import Claim, claim
from daemon.errors import ConfigError
from tests.support.processes import s2netd, start_s2netd, wait_until, write_config
from tests.support.tiny_bundle import write_tiny_bundle

HOLDER = """
import sys, time
from pathlib import Path
from daemon.claims import claim
held = claim(Path(sys.argv[1]), "it")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "folder" / ".lock"


@pytest.fixture
def other(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the place."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "held\n" == process.stdout.readline()
    with process:
        yield process
        process.kill()


def refused(lock: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        claim(lock, "chunks: this folder", patience_s=0)
    (line,) = str(caught.value).splitlines()
    return line


def test_who_has_the_place_is_named(lock: Path, other: subprocess.Popen[str]) -> None:
    assert refused(lock) == (
        f"chunks: this folder is used by another daemon (pid {other.pid}); stop that one, or give "
        "each a place of its own"
    )


def test_a_killed_holder_holds_nothing(lock: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()

    claim(lock, "it", patience_s=0).close()


def test_a_stopped_holder_holds_on(lock: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGSTOP)

    assert f"(pid {other.pid})" in refused(lock)


def test_one_that_is_about_to_end_is_waited_for(lock: Path, other: subprocess.Popen[str]) -> None:
    assert other.stdin is not None
    end = threading.Timer(0.3, other.stdin.close)
    end.start()

    claim(lock, "it", patience_s=60).close()
    end.join()


def test_a_place_is_free_again_after_close_and_twice_is_fine(lock: Path) -> None:
    first = claim(lock, "it")
    assert f"(pid {os.getpid()})" in refused(lock)
    first.close()
    first.close()

    second = claim(lock, "it", patience_s=0)
    first.close()
    assert f"(pid {os.getpid()})" in refused(lock)
    second.close()


def test_a_program_that_is_started_meanwhile_does_not_hold_the_place_on(lock: Path) -> None:
    held = claim(lock, "it")
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        held.close()
        claim(lock, "it", patience_s=0).close()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("text", ["", "nonsense", "x" * 10_000, "\x00\n", "-3 here", "1\n2"])
def test_a_lock_that_says_nothing_sensible_still_locks(lock: Path, text: str) -> None:
    held = claim(lock, "it")
    lock.write_text(text)

    assert "used by another daemon; stop" in refused(lock)
    held.close()


def test_a_holder_on_another_machine_is_named_with_it(lock: Path) -> None:
    held = claim(lock, "it")
    lock.write_text("17 elsewhere\n")

    assert "(pid 17 on 'elsewhere')" in refused(lock)
    held.close()


def test_a_place_that_cannot_be_locked_is_refused_where_it_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/x/\.lock: cannot lock it there: Not a directory"):
        claim(tmp_path / "file" / "x" / ".lock", "it")


def test_a_disk_that_knows_no_locks_is_told_of_and_used(
    lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    held: Claim = claim(lock, "it")

    assert f"{lock}: cannot be locked: No locks available" in caplog.text
    held.close()


def a_config(folder: Path, name: str, *, chunks: str, journal: str) -> Path:
    return write_config(
        folder / f"{name}.yaml",
        model={"bundle": str(folder / "tiny"), "backend": "scripted"},
        source={"kind": "directory", "path": str(folder / chunks)},
        sink={"kind": "jsonl", "path": str(folder / f"{name}.jsonl")},
        journal={"path": str(folder / journal)},
        http={"port": 0},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunks", "journal", "what"),
    [
        ("chunks", "other.sqlite", "chunks: this folder of chunks"),
        ("./more/../chunks", "other.sqlite", "chunks: this folder of chunks"),
        ("others", "journal.sqlite", "journal.sqlite: this journal"),
        ("others", "link.sqlite", "link.sqlite: this journal"),
    ],
)
def test_the_second_daemon_ends_with_78_and_one_line(
    tmp_path: Path, chunks: str, journal: str, what: str
) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    for folder in ("chunks", "more", "others"):
        (tmp_path / folder).mkdir()
    first = a_config(tmp_path, "first", chunks="chunks", journal="journal.sqlite")
    second = a_config(tmp_path, "second", chunks=chunks, journal=journal)
    (tmp_path / "link.sqlite").symlink_to("journal.sqlite")
    log = tmp_path / "first.log"
    running = start_s2netd("run", "--config", first, log=log)
    try:
        wait_until(lambda: "daemon.ready" in log.read_text(), log.read_text)
        done = s2netd("run", "--config", second)
    finally:
        running.terminate()
        running.wait()
    after = start_s2netd("run", "--config", second, log=tmp_path / "second.log")
    wait_until(lambda: "daemon.ready" in (tmp_path / "second.log").read_text())
    after.terminate()

    assert 78 == done.returncode, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"{what} is used by another daemon (pid {running.pid}); stop that one" in line
    assert (0, 0) == (running.returncode, after.wait())
