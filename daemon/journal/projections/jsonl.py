"""Events as lines of JSON in a file, the same records as on Kafka, each exactly once.

A crash can leave lines out, or tear the last one. The journal still has those lines and knows how
long the file was before them, so opening the file adds what is missing, from the torn line on.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.errors import PASSING_ERRNOS, ConfigError, DiskError, TransportError
from daemon.wire.records import event_line
from engine.types import ActionEvent

_TAIL_BYTES = 65_536

_log = logging.getLogger("s2netd.jsonl")


@dataclass(frozen=True, slots=True)
class JsonlSettings:
    """Where to write, and when events are forced to the disk.

    Attributes:
        path: The file; its folder is made if missing.
        site: Written into every event.
        fsync: ``always``: before ``show`` returns. ``interval``: at most once in
            ``fsync_interval_s``, and at close. ``never``: the system decides.
        fsync_interval_s: Seconds between two syncs, for ``interval``.
    """

    path: Path
    site: str = "default"
    fsync: Literal["always", "interval", "never"] = "always"
    fsync_interval_s: float = 1.0


class JsonlProjection:
    """Appends to one file, which no other process may write meanwhile.

    Args:
        settings: Where to write, and how.
        calls: Told of each write, so that one that hangs is noticed.
    """

    def __init__(self, settings: JsonlSettings, calls: RunningCalls | None = None) -> None:
        self.mark = 0
        self.file: Path | None = settings.path
        self._calls = calls or RunningCalls(SystemClock())
        self._settings = settings
        # Held by the writing thread, as a write goes on after its ``show`` was cancelled.
        self._lock = threading.Lock()
        self._fd = -1
        self._size = 0
        self._is_torn = False  # behind ``_size`` lies part of what could not be written whole
        self._synced_s = 0.0

    async def start(self, mark: int | None, waiting: Sequence[ActionEvent]) -> None:
        """See ``Projection``."""
        lines = b"".join(map(self._line, waiting))
        await asyncio.to_thread(self._calls.watched("events", self._open), mark, lines)

    def size_of(self, event: ActionEvent) -> int:
        """See ``Projection``: bytes."""
        return len(self._line(event))

    async def let_go_if_moved(self) -> bool:
        """See ``Projection``; a file that was cut is another one too."""
        with self._calls.running("events"):
            return await asyncio.to_thread(self._let_go_if_moved)

    async def show(self, events: Sequence[ActionEvent]) -> None:
        """See ``Projection``."""
        lines = b"".join(map(self._line, events))
        if not lines:
            return
        append = self._calls.watched("events", self._append)
        await asyncio.to_thread(append, lines, is_synced=self._must_sync())

    async def close(self) -> None:
        """See ``Projection``."""
        await asyncio.to_thread(self._calls.watched("events", self._close))

    def _line(self, event: ActionEvent) -> bytes:
        return event_line(event, site=self._settings.site) + b"\n"

    def _must_sync(self) -> bool:
        if self._settings.fsync != "interval":
            return self._settings.fsync == "always"
        now_s = asyncio.get_running_loop().time()
        is_due = now_s - self._synced_s >= self._settings.fsync_interval_s
        if is_due:
            self._synced_s = now_s
        return is_due

    def _open(self, mark: int | None, waiting: bytes) -> None:
        path = self._settings.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            kind = DiskError if error.errno in PASSING_ERRNOS else ConfigError
            raise kind(f"{path}: cannot write events there: {error.strerror}") from error
        try:
            _hold(fd, path)
            self._fd = fd
            self._take_up(mark, waiting)
        except (ConfigError, TransportError):
            self._fd = -1
            os.close(fd)
            raise

    def _take_up(self, mark: int | None, waiting: bytes) -> None:
        """Mend the end of the file, and add the lines that it lacks."""
        path = self._settings.path
        try:
            self._size, missing = self._resumed(os.fstat(self._fd).st_size, mark, waiting)
            os.ftruncate(self._fd, self._size)
            _sync_folder(path.parent)
        except OSError as error:
            raise DiskError(f"{path}: cannot take events up: {error.strerror}") from error
        self._append(missing, is_synced=True)

    def _resumed(self, size: int, mark: int | None, waiting: bytes) -> tuple[int, bytes]:
        """How much of the file to keep, in bytes, and which lines to add.

        Args:
            size: How many bytes the file has.
            mark: How many it had before the lines that wait; None: not known.
            waiting: Lines of which the file may have none, some, or all.
        """
        if mark is not None and mark <= size <= mark + len(waiting):
            there = os.pread(self._fd, size - mark, mark)
            n_whole = _same_lines_bytes(there, waiting)
            if b"\n" not in there[n_whole:]:  # a line is torn, or its bytes are not what they were
                return mark + n_whole, waiting[n_whole:]
        if mark is not None:
            _log.warning(
                "%s: has %d bytes, where %d to %d of our own were expected; it was changed or "
                "replaced, so events that may be missing are added at its end",
                self._settings.path,
                size,
                mark,
                mark + len(waiting),
            )
        return _whole_lines_bytes(self._fd), waiting

    def _append(self, lines: bytes, *, is_synced: bool) -> None:
        with self._lock:
            try:
                if self._is_torn:
                    os.ftruncate(self._fd, self._size)
                self._is_torn = True
                _write_all(self._fd, lines)
                if is_synced:
                    os.fsync(self._fd)
            except OSError as error:
                self._cut_back()
                raise DiskError(
                    f"{self._settings.path}: cannot append events: {error.strerror}"
                ) from error
            self._is_torn = False
            self._size += len(lines)
            if is_synced or self._settings.fsync == "never":
                self.mark = self._size

    def _let_go_if_moved(self) -> bool:
        with self._lock:
            if self._fd >= 0:
                if self._is_in_place():
                    return False
                self._let_go()
            self._size = self.mark = 0
            return True

    def _is_in_place(self) -> bool:
        """True if the file that is open still has its name, and all that was written to it."""
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self._settings.path)  # noqa: PTH116 - beside its twin
        except OSError:
            return False
        return os.path.samestat(ours, there) and ours.st_size >= self._size

    def _let_go(self) -> None:
        """Close the file, after what was written to it has reached the disk."""
        try:
            if self._settings.fsync != "never":
                os.fsync(self._fd)
        except OSError as error:
            raise DiskError(
                f"{self._settings.path}: cannot write events to the disk: {error.strerror}"
            ) from error
        os.close(self._fd)
        self._fd = -1

    def _cut_back(self) -> None:
        """Cut off a torn line; if that fails too, it is done before the next one is written."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._size)
            self._is_torn = False

    def _close(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            fd, self._fd = self._fd, -1
            try:
                if self._settings.fsync != "never":
                    os.fsync(fd)
                self.mark = self._size
            except OSError as error:
                raise DiskError(
                    f"{self._settings.path}: cannot write events to the disk: {error.strerror}"
                ) from error
            finally:
                os.close(fd)


def _hold(fd: int, path: Path) -> None:
    """Lock a file for this process; it must be a regular one, for its end may need repair."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ConfigError(f"{path}: is no regular file; name one, and read it with `tail -F`")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{path}: another process writes events there; give each daemon a file of its own"
        ) from error


def _write_all(fd: int, payload: bytes) -> None:
    rest = memoryview(payload)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _same_lines_bytes(there: bytes, waiting: bytes) -> int:
    """Size of the whole lines that both begin with, in bytes."""
    n_same = 0
    for line in waiting.splitlines(keepends=True):
        if not there.startswith(line, n_same):
            break
        n_same += len(line)
    return n_same


def _whole_lines_bytes(fd: int) -> int:
    """Size of the file up to and with its last line end, in bytes."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    """Make the names of new files in the folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
