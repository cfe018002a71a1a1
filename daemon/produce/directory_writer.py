"""Writes chunks as files, which ``daemon.sources.directory`` reads, and in time removes."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from daemon.errors import PASSING_ERRNOS, ConfigError, DiskError, TransportError
from daemon.produce.footage import folder_name
from daemon.sources.chunk_files import (
    END_SUFFIX,
    OTHER_SUFFIX,
    SIDECAR_SUFFIX,
    SUFFIXES,
    last_number,
    own_stem,
)
from daemon.sources.positions import POSITIONS, read_position
from daemon.threads import in_thread
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import chunk_record
from engine.types import VideoChunk

_MAKE_ROOM = "; free some, or let the daemon remove what is done (source.retention_s)"
_FIX_OF = {errno.ENOSPC: _MAKE_ROOM, errno.EDQUOT: _MAKE_ROOM}


class DirectoryChunkWriter:
    """Puts chunks into ``root/<camera>/``; numbers go on from the files there or those once read.

    Several writers may serve one camera, for each number is taken once and in order.

    Args:
        root: Folder of all cameras; it is made if it is missing.
        site: Written into every chunk's headers.
    """

    def __init__(self, root: Path, *, site: str = "default") -> None:
        self._root = root
        self._site = site
        self._next: dict[str, int] = {}

    @property
    def most_bytes(self) -> int | None:
        """See ``ChunkWriter``; what there is room for."""
        return None

    async def start(self) -> None:
        """See ``ChunkWriter``."""
        try:
            await in_thread(self._make_root)
        except OSError as error:
            message = f"{self._root}: cannot make it: {error.strerror}"
            if error.errno in PASSING_ERRNOS:
                raise DiskError(f"{message}{_FIX_OF.get(error.errno, '')}") from error
            raise ConfigError(message) from error

    async def write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        """See ``ChunkWriter``."""
        try:
            await in_thread(functools.partial(self._write, chunk, facts), "writing")
        except OSError as error:
            raise TransportError(
                f"{self._root}: cannot write a chunk of {chunk.camera}: {error.strerror}"
                f"{_FIX_OF.get(error.errno or 0, '')}"
            ) from error

    async def close(self) -> None:
        """See ``ChunkWriter``; every chunk is in place already."""

    def _make_root(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it cannot be written to")

    def _write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        folder = self._root / folder_name(chunk.camera)
        folder.mkdir(exist_ok=True)
        record = chunk_record(chunk, facts, site=self._site)
        headers = {name: value.decode() for name, value in record.headers}
        suffix = END_SUFFIX if chunk.is_end else SUFFIXES.get(facts.content_type, OTHER_SUFFIX)
        sidecar = json.dumps(headers, indent=1, ensure_ascii=False).encode()
        with _alone_in(folder):
            number = self._next_number(chunk.camera, folder)
            while not _put_pair(folder, number, sidecar, suffix, record.value):
                number += 1
        self._next[chunk.camera] = number + 1

    def _next_number(self, camera: str, folder: Path) -> int:
        """A number above those of all files, and of files that were read and then removed."""
        if camera not in self._next:
            self._next[camera] = last_number(folder) + 1
        committed = read_position(self._root / POSITIONS / camera)
        return max(self._next[camera], -1 if committed is None else committed + 1)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let writers take turns, so that no number is in place before a lower one."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network disks lack locks; numbers stay unique
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _put_pair(folder: Path, number: int, sidecar: bytes, suffix: str, payload: bytes) -> bool:
    """Put a sidecar and then its payload in place; False if the number is taken already.

    A payload that is in place is a whole chunk.
    """
    sidecar_path = folder / (own_stem(number) + SIDECAR_SUFFIX)
    if not _put(sidecar_path, sidecar):
        return False
    if not _put(folder / (own_stem(number) + suffix), payload):
        sidecar_path.unlink()  # the payload that has the number is another chunk's
        return False
    return True


def _put(path: Path, payload: bytes) -> bool:
    """Put a whole file in place; False if the name is taken."""
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_bytes(payload)
        os.link(unfinished, path)  # unlike renaming, a link never replaces a file
    except FileExistsError:
        return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True
