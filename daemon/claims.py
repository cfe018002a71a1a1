"""Places that one daemon has for itself: a folder of chunks, a journal in a file.

A place is claimed by a lock on a file of its own, which the kernel gives back when the process
ends, however it ends. The file says whose it is. It stays when the claim is over, for removing it
would let two daemons hold a lock each on two files of one name.
"""

import contextlib
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from daemon.errors import ConfigError

PATIENCE_S = 5.0  # for one that was just killed, or is about to end
_AGAIN_S = 0.05
_MOST_BYTES = 300  # of what a file says: a number and a host's name

_log = logging.getLogger("s2netd.claims")


class Claim:
    """A place that is ours until ``close``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Give the place up; safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def claim(lock: Path, what: str, patience_s: float = PATIENCE_S) -> Claim:
    """Claim a place, waiting a moment for another daemon that has it.

    Args:
        lock: The file that is locked; it is made if it is missing, and so is its folder.
        what: The place, for errors.
        patience_s: Seconds to wait.

    Raises:
        ConfigError: Another daemon has it, and is named by its process's id; or the file cannot
            be made.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"{lock}: cannot lock {what} there: {error.strerror}") from error
    if not _is_locked(fd, lock, time.monotonic() + patience_s):
        holder = _holder(fd)
        os.close(fd)
        raise ConfigError(
            f"{what} is used by another daemon{holder}; stop that one, or give each a place of "
            "its own"
        )
    _sign(fd)
    return Claim(fd)


def _is_locked(fd: int, lock: Path, deadline_s: float) -> bool:
    """True if the lock is ours, or if nobody can have it."""
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                return False
        except OSError as error:  # file systems that know no locks
            _log.warning(
                "%s: cannot be locked: %s; see to it that no other daemon uses the same place",
                lock,
                error.strerror,
            )
            return True
        else:
            return True
        time.sleep(_AGAIN_S)


def _sign(fd: int) -> None:
    """Say in the file that it is ours; on a full disk the lock does without."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


def _holder(fd: int) -> str:
    """Who says in the file that it is theirs, for people; empty if nobody does."""
    pid, _, host = os.pread(fd, _MOST_BYTES, 0).decode("ascii", "replace").strip().partition(" ")
    if not pid.isdecimal():
        return ""
    elsewhere = "" if host == socket.gethostname() else f" on {host!r}"
    return f" (pid {pid}{elsewhere})"
