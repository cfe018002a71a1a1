"""Reads chunks from folders, one for each camera: the transport that needs no broker.

    root/door/0000000007.json    the chunk's headers, written first
    root/door/0000000007.mp4     the chunk, renamed into place once whole
    root/door/0000000008.end     nothing follows in this run
    root/.positions/door         the last number that is done, for whoever writes more
    root/.positions/.lock        held by the daemon that reads here (``daemon.claims``)

A camera's folder is a partition, and a file's number (all digits of its stem) is its offset. A
file without a sidecar (the .json file with the headers) is foreign: its camera is the folder, its
time the file's, and it is read once a later file exists or it has not changed for a while. Files
without a number, hidden files, and files whose number was passed already are left alone.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.errors import PASSING_ERRNOS, ConfigError, DiskError, MalformedRecordError
from daemon.outages import Kind, Outage, Outages
from daemon.sources.base import Delivery, PartitionOwner, Position
from daemon.sources.patient import SOON_S, Rounds, in_thread, read_regular
from daemon.wire.headers import Headers
from daemon.wire.records import parse_chunk, readable_camera
from engine.errors import StreamError
from engine.types import FOREIGN_RUN, VideoChunk

END_SUFFIX = ".end"
SIDECAR_SUFFIX = ".json"
POSITIONS = ".positions"

_NO_CHUNKS = frozenset({SIDECAR_SUFFIX.removeprefix("."), "tmp", "part"})
_MAX_NUMBER = 2**63 - 1  # a state store keeps it in 64 bits
_NO_DIGITS = re.compile(r"[^0-9]+")
# One name for all cameras, so that a long camera name makes no name that is too long for the disk;
# it begins with a dot, as no camera's folder does.
_UNFINISHED = ".unfinished.tmp"
_MOST_BYTES = 2**30  # of a chunk that is read again
_MOST_SIDECAR_BYTES = 2**20
_MOST_POSITION_BYTES = 64
_TICK_S = 0.1  # a folder's time of change is no coarser than this
_LIST_ANYWAY_S = 5.0  # for file systems whose folders have coarse times of change, or none
_GONE = (FileNotFoundError, NotADirectoryError)

_log = logging.getLogger("s2netd.directory")


@dataclass(frozen=True, slots=True)
class DirectorySourceSettings:
    """Where the chunk files are.

    Attributes:
        path: Holds one folder for each camera, named for the camera.
        follow: Wait for more files; otherwise the source ends after the last.
        poll_interval_s: Seconds between two looks for new files.
        settle_s: A foreign file that has not changed for so many seconds counts as whole.
        max_chunk_bytes: Larger files are refused unread.
        positions: Folder of the numbers that are done; ``path/.positions`` if None.
    """

    path: Path
    follow: bool = True
    poll_interval_s: float = 0.2
    settle_s: float = 2.0
    max_chunk_bytes: int = 64 * 2**20
    positions: Path | None = None


@dataclass(slots=True)
class _Camera:
    """What is known of one camera's folder."""

    folder: Path
    reached: int | None
    next_number: int
    pending: deque[tuple[int, Path]] = field(default_factory=deque)
    listed: "_Listing | None" = None
    growing: tuple[Path, int, int] | None = None  # newest foreign file: path, size, mtime in ns
    growing_since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Listing:
    """When a folder was listed, and which state of it.

    As long as the folder's inode and time of change stay the same, nothing new is in it. That
    holds only if it was listed well after the change: the time does not tell a file that came
    right after the listing, within one tick of the folder's clock.
    """

    version: tuple[int, int]  # inode, mtime in ns
    since_s: float
    at_s: float
    has_left_some: bool

    def stands(self, version: tuple[int, int], now_s: float) -> bool:
        is_final = not self.has_left_some and self.at_s - self.since_s >= _TICK_S
        return is_final and self.version == version and now_s - self.at_s < _LIST_ANYWAY_S


class DirectoryChunkSource:
    """Reads each camera's files in the order of their numbers, one file of each camera in turn.

    Args:
        settings: Where the files are.
        outages: Told of what cannot be read or written now, which is waited for.
        calls: Told of each look at the folder, so that one that hangs is noticed.
    """

    def __init__(
        self,
        settings: DirectorySourceSettings,
        outages: Outages | None = None,
        calls: RunningCalls | None = None,
    ) -> None:
        self._settings = settings
        self._positions = settings.positions or settings.path / POSITIONS
        self._owner: PartitionOwner | None = None
        self._cameras: dict[str, _Camera] = {}
        self._paused: set[str] = set()
        self._unwritten: set[str] = set()  # cameras whose position is not in its file yet
        self._warned: set[tuple[str, str]] = set()
        self._reading: dict[str, asyncio.Future[Delivery | None]] = {}  # one at most of each
        self._new: dict[str, int | None] = {}  # found in this round: camera → last number done
        self._keeping: asyncio.Future[None] | None = None  # positions on their way to the disk
        self._listing: asyncio.Future[list[str]] | None = None  # of the folders of cameras
        self._rounds = Rounds(self._visit)
        self._outages = outages or Outages()
        self._calls = calls or RunningCalls(SystemClock())
        self._root = self._outages.watch(Kind.FOLDER, str(settings.path))
        self._disk = self._outages.watch(Kind.DISK, str(self._positions), costs_all=False)
        self._hanging: dict[str, Outage] = {}
        self._now_s = 0.0  # of this round
        self._wake = asyncio.Event()
        self._is_closed = False

    async def start(self, owner: PartitionOwner) -> None:
        """See ``ChunkSource``."""
        self._owner = owner
        await in_thread(self._calls.watched("chunk folder", self._check_folders))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        loop = asyncio.get_running_loop()
        scan_at_s = loop.time()
        while not self._is_closed:
            if loop.time() >= scan_at_s:
                await self._look(loop.time())
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

    def reached(self, partition: str, next_offset: int) -> None:
        """See ``ChunkSource``; whoever writes further chunks numbers them after these."""
        camera = self._cameras.get(partition)
        if camera is not None and (camera.reached is None or next_offset - 1 > camera.reached):
            camera.reached = next_offset - 1
            self._unwritten.add(partition)

    def renounce(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def is_caught_up(self, partition: str) -> bool:
        """See ``ChunkSource``."""
        camera = self._cameras.get(partition)
        return camera is not None and not camera.pending

    def n_behind(self, partition: str) -> int | None:
        """See ``ChunkSource``."""
        camera = self._cameras.get(partition)
        return None if camera is None else len(camera.pending)

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
        await self._keep_positions()

    async def _take(self, name: str) -> Delivery | None:
        """The camera's next delivery; None if there is none now, or reading it takes long."""
        pending, reading = self._cameras[name].pending, self._reading.get(name)
        if self._is_closed or name in self._paused or not (pending or reading):
            return None
        if reading is None:
            reading = in_thread(functools.partial(self._read, name, *pending.popleft()))
            reading.add_done_callback(lambda _done: self._wake.set())
            self._reading[name] = reading
            await asyncio.wait([reading], timeout=SOON_S)
        if not reading.done():
            self._hang(name, "a file does not come")
            return None
        del self._reading[name]
        self._is_back(name)
        return reading.result()

    def _hang(self, name: str, how: str) -> None:
        """Nothing comes of a camera's folder; that costs this camera alone."""
        if name not in self._hanging:
            folder = str(self._settings.path / name)
            self._hanging[name] = self._outages.watch(Kind.FOLDER, folder, costs_all=False)
        self._hanging[name].failed(how)

    def _is_back(self, name: str) -> None:
        if name in self._hanging and name not in {*self._reading, *self._rounds.hanging}:
            self._outages.forget(self._hanging.pop(name))

    def _is_at_end(self) -> bool:
        is_left = self._reading or any(c.pending for c in self._cameras.values())
        return not self._settings.follow and not is_left

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
            if error.errno in PASSING_ERRNOS:
                return  # it is made with the first position
            raise ConfigError(
                f"{self._positions}: cannot keep positions there: {error.strerror}"
            ) from error

    async def _look(self, now_s: float) -> None:
        """Take in what is new on the disk: in threads, but the owner is asked in the loop."""
        await self._keep_positions()
        names = await self._folders()
        self._now_s, self._new = now_s, {}
        await self._rounds.go(names)
        new = dict(self._new)  # a folder that hung until now may still add itself
        for name, reached in new.items():
            start = await self._open_owner.take(
                name, fallback=0 if reached is None else reached + 1
            )
            self._cameras[name] = _Camera(self._settings.path / name, reached, start)
        await self._rounds.go(new)
        for name in self._rounds.hanging:
            self._hang(name, "it cannot be listed")
        for name in [name for name in self._hanging if name not in self._rounds.hanging]:
            self._is_back(name)

    async def _folders(self) -> list[str]:
        """The folders of cameras; those that are known while the one that holds them hangs."""
        if self._listing is None:
            list_folders = self._calls.watched("chunk folder", self._list_folders)
            self._listing = in_thread(list_folders)
        await asyncio.wait([self._listing], timeout=SOON_S)
        if not self._listing.done():
            self._root.failed("cannot look for cameras: it does not answer")
            return list(self._cameras)
        listed, self._listing = self._listing, None
        try:
            names = listed.result()
        except OSError as error:
            self._root.failed(f"cannot look for cameras: {error.strerror}")
            return []
        self._root.worked()
        return names

    @property
    def _open_owner(self) -> PartitionOwner:
        if self._owner is None:
            raise AssertionError("the source is not started")
        return self._owner

    async def _keep_positions(self) -> None:
        """Write the positions down that have changed; nothing depends on them, so it may wait."""
        if self._keeping is None and self._unwritten:
            self._keeping = in_thread(self._write_positions)
        if self._keeping is None:
            return
        await asyncio.wait([self._keeping], timeout=SOON_S)
        if not self._keeping.done():
            self._disk.failed("writing a position hangs")
            return
        kept, self._keeping = self._keeping, None
        try:
            kept.result()
        except DiskError as error:
            self._disk.failed(error)
        else:
            self._disk.worked()

    def _write_positions(self) -> None:
        for name in list(self._unwritten):
            reached = self._cameras[name].reached
            if reached is not None and reached >= 0:
                _write_position(self._positions / name, reached)
            if reached == self._cameras[name].reached:
                self._unwritten.discard(name)

    def _list_folders(self) -> list[str]:
        with os.scandir(self._settings.path) as entries:
            folders = sorted((e for e in entries if e.name[0] != "."), key=lambda e: e.name)
        return [folder.name for folder in folders if self._is_camera(folder)]

    def _visit(self, name: str) -> None:
        """Take in a known camera's files, or a new camera."""
        try:
            if name in self._cameras:
                self._scan_camera(self._cameras[name], self._now_s)
            else:
                self._new[name] = read_position(self._positions / name)
        except _GONE:  # removed while we look
            return
        except OSError as error:
            self._warn_once(name, f"is left out: {error.strerror}")

    def _is_camera(self, folder: os.DirEntry[str]) -> bool:
        try:
            if not folder.is_dir():
                return False
        except OSError as error:
            self._warn_once(folder.name, f"is left out: {error.strerror}")
            return False
        if not _is_utf8(folder.name):
            self._warn_once(folder.name, "is left out: its name is not UTF-8; rename it")
            return False
        return True

    def _warn_once(self, name: str, problem: str) -> None:
        if (name, problem) not in self._warned:
            self._warned.add((name, problem))
            _log.warning("%s/%a %s", self._settings.path, name, problem)

    def _scan_camera(self, camera: _Camera, now_s: float) -> None:
        status = camera.folder.stat()
        # Taken before the listing: what comes after it changes the version.
        version = (status.st_ino, status.st_mtime_ns)
        before = camera.listed
        if before and before.stands(version, now_s):
            return
        since_s = before.since_s if before and before.version == version else now_s
        camera.listed = _Listing(version, since_s, now_s, self._take_in(camera, now_s))

    def _take_in(self, camera: _Camera, now_s: float) -> bool:
        """Queue a camera's new files; True if there are some that cannot be read yet."""
        seen = self._numbered(camera)
        if not seen:
            return False
        # A listing that is made while files appear may hold a later file and lack an earlier one.
        # A second listing holds all files that precede the newest one of the first.
        newest = max(seen)
        files = self._numbered(camera)
        numbers = sorted(number for number in files if number <= newest)
        if self._settings.follow and not self._is_whole(camera, files.get(newest), now_s):
            numbers = [number for number in numbers if number != newest]
        camera.pending.extend((number, files[number]) for number in numbers)
        camera.next_number = max(numbers, default=camera.next_number - 1) + 1
        return len(numbers) < len(files)

    def _numbered(self, camera: _Camera) -> dict[int, Path]:
        files = _numbered(camera.folder, camera.next_number)
        for number in [number for number in files if number > _MAX_NUMBER]:
            del files[number]
            self._warn_once(
                camera.folder.name,
                "holds files whose names have too many digits, and they are left alone; name "
                "chunk files by one rising number of at most 18 digits, such as 0000000007.mp4",
            )
        return files

    def _is_whole(self, camera: _Camera, path: Path | None, now_s: float) -> bool:
        """True if a camera's newest file is finished; one with a sidecar is put there whole."""
        if path is None or path.with_suffix(SIDECAR_SUFFIX).exists():
            return True
        status = path.stat()
        growing = (path, status.st_size, status.st_mtime_ns)
        if growing != camera.growing:
            camera.growing, camera.growing_since_s = growing, now_s
        return now_s - camera.growing_since_s >= self._settings.settle_s

    def _read(self, name: str, number: int, path: Path) -> Delivery | None:
        """One file as a delivery; None if it was removed in the meantime."""
        position = Position(name, number)
        payload, headers = b"", list[tuple[str, bytes]]()
        try:
            payload = read_regular(path, self._settings.max_chunk_bytes)
            headers = _headers_beside(path)
            chunk = _parse(name, path, number, payload, headers)
        except _GONE:
            return None
        except OSError as error:
            reason = MalformedRecordError(f"{path}: cannot be read: {error.strerror}")
            return Delivery(position, readable_camera(None, name), None, reason)
        except StreamError as error:
            camera = readable_camera(None, name)
            return Delivery(position, camera, None, error, payload, name.encode(), tuple(headers))
        return Delivery(position, chunk.camera, chunk, key=name.encode(), headers=tuple(headers))


def last_number(folder: Path) -> int:
    """The highest number of a camera's chunk files; -1 if there is none."""
    return max((n for n in _numbered(folder, 0) if n <= _MAX_NUMBER), default=-1)


def read_numbered(folder: Path, first: int, last: int) -> list[VideoChunk]:
    """The chunks of a camera's folder with these numbers, as far as they can be read."""
    chunks: list[VideoChunk] = []
    try:
        files = sorted(_numbered(folder, first).items())
    except OSError:
        return []
    for number, path in files:
        if number <= last:
            with contextlib.suppress(OSError, StreamError):
                headers = _headers_beside(path)
                payload = read_regular(path, _MOST_BYTES)
                chunks.append(_parse(folder.name, path, number, payload, headers))
    return chunks


def _number(name: str) -> int | None:
    """A chunk file's number; None for a name that is no chunk file's."""
    stem, _, suffix = name.rpartition(".")  # a Path for each file would cost too much
    if suffix in _NO_CHUNKS or name[0] == ".":
        return None
    digits = _NO_DIGITS.sub("", stem or name)
    return int(digits) if digits else None


def _numbered(folder: Path, least: int) -> dict[int, Path]:
    """The chunk files from number ``least`` on; of two with the same number, the first by name."""
    names: dict[int, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            number = _number(entry.name)
            if number is not None and number >= least:
                names[number] = min(names.get(number, entry.name), entry.name)
    return {number: folder / name for number, name in names.items()}


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _headers_beside(path: Path) -> Headers:
    sidecar = path.with_suffix(SIDECAR_SUFFIX)
    return _sidecar_headers(sidecar) if sidecar.exists() else []


def _parse(name: str, path: Path, number: int, payload: bytes, headers: Headers) -> VideoChunk:
    mtime_us = path.stat().st_mtime_ns // 1000
    if path.suffix == END_SUFFIX and not headers:
        return VideoChunk(name, FOREIGN_RUN, number, mtime_us, b"", anchor_us=0, is_end=True)
    return parse_chunk(name.encode(), headers, payload, timestamp_us=mtime_us, offset=number)


def _sidecar_headers(sidecar: Path) -> Headers:
    try:
        plain = json.loads(read_regular(sidecar, _MOST_SIDECAR_BYTES))
    except (ValueError, RecursionError) as error:
        raise MalformedRecordError(f"{sidecar}: is not JSON: {error}") from error
    if not isinstance(plain, dict) or not all(isinstance(v, str) for v in plain.values()):
        raise MalformedRecordError(f"{sidecar}: wanted one object of header names and texts")
    try:
        return [(name, value.encode()) for name, value in plain.items()]
    except UnicodeEncodeError as error:
        raise MalformedRecordError(f"{sidecar}: holds no Unicode text: {error}") from error


def read_position(path: Path) -> int | None:
    """The last number that is done; None if it is not known."""
    try:
        number = int(read_regular(path, _MOST_POSITION_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, StreamError):  # a power cut, or somebody's editor
        number = -1
    if 0 <= number <= _MAX_NUMBER:
        return number
    _log.warning("%s: holds no number; the camera is read as if nothing was done", path)
    return None


def _write_position(path: Path, number: int) -> None:
    """Write a position so that a power cut leaves no empty file: synced first, then renamed."""
    unfinished = path.with_name(_UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="ascii") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise DiskError(f"{path}: cannot keep the position: {error.strerror}") from error
