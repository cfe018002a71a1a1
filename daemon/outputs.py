"""Files that commands write for people: whole, or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import ConfigError, TransportError
from engine.files import whole

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees part of it, whatever happens to this process.

    Raises:
        ConfigError, TransportError: As of ``writing_to``.
    """
    with writing_to(path, len(content)):
        whole.write_whole(path, content, unfinished=f".{os.getpid()}.unfinished")


@contextmanager
def writing_to(path: Path, n_bytes: int = 0) -> Iterator[None]:
    """Report what the file system refuses, in a line that says what to do.

    Args:
        path: What is written.
        n_bytes: How large it is to be, if that is known.

    Raises:
        TransportError: The disk, or the user's share of it, is full.
        ConfigError: ``path`` cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            needed = f"{max(n_bytes / 1e6, 0.1):.1f} MB" if n_bytes else "room"
            raise TransportError(
                f"{path}: {error.strerror}; free {needed} on the disk of {path.parent.resolve()}, "
                "or name a folder on another one with --out"
            ) from error
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; name another folder with --out"
        ) from error
