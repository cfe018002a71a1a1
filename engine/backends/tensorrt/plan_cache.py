"""Plans that were built once, kept for the next start: one file each in ``$XDG_CACHE_HOME``.

A plan runs only where everything it was built for is the same (``PlanKey``), so that is its name.
What is damaged, foreign, or could have been written by another user is built again, never loaded.
Processes that want the same plan at once wait for the one that builds it. Where nothing can be
kept (a full or read-only disk), plans are built and used all the same, and a note says so.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from engine.backends.tensorrt.plan_file import UNFINISHED, DamagedFileError, check_trusted
from engine.backends.tensorrt.plan_keys import (
    PLAN,
    TIMINGS,
    PlanEntry,
    PlanHeader,
    PlanKey,
    TimingsHeader,
    TimingsKey,
    list_entry,
    read_entry,
    write_entry,
)
from engine.errors import DeviceError
from engine.files.cache import cache_dir

OnNote = Callable[[str], None]

_LOCK = ".lock"
_POLL_S = 0.2

# Plans that no folder would keep, for whoever of this process wants them next: what was built off
# the device's thread must not be built again on it.
_UNSAVED: dict[Path, "Obtained"] = {}


def plans_dir() -> Path:
    """Where plans are kept unless somebody says otherwise."""
    return cache_dir() / "plans"


@dataclass(frozen=True, slots=True)
class Obtained:
    """A plan, and how it was come by.

    Attributes:
        plan: For ``Runtime.deserialize_cuda_engine``.
        is_from_cache: It was not built now.
        build_s: How long building took, now or then.
        unsaved: Why it could not be kept; empty if it was.
    """

    plan: bytes
    is_from_cache: bool
    build_s: float
    unsaved: str = ""


class PlanCache:
    """Plans by key. Safe to use from several processes and threads at once.

    Args:
        folder: Created, for its owner only, when the first plan is kept; None: ``plans_dir()``.
        on_note: Told, in a sentence, what somebody may want to know: a damaged plan, a wait for
            another process, a plan that could not be kept.
        now_s: The wall clock, seconds since 1970.
    """

    def __init__(
        self,
        folder: Path | None = None,
        on_note: OnNote = lambda _note: None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._folder = plans_dir() if folder is None else folder
        self._on_note = on_note
        self._now_s = now_s

    @property
    def folder(self) -> Path:
        """Where the files lie; it may not exist yet."""
        return self._folder

    def obtain(
        self,
        key: PlanKey,
        build: Callable[[], bytes],
        on_wait: Callable[[], None] = lambda: None,
        network: str = "",
    ) -> Obtained:
        """The plan from the cache; if it is not there, built and kept.

        Args:
            key: What it is for.
            build: Gives the plan. Called at most once, and by one process at a time for a key.
            on_wait: Called again and again while another process builds it.
            network: What people call it, for listings; no part of the key.

        Raises:
            BaseException: What ``build`` or ``on_wait`` raises; nothing is kept then.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._make_folder()
                found = self._load(key, lambda _note: None)
                if found is not None:
                    return found
                stack.enter_context(self._locked(self._path(key), on_wait))
            except (DamagedFileError, OSError) as error:
                return self._build_unsaved(key, build, str(self._unwritable(error)))
            found = self._load(key, self._on_note)  # another process may have been faster
            return found or self._build(key, build, network)

    def invalidate(self, key: PlanKey, why: str) -> None:
        """Forget a plan that turned out to be of no use; it is built again when next wanted."""
        path = self._path(key)
        self._on_note(f"{path} is built again: {why}")
        _UNSAVED.pop(path, None)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def timings(self, key: TimingsKey) -> bytes | None:
        """Kernel timings of earlier builds, or None."""
        path = self._path(key)
        try:
            self._check_folder()
            header, blob = read_entry(path, TimingsHeader)
        except FileNotFoundError:
            return None
        except (DamagedFileError, OSError) as error:
            self._on_note(f"{path} is not used: {_reason(error)}")
            return None
        return blob if header.timings == key else None

    def keep_timings(self, key: TimingsKey, blob: bytes) -> None:
        """Keep kernel timings in place of what was there; if that fails, a note says so."""
        self._write(self._path(key), TimingsHeader(key, self._now_s()), blob)

    def entries(self) -> list[PlanEntry]:
        """Every file that holds a plan or timings, damaged ones too, by path.

        Raises:
            DeviceError: The folder cannot be read.
        """
        try:
            paths = sorted(
                path for path in self._folder.iterdir() if path.suffix in (PLAN, TIMINGS)
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unwritable(error) from error
        return [entry for path in paths if (entry := list_entry(path)) is not None]

    def collect(
        self, is_unwanted: Callable[[PlanEntry], bool], *, dry_run: bool = False
    ) -> list[PlanEntry]:
        """Delete files; what another process is building is left alone.

        Args:
            is_unwanted: Which sound ones go. Damaged ones go in any case, and so does what a
                killed build left.
            dry_run: Delete nothing.

        Returns:
            What went or, in a dry run, would go.

        Raises:
            DeviceError: The folder cannot be read, or a file cannot be deleted.
        """
        unwanted = [entry for entry in self.entries() if entry.damage or is_unwanted(entry)]
        if dry_run:
            return unwanted
        try:
            gone = [entry for entry in unwanted if self._delete(entry.path)]
            self._sweep_all()
        except OSError as error:
            raise self._unwritable(error) from error
        return gone

    def _build(self, key: PlanKey, build: Callable[[], bytes], network: str) -> Obtained:
        """Build and keep; the caller holds the lock."""
        path = self._path(key)
        with contextlib.suppress(OSError):  # what is left over is in nobody's way
            _sweep(path)
        built = _built(path, build)
        header = PlanHeader(key, self._now_s(), built.build_s, network)
        return _remembered(path, replace(built, unsaved=self._write(path, header, built.plan)))

    def _build_unsaved(self, key: PlanKey, build: Callable[[], bytes], why: str) -> Obtained:
        self._on_note(f"plans are not kept: {why}")
        path = self._path(key)
        return _remembered(path, replace(_built(path, build), unsaved=why))

    def _load(self, key: PlanKey, on_note: OnNote) -> Obtained | None:
        path = self._path(key)
        try:
            header, plan = read_entry(path, PlanHeader)
            if header.plan != key:
                raise DamagedFileError("it was built for something else")  # noqa: TRY301
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            on_note(f"{path} is built again: {error}")
            return None
        with contextlib.suppress(OSError):  # a cache that can only be read
            os.utime(path)
        return Obtained(plan, is_from_cache=True, build_s=header.build_s)

    def _write(self, path: Path, header: PlanHeader | TimingsHeader, payload: bytes) -> str:
        """Keep a file; why that failed, or nothing."""
        try:
            self._make_folder()
            write_entry(path, header, payload)
        except (DamagedFileError, OSError) as error:
            why = str(self._unwritable(error))
            self._on_note(f"plans are not kept: {why}")
            return why
        return ""

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_folder()

    def _check_folder(self) -> None:
        check_trusted(self._folder.stat())

    def _path(self, key: PlanKey | TimingsKey) -> Path:
        return self._folder / key.file_name

    def _unwritable(self, error: DamagedFileError | OSError) -> DeviceError:
        return DeviceError(
            f"{self._folder} cannot be used: {_reason(error)}; XDG_CACHE_HOME chooses another "
            "cache"
        )

    @contextlib.contextmanager
    def _locked(self, path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
        """Be the only one to build or delete a file; the end of the process frees the lock."""
        while True:
            with _lock_file(path) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._on_note(f"waiting for another process that builds {path.name}")
                    _wait_for(file, on_wait)
                if _is_there(file, path):
                    yield
                    return

    def _delete(self, path: Path) -> bool:
        """Delete a file and its lock, unless somebody is building it."""
        with _lock_file(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not _is_there(file, path):  # somebody else is deleting it, or building it anew
                return False
            path.unlink(missing_ok=True)
            _sweep(path)
            _lock_path(path).unlink(missing_ok=True)
            return True

    def _sweep_all(self) -> None:
        """Delete what killed builds left where no plan is, and their locks."""
        for lock in self._folder.glob(f"*{_LOCK}"):
            path = lock.with_suffix("")
            if not path.exists():
                self._delete(path)


def _reason(error: DamagedFileError | OSError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def _built(path: Path, build: Callable[[], bytes]) -> Obtained:
    """A plan that is built now, or was in this process and could not be kept."""
    if path in _UNSAVED:
        return _UNSAVED[path]
    started_s = time.monotonic()
    plan = build()
    return Obtained(plan, is_from_cache=False, build_s=time.monotonic() - started_s)


def _remembered(path: Path, obtained: Obtained) -> Obtained:
    _UNSAVED.pop(path, None)
    if obtained.unsaved:
        _UNSAVED[path] = obtained
    return obtained


def _wait_for(file: IO[bytes], on_wait: Callable[[], None]) -> None:
    while True:
        on_wait()
        time.sleep(_POLL_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def _lock_file(path: Path) -> IO[bytes]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(_lock_path(path), flags, 0o600), "rb+")


def _is_there(file: IO[bytes], path: Path) -> bool:
    """Is the lock still the one that others find, or was it deleted together with the file?"""
    try:
        return os.path.samestat(os.fstat(file.fileno()), _lock_path(path).stat())
    except FileNotFoundError:
        return False


def _sweep(path: Path) -> None:
    """Delete what killed builds of a file left; the caller has the lock, so nobody builds it."""
    for leftover in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
        leftover.unlink(missing_ok=True)


__all__ = [
    "Obtained",
    "PlanCache",
    "PlanEntry",
    "PlanKey",
    "TimingsKey",
    "plans_dir",
]
