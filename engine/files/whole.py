"""Files that are whole or not there, whoever reads them and whatever happens to the writer."""

import os
from pathlib import Path


def write_whole(path: Path, *parts: bytes, unfinished: str, mode: int = 0o666) -> None:
    """Write a file beside its place, and put it there once it is synced.

    So a power cut leaves what was there before, or all of what is new, and no empty file.

    Args:
        path: Its place; what is there is replaced.
        parts: Its content.
        unfinished: Its name in the same folder until it is whole. Nobody else uses this name
            meanwhile; what a killed writer has left there is removed.
        mode: Who may read and write it, as of ``open(2)``.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    beside = path.with_name(unfinished)
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
