"""A journal in one SQLite file, for a daemon that shares its partitions with no other host.

A step is one transaction: atomic, and durable by write-ahead log and fsync. Its events wait in the
same database until the projection, a file of lines or a topic, has them for good.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import numpy as np

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.errors import (
    PASSING_ERRNOS,
    ConfigError,
    DiskError,
    StaleOwnerError,
    TransportError,
)
from daemon.journal.base import (
    CameraPast,
    CameraState,
    CameraStatus,
    FeatureRows,
    Past,
    Presence,
    Step,
)
from daemon.journal.projections.base import Projection
from daemon.journal.statuses import status_line
from daemon.outages import Kind, Outages
from daemon.wire.records import event_line, parse_event
from engine.types import ActionEvent

VERSION = 2

_READABLE = (0, 1, VERSION)  # 0: a new file
_AGAIN_S = 0.05
_SOON_S = 0.5  # a step that takes longer waits for the disk
_DISK_AGAIN_S = 1.0
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# Faults that lie neither in the file nor in the configuration: a later try may well succeed.
_PASSING = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
# So are these, where it has worked before: a disk that fails may be made read-only.
_PASSING_LATER = _PASSING | {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS partitions (
    partition TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    log_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cameras (
    partition TEXT NOT NULL,
    camera TEXT NOT NULL,
    low_offset INTEGER,
    run TEXT NOT NULL,
    first_feature INTEGER,
    blob BLOB NOT NULL,
    PRIMARY KEY (partition, camera)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS features (
    id INTEGER PRIMARY KEY,
    partition TEXT NOT NULL,
    camera TEXT NOT NULL,
    run TEXT NOT NULL,
    segment INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    n_rows INTEGER NOT NULL,
    feature_id TEXT NOT NULL,
    anchor_us INTEGER,
    vectors BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS features_of ON features (partition, camera, run, first_index);
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY,
    mark INTEGER NOT NULL,
    event BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS statuses (
    camera TEXT PRIMARY KEY,
    silent_since_us INTEGER,
    status TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS projection (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    mark INTEGER NOT NULL
) STRICT;
"""
# Version 1 kept one blob a camera, with the features in it, and no positions.
_FROM_1 = """
INSERT INTO cameras SELECT partition, stream_id, low_offset, '', NULL, blob FROM stream_state;
DROP TABLE stream_state;
"""
_PUT_PARTITION = """
INSERT INTO partitions VALUES (?, ?, ?, ?) ON CONFLICT (partition) DO UPDATE SET
    number = excluded.number, next_offset = excluded.next_offset, log_id = excluded.log_id
"""
_PUT_CAMERA = """
INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (partition, camera) DO UPDATE SET
    low_offset = excluded.low_offset, run = excluded.run,
    first_feature = excluded.first_feature, blob = excluded.blob
"""
_PUT_FEATURES = """
INSERT INTO features
    (partition, camera, run, segment, first_index, n_rows, feature_id, anchor_us, vectors)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_DROP_FEATURES = """
DELETE FROM features WHERE partition = ? AND camera = ?
    AND (run != ? OR ? IS NULL OR first_index + n_rows <= ?)
"""
_FEATURES = """
SELECT run, segment, first_index, feature_id, anchor_us, n_rows, vectors FROM features
    WHERE partition = ? AND camera = ? ORDER BY id
"""
_PUT_STATUS = """
INSERT INTO statuses VALUES (?, ?, ?) ON CONFLICT (camera) DO UPDATE SET
    silent_since_us = excluded.silent_since_us, status = excluded.status
"""
_PUT_MARK = (
    "INSERT INTO projection VALUES (0, ?) ON CONFLICT (id) DO UPDATE SET mark = excluded.mark"
)

T = TypeVar("T")
Ps = TypeVarTuple("Ps")


def check_version(path: Path, version: int) -> None:
    """Is a file's ``user_version`` one that can be read here?

    Raises:
        ConfigError: No.
    """
    if version not in _READABLE:
        raise ConfigError(
            f"{path}: a journal of version {version}, wanted {VERSION}; move the file away (open "
            "events are then forgotten)"
        )


@dataclass(frozen=True, slots=True)
class LocalJournalSettings:
    """Where the database is.

    Attributes:
        path: Its file; the folder is made if it is missing.
        lock_timeout_s: Seconds to wait at the start for another process that holds the file.
        site: Written into every camera's status.
    """

    path: Path
    lock_timeout_s: float = 5.0
    site: str = "default"


class LocalJournal:
    """Keeps steps in a database that it locks, as two daemons would undo each other's work.

    Args:
        settings: Where the database is; it is made if it is missing.
        projection: Shows the events to other programs.
        outages: Told when the disk is full or fails, which is waited for.
        calls: Told of each use of the database, so that one that hangs is noticed.
    """

    def __init__(
        self,
        settings: LocalJournalSettings,
        projection: Projection,
        outages: Outages | None = None,
        calls: RunningCalls | None = None,
    ) -> None:
        outages = outages or Outages()
        self._disk = outages.watch(Kind.DISK, str(settings.path))
        self._calls = calls or RunningCalls(SystemClock())
        self._closing = asyncio.Event()
        self._path = settings.path
        self._site = settings.site
        self._lock_timeout_s = settings.lock_timeout_s
        self._projection = projection
        # One thread: SQLite's transactions belong to a connection, and steps come one by one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._connection: sqlite3.Connection | None = None
        self._showing = asyncio.Lock()
        self._is_settled = False  # the projection had everything once, so its mark counts
        self._end_mark = 0  # where the projection will be when it has everything
        self._owned: set[str] = set()
        self._failure: TransportError | None = None

    async def start(self) -> None:
        """See ``Journal``; a disk that is full or fails is waited for.

        Raises:
            ConfigError: The file cannot be opened, or is no database of this version.
            TransportError: Another process holds it.
        """
        self._connection = await self._until_done(
            self._run, lambda: self._open(self._lock_timeout_s)
        )
        mark, waiting = await self._until_done(self._run, self._waiting)
        await self._until_done(self._projection.start, mark, waiting)
        await self._until_done(self._run, self._settle)
        self._is_settled = True
        self._end_mark = self._projection.mark

    async def take(self, partition: str) -> Past:
        """See ``Journal``; the database's lock keeps any other owner out."""
        async with self._showing:  # a step may be on its way, though nobody waits for it any more
            past = await self._until_done(self._run, lambda: self._past(partition))
        self._owned.add(partition)
        return past

    async def commit(self, partition: str, step: Step) -> None:
        """See ``Journal``."""
        if partition not in self._owned:
            raise StaleOwnerError(f"partition {partition} was given back")
        # What the database has, the projection must get, whoever may lose patience meanwhile.
        await asyncio.shield(self._commit(partition, step))

    async def _commit(self, partition: str, step: Step) -> None:
        async with self._showing:  # so that the projection gets steps in the order of their marks
            if self._failure is not None:
                raise self._failure
            if step.revisions:
                with self._hang_told(self._projection.file):
                    await self._follow_projection()
            with self._hang_told(self._path):
                await self._until_done(self._run, lambda: self._keep(partition, step))
            try:
                with self._hang_told(self._projection.file):
                    await self._until_done(self._projection.show, step.revisions)
            except TransportError as error:
                self._failure = error  # the next start shows what is missing, and first
                raise

    async def _follow_projection(self) -> None:
        """Show what follows in a new place if the one before, with all until now, was moved."""
        if not await self._until_done(self._projection.let_go_if_moved):
            return
        # First the database: a crash in between must not show again what was moved away.
        await self._until_done(self._run, self._settle)
        await self._until_done(self._projection.start, 0, ())
        self._end_mark = self._projection.mark

    async def give_back(self, partition: str) -> None:
        """See ``Journal``."""
        self._owned.discard(partition)

    async def close(self) -> None:
        """See ``Journal``; what is waited for meanwhile fails."""
        self._closing.set()
        try:
            await self._projection.close()
        finally:
            if self._connection is not None:
                await self._run(self._close)
            self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        watched = self._calls.watched("journal", work)
        return await asyncio.get_running_loop().run_in_executor(self._thread, watched)

    @contextmanager
    def _hang_told(self, path: Path | None) -> Iterator[None]:
        """A disk that does not answer is an outage, until what is done here is done.

        Args:
            path: What is written; None: it is not on a disk.
        """
        if path is None:
            yield
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_SOON_S, self._disk.failed, f"{path} does not answer")
        try:
            yield
        finally:
            timer.cancel()

    async def _until_done(self, do: Callable[[*Ps], Awaitable[T]], *args: *Ps) -> T:
        """Do it again until the disk takes it, or the journal is closed.

        Raises:
            DiskError: The disk does not take it, and the journal is being closed.
        """
        while True:
            try:
                done = await do(*args)
            except DiskError as error:
                self._disk.failed(error)
                if self._closing.is_set():
                    raise
            else:
                self._disk.worked()
                return done
            with suppress(TimeoutError):
                async with asyncio.timeout(_DISK_AGAIN_S):
                    await self._closing.wait()

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise TransportError(f"{self._path}: the journal is not open")
        return self._connection

    def _past(self, partition: str) -> Past:
        with self._explained() as connection:
            row = connection.execute(
                "SELECT number, next_offset, log_id FROM partitions WHERE partition = ?",
                (partition,),
            ).fetchone()
            number, next_offset, log_id = row or (0, None, "")
            rows = connection.execute(
                "SELECT camera, blob, low_offset, run, first_feature, silent_since_us "
                "FROM cameras LEFT JOIN statuses USING (camera) WHERE partition = ?",
                (partition,),
            ).fetchall()
            cameras = {
                camera: CameraPast(CameraState(*state), self._features(partition, camera))
                for camera, *state in rows
            }
        return Past(number, next_offset, log_id, cameras=cameras)

    def _features(self, partition: str, camera: str) -> tuple[FeatureRows, ...]:
        rows = self._open_connection.execute(_FEATURES, (partition, camera)).fetchall()
        return tuple(
            FeatureRows(
                camera=camera,
                run=run,
                segment=segment,
                first_index=first_index,
                vectors=np.frombuffer(vectors, np.float16).reshape(n_rows, -1),
                feature_id=feature_id,
                anchor_us=anchor_us,
            )
            for run, segment, first_index, feature_id, anchor_us, n_rows, vectors in rows
        )

    def _keep(self, partition: str, step: Step) -> None:
        with self._transaction() as connection:
            connection.execute(
                _PUT_PARTITION, (partition, step.number, step.next_offset, step.log_id)
            )
            connection.executemany(
                _PUT_FEATURES,
                # End markers are for a replay of the whole log, which a file does not keep.
                [_features_row(partition, rows) for rows in step.features if len(rows.vectors)],
            )
            for camera, state in step.states.items():
                _keep_camera(connection, partition, camera, state)
            for status in step.statuses:
                _keep_status(connection, status, self._site)
            self._settle_in(connection)
            end_mark = self._end_mark
            for event in step.revisions:
                end_mark += self._projection.size_of(event)
                connection.execute(
                    "INSERT INTO waiting (mark, event) VALUES (?, ?)",
                    (end_mark, event_line(event, site="")),
                )
        self._end_mark = end_mark

    def _waiting(self) -> tuple[int | None, Sequence[ActionEvent]]:
        with self._explained() as connection:
            mark = connection.execute("SELECT mark FROM projection").fetchone()
            rows = connection.execute("SELECT event FROM waiting ORDER BY id").fetchall()
        return (mark[0] if mark else None), [parse_event(event) for (event,) in rows]

    def _settle(self) -> None:
        """The projection has everything that waited."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM waiting")
            connection.execute(_PUT_MARK, (self._projection.mark,))

    def _settle_in(self, connection: sqlite3.Connection) -> None:
        """Forget what the projection has for good."""
        mark = self._projection.mark
        connection.execute("DELETE FROM waiting WHERE mark <= ?", (mark,))
        connection.execute(_PUT_MARK, (mark,))

    def _close(self) -> None:
        if self._is_settled:
            with suppress(TransportError), self._transaction() as connection:
                self._settle_in(connection)  # if that fails, the next start settles it
        self._open_connection.close()
        self._connection = None

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
            return sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            is_passing = isinstance(error, OSError) and error.errno in PASSING_ERRNOS
            kind = DiskError if is_passing or self._is_disk_full() else ConfigError
            raise kind(f"{self._path}: cannot open the journal: {error}") from error

    def _unusable(self, error: sqlite3.Error) -> ConfigError | TransportError:
        problem = f"{self._path}: cannot be used as the journal: {error}"
        if _code(error) in _LOCKED:
            return TransportError(f"{problem}; stop the process that uses it")
        if _code(error) in _PASSING or self._is_disk_full():
            return DiskError(f"{problem}; is the disk full or failing?")
        return ConfigError(f"{problem}; move the file away (open events are then forgotten)")

    def _is_disk_full(self) -> bool:
        """True if there is no room, of which SQLite says only that a file cannot be opened."""
        try:
            room = os.statvfs(self._path.parent)
        except OSError:
            return False
        return room.f_bavail == 0 or (room.f_files > 0 and room.f_favail == 0)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: a saved state survives a power cut, so no commit ever points past it.
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        check_version(self._path, version)
        migration = _FROM_1 if version == 1 else ""
        connection.executescript(
            f"BEGIN; {_SCHEMA} {migration} PRAGMA user_version = {VERSION}; COMMIT;"
        )

    @contextmanager
    def _explained(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._open_connection
        except sqlite3.Error as error:
            kind = DiskError if _code(error) in _PASSING_LATER else TransportError
            raise kind(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                if connection.in_transaction:  # SQLite itself may have ended it
                    connection.rollback()
                raise


def _features_row(partition: str, rows: FeatureRows) -> tuple[object, ...]:
    return (
        partition,
        rows.camera,
        rows.run,
        rows.segment,
        rows.first_index,
        len(rows.vectors),
        rows.feature_id,
        rows.anchor_us,
        np.ascontiguousarray(rows.vectors, np.float16).tobytes(),
    )


def _keep_camera(
    connection: sqlite3.Connection, partition: str, camera: str, state: CameraState | None
) -> None:
    if state is None:
        connection.execute(
            "DELETE FROM cameras WHERE partition = ? AND camera = ?", (partition, camera)
        )
        connection.execute(
            "DELETE FROM features WHERE partition = ? AND camera = ?", (partition, camera)
        )
        return
    values = (state.low_offset, state.run, state.first_feature, state.blob)
    connection.execute(_PUT_CAMERA, (partition, camera, *values))
    connection.execute(
        _DROP_FEATURES,
        (partition, camera, state.run, state.first_feature, state.first_feature),
    )


def _keep_status(connection: sqlite3.Connection, status: CameraStatus, site: str) -> None:
    if status.state is Presence.FORGOTTEN:
        connection.execute("DELETE FROM statuses WHERE camera = ?", (status.camera,))
        return
    told = status_line(status, site=site).decode()
    connection.execute(_PUT_STATUS, (status.camera, status.silent_since_us, told))


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary error code; 0 for an error that the Python module itself raises."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
