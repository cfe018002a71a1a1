"""The state file: atomic, held by one process, and plain about what it cannot use."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daemon.errors import ConfigError, TransportError
from daemon.state.sqlite import SqliteStateSettings, SqliteStateStore

WRITER = """
import sys
from pathlib import Path
from daemon.state.sqlite import SqliteStateSettings, SqliteStateStore
store = SqliteStateStore(SqliteStateSettings(Path(sys.argv[1])))
for n in range(10**9):
    store.save("door", "chunks/0", n, bytes([n % 256]) * 200_000)
    print(n, flush=True)
"""


def a_store(path: Path) -> SqliteStateStore:
    return SqliteStateStore(SqliteStateSettings(path))


def test_state_survives_the_process(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state.db")
    store.save("door", "chunks/0", 7, b"blob")
    store.close()

    again = a_store(tmp_path / "state.db")

    assert b"blob" == again.load("door")
    assert 7 == again.low_offset("chunks/0")
    again.close()


@pytest.mark.slow
@pytest.mark.parametrize("saves", [1, 5, 30])
def test_a_kill_leaves_a_whole_state_no_older_than_the_last_that_was_reported(
    tmp_path: Path, saves: int
) -> None:
    path = tmp_path / "state.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline()) for _ in range(saves)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()

    store = a_store(path)

    blob, low = store.load("door"), store.low_offset("chunks/0")
    store.close()
    assert low is not None
    assert low >= reported
    assert bytes([low % 256]) * 200_000 == blob


def test_two_daemons_cannot_share_a_state(tmp_path: Path) -> None:
    first = a_store(tmp_path / "state.db")
    first.save("door", "chunks/0", 7, b"blob")
    settings = SqliteStateSettings(tmp_path / "state.db", lock_timeout_s=0.1)

    with pytest.raises(TransportError, match=r"state\.db.*locked.*stop the process that uses it"):
        SqliteStateStore(settings)
    first.close()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_another_tool_that_holds_the_state_for_a_moment_is_waited_for(
    tmp_path: Path, journal: str
) -> None:
    path = tmp_path / "state.db"
    tool = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    tool.execute(f"PRAGMA journal_mode = {journal}")
    tool.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, tool.close)
    release.start()

    store = SqliteStateStore(SqliteStateSettings(path, lock_timeout_s=60))

    store.save("door", "chunks/0", 7, b"blob")
    store.close()
    release.join()


def test_a_full_disk_at_the_start_is_no_fault_of_the_configuration(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(TransportError, match=r"state\.db.*is the disk full"):
            a_store(tmp_path / "state.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"these are not the bytes of a database" * 100)

    with pytest.raises(ConfigError, match=r"state\.db.*not a database.*move the file away"):
        a_store(path)


def test_a_state_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as foreign:
        foreign.execute("PRAGMA user_version = 99")
    foreign.close()

    with pytest.raises(ConfigError, match="version 99, wanted 1"):
        a_store(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file.state\.db: cannot open the state"):
        a_store(tmp_path / "file" / "state.db")


def test_a_store_that_is_closed_says_so(tmp_path: Path) -> None:
    store = a_store(tmp_path / "state.db")
    store.close()

    with pytest.raises(TransportError, match=r"state\.db: .*closed"):
        store.save("door", "chunks/0", 1, b"")
