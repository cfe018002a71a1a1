"""A file of the plan cache: what it holds, for whom, and a proof that it is whole.

    magic (8 bytes), length of the header (4, little-endian), SHA-256 of the header (32),
    header (JSON), payload; the header holds the payload's length and SHA-256.

A plan is code that a GPU will run, so a file that others could have written is never read. The
digests find damage; they are no protection from whoever may write the folder.
"""

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.files.whole import write_whole

# Raised whenever plans of an earlier s2netd must not be used any more.
MAGIC = b"S2NPLAN1"
UNFINISHED = ".unfinished"
MAX_HEADER_BYTES = 1 << 16  # eight profiles of three inputs have a twentieth of this
_LENGTH_BYTES = 4
_DIGEST_BYTES = hashlib.sha256().digest_size
_FIXED_BYTES = len(MAGIC) + _LENGTH_BYTES + _DIGEST_BYTES
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class DamagedFileError(Exception):
    """The file is not what was written, or not from whom it should be; the message says why."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file's header, read and proven; its payload is only proven by ``read_payload``.

    Attributes:
        header: What the writer said of the payload.
        payload_bytes: Its length.
        payload_sha256: What it should be, in hex.
    """

    header: dict[str, Any]
    payload_bytes: int
    payload_sha256: str


def write_sealed(path: Path, header: dict[str, Any], payload: bytes) -> None:
    """Write a file all at once or not at all, and so that it survives a power cut.

    Raises:
        OSError: It cannot be written; nothing is left.
    """
    sealed = {
        **header,
        "payload_bytes": len(payload),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
    }
    text = json.dumps(sealed, sort_keys=True).encode()
    length = len(text).to_bytes(_LENGTH_BYTES, "little")
    head = MAGIC + length + hashlib.sha256(text).digest() + text
    unfinished = f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}"
    write_whole(path, head, payload, unfinished=unfinished, mode=0o600)
    _sync_folder(path.parent)


def read_header(path: Path) -> Sealed:
    """What a file says it holds.

    Raises:
        DamagedFileError: It is damaged, of another format, or others could have written it.
        FileNotFoundError: There is none.
    """
    with _open(path) as file, _readable():
        return _header(file)


def read_payload(path: Path) -> tuple[Sealed, bytes]:
    """A file's header and its payload, both proven.

    Raises:
        DamagedFileError: It is damaged, of another format, or others could have written it.
        FileNotFoundError: There is none.
    """
    with _open(path) as file, _readable():
        sealed = _header(file)
        payload = file.read()
    if hashlib.sha256(payload).hexdigest() != sealed.payload_sha256:
        raise DamagedFileError("its content is not what was written")
    return sealed, payload


def check_trusted(status: os.stat_result) -> None:
    """May what a file or folder holds be believed?

    Raises:
        DamagedFileError: Another user (root aside) owns it or may write it; says which.
    """
    if status.st_uid not in (os.geteuid(), 0):
        raise DamagedFileError(f"it belongs to another user (uid {status.st_uid})")
    if status.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        raise DamagedFileError(f"other users may write it (mode {mode:04o})")


def _open(path: Path) -> IO[bytes]:
    try:
        # Without O_NONBLOCK, a pipe of that name would hang the daemon.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFileError(f"it cannot be opened: {error.strerror}") from error
    try:
        _check_file(os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFileError("it is no file")
    check_trusted(status)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a disk that fails
        raise DamagedFileError(f"it cannot be read: {error.strerror}") from error


def _header(file: IO[bytes]) -> Sealed:
    fixed = file.read(_FIXED_BYTES)
    if len(fixed) < _FIXED_BYTES or not fixed.startswith(MAGIC):
        raise DamagedFileError("it is empty, cut short, or of another format")
    n_header = int.from_bytes(fixed[len(MAGIC) : len(MAGIC) + _LENGTH_BYTES], "little")
    if n_header > MAX_HEADER_BYTES:
        raise DamagedFileError(f"its header claims {n_header} bytes")
    text = file.read(n_header)
    if hashlib.sha256(text).digest() != fixed[-_DIGEST_BYTES:]:
        raise DamagedFileError("its header is not what was written")
    sealed = _parsed(text)
    n_bytes = os.fstat(file.fileno()).st_size
    if n_bytes != _FIXED_BYTES + n_header + sealed.payload_bytes:
        raise DamagedFileError(f"it has {n_bytes} bytes, not as many as were written")
    return sealed


def _parsed(text: bytes) -> Sealed:
    try:
        header = json.loads(text)
        n_bytes, digest = header.pop("payload_bytes"), header.pop("payload_sha256")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise DamagedFileError(f"its header cannot be read: {error!r:.80}") from error
    if type(n_bytes) is not int or type(digest) is not str:
        raise DamagedFileError("its header holds no length and digest")
    return Sealed(header, n_bytes, digest)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
