"""Files of a bundle: written all at once or not at all, compared with their digests."""

import hashlib
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import BundleError


def check_replaceable(folder: Path, known: Collection[str]) -> None:
    """May a folder be written, or replaced, without deleting what is somebody's own?

    Args:
        folder: Where to write; it need not exist.
        known: Names of files that may be lost.

    Raises:
        BundleError: It is a file, holds anything else, or cannot be read.
    """
    try:
        strange = sorted(path.name for path in folder.iterdir() if path.name not in known)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(f"{folder} cannot hold a bundle: {error.strerror}") from error
    if strange:
        raise BundleError(
            f"{folder} holds {strange[0]}, which is no part of a bundle and would be lost: "
            "choose another folder, or take it away"
        )


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``folder`` if nothing is raised."""
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():
            old = folder.with_name(f"{unfinished.name}.old")
            folder.rename(old)
            unfinished.rename(folder)
            shutil.rmtree(old)
        else:
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_digest(path: Path, wanted: str, from_model: str | None = None) -> None:
    """Compare a file with its SHA-256.

    Args:
        path: The file.
        wanted: What it should be, in hex.
        from_model: The published model it belongs to, if it lies outside the bundle.

    Raises:
        BundleError: The file is missing, cannot be read, or is another one.
    """
    fix = f"s2netd models pull {from_model}" if from_model else "export or pull the bundle again"
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device would be read for ever
            raise BundleError(f"{path} is no regular file; {fix}")
        with path.open("rb") as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        reason = f"{path} cannot be read: {error.strerror}"
        raise BundleError(f"{reason}: {fix}" if from_model else reason) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if seen != wanted:
        raise BundleError(
            f"{path}: SHA-256 is {seen}, the manifest says {wanted}: the file was changed or "
            f"damaged; {fix}"
        )
