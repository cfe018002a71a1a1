"""The state file: atomic, held by one process, and plain about what it cannot use."""

import os
import signal
import sqlite3
import subprocess
import sys
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
    assert {"chunks/0": 7} == again.low_offsets()
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

    blob, low = store.load("door"), store.low_offsets()["chunks/0"]
    store.close()
    assert low >= reported
    assert bytes([low % 256]) * 200_000 == blob


def test_two_daemons_cannot_share_a_state(tmp_path: Path) -> None:
    first = a_store(tmp_path / "state.db")
    first.save("door", "chunks/0", 7, b"blob")

    with pytest.raises(ConfigError, match=r"state\.db.*locked.*stop the process that uses it"):
        a_store(tmp_path / "state.db")
    first.close()


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
