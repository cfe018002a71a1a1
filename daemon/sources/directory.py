"""A folder of chunk files per camera: the embedded transport.

    root/door/0000000007.json    the chunk's headers, written first
    root/door/0000000007.mp4     the chunk, renamed into place once whole
    root/door/0000000008.end     nothing follows in this epoch
    root/.positions/door         the last number that was committed

A camera's folder is a partition and a file's number (all digits of its stem) its offset. Files
without a sidecar are foreign: their camera is the folder, their time the file's, and they are
taken once a later one exists or they have stood still for a while. Files without a number, hidden
files, and files whose number was passed already are left alone.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import ConfigError, MalformedRecordError, TransportError
from daemon.headers import Headers
from daemon.sources.base import (
    Delivery,
    Position,
    StartAt,
    first_offset,
    nothing_to_read_again,
)
from daemon.wire import FOREIGN_EPOCH, parse_chunk, readable_stream_id
from engine.errors import RefusedChunkError, StreamError
from engine.types import VideoChunk

END_SUFFIX = ".end"
SIDECAR_SUFFIX = ".json"

_NO_CHUNKS = frozenset({SIDECAR_SUFFIX, ".tmp", ".part"})
_MAX_NUMBER = 2**63 - 1  # a state store keeps it in 64 bits


@dataclass(frozen=True, slots=True)
class DirectorySourceSettings:
    """Where the chunk files are.

    Attributes:
        path: Holds one folder a camera, named for it.
        follow: Wait for more files; otherwise end after the last.
        poll_interval_s: How often to look for new files.
        settle_s: How long a foreign file must stand still before it counts as whole.
        max_chunk_bytes: Larger files are refused unread.
        positions: Where committed numbers are kept; ``path/.positions`` if None.
    """

    path: Path
    follow: bool = True
    poll_interval_s: float = 0.2
    settle_s: float = 2.0
    max_chunk_bytes: int = 64 * 2**20
    positions: Path | None = None


@dataclass(slots=True)
class _Camera:
    """What is known of one folder."""

    folder: Path
    committed: int | None
    next_number: int
    pending: deque[tuple[int, Path]] = field(default_factory=deque)
    growing: tuple[Path, int, int] | None = None  # the newest foreign file: path, size, mtime
    growing_since_s: float = 0.0


class DirectoryChunkSource:
    """Reads each camera's files by rising number, a file of each camera in turn.

    Args:
        settings: Where the files are.
        start_at: As in ``daemon.sources.base``.
    """

    def __init__(
        self, settings: DirectorySourceSettings, start_at: StartAt = nothing_to_read_again
    ) -> None:
        self._settings = settings
        self._positions = settings.positions or settings.path / ".positions"
        self._start_at = start_at
        self._cameras: dict[str, _Camera] = {}
        self._paused: set[str] = set()
        self._wake = asyncio.Event()
        self._is_closed = False

    async def start(self) -> None:
        """See ``ChunkSource``."""
        await asyncio.to_thread(self._check_folders)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        loop = asyncio.get_running_loop()
        scan_at_s = loop.time()
        while not self._is_closed:
            if loop.time() >= scan_at_s:
                await asyncio.to_thread(self._scan, loop.time())
                scan_at_s = loop.time() + self._settings.poll_interval_s
            delivered = False
            for name in list(self._cameras):
                delivery = await self._take(name)
                if delivery is not None:
                    delivered = True
                    yield delivery
            if not delivered:
                if self._is_at_end():
                    return
                await self._nap(scan_at_s - loop.time())

    async def commit(self, position: Position) -> None:
        """See ``ChunkSource``."""
        camera = self._cameras[position.partition]
        if camera.committed is None or position.offset > camera.committed:
            _write_position(self._positions / position.partition, position.offset)
            camera.committed = position.offset

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.discard(partition)
        self._wake.set()

    async def close(self) -> None:
        """See ``ChunkSource``."""
        self._is_closed = True
        self._wake.set()

    async def _take(self, name: str) -> Delivery | None:
        pending = self._cameras[name].pending
        if self._is_closed or name in self._paused or not pending:
            return None
        return await asyncio.to_thread(self._read, name, *pending.popleft())

    def _is_at_end(self) -> bool:
        return not self._settings.follow and not any(c.pending for c in self._cameras.values())

    async def _nap(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._wake.wait()
        self._wake.clear()

    def _check_folders(self) -> None:
        if not self._settings.path.is_dir():
            raise ConfigError(
                f"{self._settings.path}: no such folder; make it, or let `s2netd produce "
                "--to dir:PATH` make it"
            )
        try:
            self._positions.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self._positions}: cannot keep positions there: {error.strerror}"
            ) from error

    def _scan(self, now_s: float) -> None:
        for folder in sorted(self._settings.path.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            if folder.name not in self._cameras:
                self._cameras[folder.name] = self._new_camera(folder)
            with contextlib.suppress(FileNotFoundError):  # removed while we look
                self._scan_camera(self._cameras[folder.name], now_s)

    def _new_camera(self, folder: Path) -> _Camera:
        committed = _read_position(self._positions / folder.name)
        committed_next = None if committed is None else committed + 1
        start = first_offset(committed_next, self._start_at(folder.name))
        return _Camera(folder, committed, start or 0)

    def _scan_camera(self, camera: _Camera, now_s: float) -> None:
        seen = _numbered(camera.folder, camera.next_number)
        if not seen:
            return
        # A listing made while files appear may hold a later one without an earlier one. Whatever
        # precedes the newest of a first listing is in a second.
        newest = max(seen)
        files = _numbered(camera.folder, camera.next_number)
        numbers = sorted(number for number in files if number <= newest)
        if self._settings.follow and not self._is_whole(camera, files.get(newest), now_s):
            numbers = [number for number in numbers if number != newest]
        camera.pending.extend((number, files[number]) for number in numbers)
        camera.next_number = max(numbers, default=camera.next_number - 1) + 1

    def _is_whole(self, camera: _Camera, path: Path | None, now_s: float) -> bool:
        """Is the newest file of a camera finished? With a sidecar it is renamed when whole."""
        if path is None or path.with_suffix(SIDECAR_SUFFIX).exists():
            return True
        status = path.stat()
        growing = (path, status.st_size, status.st_mtime_ns)
        if growing != camera.growing:
            camera.growing, camera.growing_since_s = growing, now_s
        return now_s - camera.growing_since_s >= self._settings.settle_s

    def _read(self, name: str, number: int, path: Path) -> Delivery | None:
        """One file as a delivery, or None if it was removed in the meantime."""
        position = Position(name, number)
        payload = b""
        try:
            payload = self._payload(path)
            chunk = _parse(name, path, number, payload)
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = MalformedRecordError(f"{path}: cannot be read: {error.strerror}")
            return Delivery(position, readable_stream_id(None, name), None, reason)
        except StreamError as error:
            return Delivery(position, readable_stream_id(None, name), None, error, payload)
        return Delivery(position, chunk.stream_id, chunk)

    def _payload(self, path: Path) -> bytes:
        size, most = path.stat().st_size, self._settings.max_chunk_bytes
        if size > most:
            raise RefusedChunkError(f"{path}: {size} bytes, at most {most} are read")
        return path.read_bytes()


def last_number(folder: Path) -> int:
    """The highest number of a camera's chunk files; -1 if there is none."""
    return max(_numbered(folder, 0), default=-1)


def _number(path: Path) -> int | None:
    """A chunk file's number, or None for what is no chunk file."""
    digits = "".join(c for c in path.stem if c in "0123456789")
    if path.name.startswith(".") or path.suffix in _NO_CHUNKS or not digits:
        return None
    number = int(digits)
    return number if number <= _MAX_NUMBER else None


def _numbered(folder: Path, least: int) -> dict[int, Path]:
    """The chunk files from number ``least`` on; of two with one number the first by name."""
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        number = _number(path)
        if number is not None and number >= least:
            files.setdefault(number, path)
    return files


def _parse(name: str, path: Path, number: int, payload: bytes) -> VideoChunk:
    sidecar = path.with_suffix(SIDECAR_SUFFIX)
    headers = _sidecar_headers(sidecar) if sidecar.exists() else []
    mtime_us = path.stat().st_mtime_ns // 1000
    if path.suffix == END_SUFFIX and not headers:
        return VideoChunk(name, FOREIGN_EPOCH, number, mtime_us, b"", anchor_us=0, is_end=True)
    return parse_chunk(name.encode(), headers, payload, timestamp_us=mtime_us, offset=number)


def _sidecar_headers(sidecar: Path) -> Headers:
    try:
        plain = json.loads(sidecar.read_bytes())
    except ValueError as error:
        raise MalformedRecordError(f"{sidecar}: is not JSON: {error}") from error
    if not isinstance(plain, dict) or not all(isinstance(v, str) for v in plain.values()):
        raise MalformedRecordError(f"{sidecar}: wanted one object of header names and texts")
    return [(name, value.encode()) for name, value in plain.items()]


def _read_position(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{path}: holds no number; remove it to read the camera from its first file"
        ) from error


def _write_position(path: Path, number: int) -> None:
    """Atomic, not synced: a power cut can only make chunks be read again."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_text(f"{number}\n", encoding="ascii")
        unfinished.replace(path)
    except OSError as error:
        raise TransportError(f"{path}: cannot keep the position: {error.strerror}") from error
