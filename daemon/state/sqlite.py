"""State in one SQLite file: atomic by transaction, durable by write-ahead log and fsync."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import ConfigError, TransportError

VERSION = 1

_AGAIN_S = 0.05
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# Faults that lie neither in the file nor in the configuration: a later start may well succeed.
_PASSING = _LOCKED | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stream_state (
    stream_id TEXT PRIMARY KEY,
    partition TEXT NOT NULL,
    low_offset INTEGER,
    blob BLOB NOT NULL
) STRICT, WITHOUT ROWID
"""
_SAVE = """
INSERT INTO stream_state (stream_id, partition, low_offset, blob) VALUES (?, ?, ?, ?)
ON CONFLICT (stream_id) DO UPDATE SET
    partition = excluded.partition, low_offset = excluded.low_offset, blob = excluded.blob
"""
_LOW_OFFSET = "SELECT min(low_offset) FROM stream_state WHERE partition = ?"


@dataclass(frozen=True, slots=True)
class SqliteStateSettings:
    """Where the database is.

    Attributes:
        path: Its file; the folder is made if it is missing.
        lock_timeout_s: Seconds to wait at the start for another process that holds the file.
    """

    path: Path
    lock_timeout_s: float = 5.0


class SqliteStateStore:
    """Keeps state in a database that it locks, as two daemons would undo each other's work.

    Args:
        settings: Where the database is; it is made if it is missing.

    Raises:
        ConfigError: The file cannot be opened, or is no database of this version.
        TransportError: Another process holds it, or the disk fails or is full.
    """

    def __init__(self, settings: SqliteStateSettings) -> None:
        self._path = settings.path
        self._connection = self._open(settings.lock_timeout_s)

    def load(self, camera: str) -> bytes | None:
        """See ``StateStore``."""
        query = "SELECT blob FROM stream_state WHERE stream_id = ?"
        with self._explained():
            row = self._connection.execute(query, (camera,)).fetchone()
        return row[0] if row else None

    def save(self, camera: str, partition: str, low_offset: int | None, blob: bytes) -> None:
        """See ``StateStore``."""
        with self._explained():
            self._connection.execute(_SAVE, (camera, partition, low_offset, blob))

    def low_offset(self, partition: str) -> int | None:
        """See ``StateStore``."""
        with self._explained():
            (lowest,) = self._connection.execute(_LOW_OFFSET, (partition,)).fetchone()
        return None if lowest is None else int(lowest)

    def close(self) -> None:
        """See ``StateStore``."""
        self._connection.close()

    def _open(self, lock_timeout_s: float) -> sqlite3.Connection:
        """Open the database, and wait if another process holds it.

        SQLite's own time-out would not do: SQLite does not wait when it changes the journal mode.
        """
        give_up_s = time.monotonic() + lock_timeout_s
        while True:
            connection = self._connect()
            try:
                self._prepare(connection)
            except sqlite3.Error as error:
                connection.close()
                if _code(error) not in _LOCKED or time.monotonic() >= give_up_s:
                    raise self._unusable(error) from error
            except ConfigError:
                connection.close()
                raise
            else:
                return connection
            time.sleep(_AGAIN_S)

    def _connect(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return sqlite3.connect(self._path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{self._path}: cannot open the state: {error}") from error

    def _unusable(self, error: sqlite3.Error) -> ConfigError | TransportError:
        problem = f"{self._path}: cannot be used as the state: {error}"
        if _code(error) in _LOCKED:
            return TransportError(f"{problem}; stop the process that uses it")
        if _code(error) in _PASSING:
            return TransportError(f"{problem}; is the disk full or failing?")
        return ConfigError(f"{problem}; move the file away (open events are then forgotten)")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: a saved state survives a power cut, so no commit ever points past it.
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise ConfigError(
                f"{self._path}: state of version {version}, wanted {VERSION}; move the file away "
                "(open events are then forgotten)"
            )
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise TransportError(f"{self._path}: {error}") from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary error code; 0 for an error that the Python module itself raises."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
