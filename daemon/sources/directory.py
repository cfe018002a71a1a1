"""Reads chunks from folders, one for each camera: the transport that needs no broker.

``daemon.sources.chunk_files`` tells how the files are named. A camera's folder is a partition, and
a file's number is its offset. A foreign file, without headers, is read once a later file exists or
it has not changed for a while. Files without a number, hidden files, and files whose number was
passed already are left alone.

A folder carries an identity. One made anew under the same name has another, and is read from its
oldest file, whatever was done before.
"""

import asyncio
import contextlib
import functools
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daemon.calls import RunningCalls
from daemon.clock import Clock, SystemClock
from daemon.errors import ConfigError, MalformedRecordError
from daemon.outages import Kind, Outage, Outages
from daemon.sources.base import Delivery, PartitionOwner, Position
from daemon.sources.chunk_files import ChunkFile, identified
from daemon.sources.chunk_folder import LONG_LISTING_ENTRIES, ChunkFolder, Found, MadeAnewError
from daemon.sources.patient import SOON_S, Rounds
from daemon.sources.positions import POSITIONS, Positions
from daemon.sources.retention import Removed, Retention, RetentionLimits
from daemon.threads import in_thread
from daemon.wire.records import readable_camera
from engine.errors import StreamError

_FEW_PENDING = 256  # so many of a camera's files are known ahead, and then no more are looked for
_SWEEP_EVERY_S = 60.0
# A look that ended longer ago than the next one was due, by so much, says nothing of now.
_RECENT_S = 3.0
_GONE = (FileNotFoundError, NotADirectoryError)

_log = logging.getLogger("s2netd.directory")


@dataclass(frozen=True, slots=True)
class DirectorySourceSettings:
    """Where the chunk files are, and how long they stay.

    Attributes:
        path: Holds one folder for each camera, named for the camera.
        follow: Wait for more files; otherwise the source ends after the last.
        poll_interval_s: Seconds between two looks for new files.
        settle_s: A foreign file that has not changed for so many seconds counts as whole.
        max_chunk_bytes: Larger files are refused unread.
        positions: Folder of the numbers that are done; ``path/.positions`` if None.
        retention_s: Done chunks are removed when they are older; None: they stay.
        retention_bytes: A camera's oldest done chunks are removed when all of its done chunks
            take more; None: they stay.
    """

    path: Path
    follow: bool = True
    poll_interval_s: float = 0.2
    settle_s: float = 2.0
    max_chunk_bytes: int = 64 * 2**20
    positions: Path | None = None
    retention_s: float | None = None
    retention_bytes: int | None = None

    @property
    def retention(self) -> RetentionLimits:
        """How long done chunks stay, and how many."""
        return RetentionLimits(self.retention_s, self.retention_bytes)


@dataclass(frozen=True, slots=True)
class Watcher:
    """Told of what nobody would see otherwise. Everything is called in the event loop.

    Attributes:
        on_removed: What a sweep has removed, by camera; only cameras of which it was something.
        on_passed_over: A camera, and how many of its files came too late to be read.
    """

    on_removed: Callable[[Mapping[str, Removed]], None] = lambda _removed: None
    on_passed_over: Callable[[str, int], None] = lambda _camera, _n_files: None


@dataclass(slots=True)
class _Camera:
    """What is known of one camera's folder.

    Attributes:
        folder: Finds its new files.
        retention: Removes its old ones.
        done_below: Everything below this number is done, and kept.
        reached: The last number that is done, as the position says; None: not known.
        pending: Files that were found and not delivered yet.
        n_told: Files passed over that were told of.
    """

    folder: ChunkFolder
    retention: Retention
    done_below: int
    reached: int | None
    pending: deque[Found] = field(default_factory=deque)
    n_told: int = 0


@dataclass(frozen=True, slots=True)
class _NewCamera:
    """A folder that is to be taken: its identity, and the last number that is done."""

    identity: str
    reached: int | None


class DirectoryChunkSource:
    """Reads each camera's files in the order of their numbers, one file of each camera in turn.

    Args:
        settings: Where the files are.
        outages: Told of what cannot be read or written now, which is waited for.
        calls: Told of each look at the folder, so that one that hangs is noticed.
        watcher: Told of what was removed or passed over.
        clock: Tells how old files are.
    """

    def __init__(
        self,
        settings: DirectorySourceSettings,
        outages: Outages | None = None,
        calls: RunningCalls | None = None,
        watcher: Watcher | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._watcher = watcher or Watcher()
        self._clock = clock or SystemClock()
        self._owner: PartitionOwner | None = None
        self._cameras: dict[str, _Camera] = {}
        self._paused: set[str] = set()
        self._warned: set[tuple[str, str]] = set()
        self._reading: dict[str, asyncio.Future[Delivery | None]] = {}  # one at most of each
        self._new: dict[str, _NewCamera] = {}  # found in this round
        self._n_listed = 0  # entries of folders, in this round
        self._sweeping: asyncio.Future[dict[str, Removed]] | None = None
        self._sweep_at_s = 0.0
        self._listing: asyncio.Future[list[str]] | None = None  # of the folders of cameras
        self._rounds = Rounds(self._visit)
        self._outages = outages or Outages()
        self._calls = calls or RunningCalls(SystemClock())
        self._root = self._outages.watch(Kind.FOLDER, str(settings.path))
        positions = settings.positions or settings.path / POSITIONS
        disk = self._outages.watch(Kind.DISK, str(positions), costs_all=False)
        self._positions = Positions(positions, disk)
        self._hanging: dict[str, Outage] = {}
        self._now_s = 0.0  # of this round
        self._looked_s: float | None = None  # when the last look ended, by this clock
        self._look_took_s = 0.0
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
                self._sweep(loop.time())
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
        if camera is None:
            return
        camera.done_below = max(camera.done_below, next_offset)
        if camera.reached is None or next_offset - 1 > camera.reached:
            camera.reached = next_offset - 1
            self._positions.reached(partition, camera.reached)

    def renounce(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def is_caught_up(self, partition: str) -> bool:
        """See ``ChunkSource``; what hangs, or cannot be looked for, may hold more."""
        camera = self._cameras.get(partition)
        hangs = partition in self._reading or partition in self._hanging or self._root.age_s
        has_more = hangs or camera is None or camera.pending or camera.folder.n_left
        return not has_more and self._has_looked_lately()

    def is_blind(self, partition: str) -> bool:
        """See ``ChunkSource``."""
        hangs = partition in self._hanging or self._root.age_s
        return bool(hangs) or not self._has_looked_lately()

    def _has_looked_lately(self) -> bool:
        """Nothing may keep us from looking: a new camera whose past cannot be read now, say."""
        if self._looked_s is None:
            return False
        due_s = self._looked_s + self._settings.poll_interval_s + self._look_took_s
        return self._clock.monotonic_s() < due_s + _RECENT_S

    def n_behind(self, partition: str) -> int | None:
        """See ``ChunkSource``."""
        camera = self._cameras.get(partition)
        return None if camera is None else len(camera.pending) + camera.folder.n_left

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
        if self._sweeping is not None:
            await asyncio.wait([self._sweeping], timeout=SOON_S)
            self._tell_removed()
        await self._positions.keep()

    async def _take(self, name: str) -> Delivery | None:
        """The camera's next delivery; None if there is none now, or reading it takes long."""
        camera, reading = self._cameras[name], self._reading.get(name)
        if self._is_closed or name in self._paused or not (camera.pending or reading):
            return None
        if reading is None:
            found = camera.pending.popleft()
            camera.retention.deliver(found)
            reading = in_thread(functools.partial(self._read, name, found))
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
        self._positions.make_folder()

    async def _look(self, now_s: float) -> None:
        """Take in what is new on the disk: in threads, but the owner is asked in the loop."""
        began_s = self._clock.monotonic_s()
        await self._positions.keep()
        names = await self._folders()
        self._now_s, self._new, self._n_listed = now_s, {}, 0
        await self._rounds.go(names)
        new = dict(self._new)  # a folder that hung until now may still add itself
        for name, camera in new.items():
            reached = camera.reached
            start = await self._open_owner.take(
                name, fallback=0 if reached is None else reached + 1, log_id=camera.identity
            )
            self._cameras[name] = self._opened(name, camera, start)
        await self._rounds.go(new)
        for name in self._rounds.hanging:
            self._hang(name, "it cannot be listed")
        for name in [name for name in self._hanging if name not in self._rounds.hanging]:
            self._is_back(name)
        for name, known in self._cameras.items():
            if known.folder.n_passed_over > known.n_told:
                n_files = known.folder.n_passed_over - known.n_told
                known.n_told = known.folder.n_passed_over
                self._watcher.on_passed_over(name, n_files)
        self._looked_s = self._clock.monotonic_s()
        self._look_took_s = self._looked_s - began_s

    def _opened(self, name: str, camera: _NewCamera, start: int) -> _Camera:
        path = self._settings.path / name
        folder = ChunkFolder(
            path,
            start,
            identity=camera.identity,
            follow=self._settings.follow,
            settle_s=self._settings.settle_s,
            on_too_long=functools.partial(self._warn_once, name, _TOO_LONG),
        )
        retention = Retention(path, self._settings.retention)
        return _Camera(folder, retention, done_below=start, reached=camera.reached)

    def _sweep(self, now_s: float) -> None:
        """Begin to remove what is done and old, beside all else; tell what was removed before."""
        if self._settings.retention.are_none or now_s < self._sweep_at_s:
            return
        if self._sweeping is not None and not self._sweeping.done():
            return
        self._tell_removed()
        self._sweep_at_s = now_s + _SWEEP_EVERY_S
        done = {
            name: (one.retention, one.done_below)
            for name, one in self._cameras.items()
            if name not in self._rounds.hanging
        }
        unix_s = self._clock.unix_us() / 1e6
        self._sweeping = in_thread(functools.partial(_swept, done, now_s, unix_s))

    def _tell_removed(self) -> None:
        if self._sweeping is None or not self._sweeping.done():
            return
        removed = {name: one for name, one in self._sweeping.result().items() if one.n_chunks}
        self._sweeping = None
        for name in removed.keys() & self._cameras.keys():
            self._cameras[name].folder.lose()
        if removed:
            self._watcher.on_removed(removed)

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

    def _list_folders(self) -> list[str]:
        with os.scandir(self._settings.path) as entries:
            folders = sorted((e for e in entries if e.name[0] != "."), key=lambda e: e.name)
        return [folder.name for folder in folders if self._is_camera(folder)]

    def _visit(self, name: str) -> None:
        """Take in a known camera's files, or a new camera."""
        camera = self._cameras.get(name)
        try:
            if camera is None:
                reached = self._positions.of(name)
                self._new[name] = _NewCamera(self._identity_of(name), reached)
            else:
                self._scan_camera(camera, self._now_s)
        except MadeAnewError:
            self._new[name] = _NewCamera(self._identity_of(name), None)
        except _GONE:  # removed while we look
            return
        except OSError as error:
            self._warn_once(name, f"is left out: {error.strerror}")

    def _identity_of(self, name: str) -> str:
        try:
            return identified(self._settings.path / name)
        except OSError as error:
            self._warn_once(
                name,
                f"cannot be marked: {error.strerror}; if it is made anew, files whose numbers "
                "were done before are passed over",
            )
            return ""

    def _scan_camera(self, camera: _Camera, now_s: float) -> None:
        """Queue a camera's new files."""
        room = _FEW_PENDING - len(camera.pending)
        if room > 0:
            # A folder of many files must not make the others wait twice in one round.
            may_list = self._n_listed < LONG_LISTING_ENTRIES or not self._settings.follow
            camera.pending.extend(camera.folder.look(now_s, room, may_list=may_list))
            self._n_listed += camera.folder.n_listed

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

    def _read(self, name: str, found: Found) -> Delivery | None:
        """One file as a delivery; None if it was removed in the meantime."""
        position = Position(name, found.number)
        path = self._settings.path / name / found.name
        file = ChunkFile(path, found.number)
        try:
            chunk = file.load(self._settings.max_chunk_bytes).parse()
        except _GONE:
            return None
        except OSError as error:
            reason = MalformedRecordError(f"{path}: cannot be read: {error.strerror}")
            return Delivery(position, readable_camera(None, name), None, reason)
        except StreamError as error:
            camera, headers = readable_camera(None, name), tuple(file.headers)
            return Delivery(position, camera, None, error, file.payload, name.encode(), headers)
        headers = tuple(file.headers)
        return Delivery(position, chunk.camera, chunk, key=name.encode(), headers=headers)


_TOO_LONG = (
    "holds files whose names have too many digits, and they are left alone; name chunk files by "
    "one rising number of at most 18 digits, such as 0000000007.mp4"
)


def _swept(
    done: Mapping[str, tuple[Retention, int]], now_s: float, unix_s: float
) -> dict[str, Removed]:
    return {
        name: retention.sweep(below, now_s=now_s, unix_s=unix_s)
        for name, (retention, below) in done.items()
    }


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
