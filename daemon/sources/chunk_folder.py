"""What is new in a camera's folder, at a cost that what lies there already does not raise.

The next file's name is foreseen: our writers' names rise by one, and so do most others'. A look
asks for that name, so it takes a few questions to the file system, however many files there are.
Names that cannot be foreseen (times of day, gaps) are found by listing the folder. A listing's
cost rises with the folder, so the time between two listings rises with it too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from daemon.sources.chunk_files import (
    END_SUFFIX,
    MAX_NUMBER,
    OTHER_SUFFIX,
    SIDECAR_SUFFIX,
    SUFFIXES,
    NamePattern,
    identity_in,
    numbered,
    own_stem,
)

MOST_AT_ONCE = 8192
LONG_LISTING_ENTRIES = 20_000

_TICK_S = 0.1  # a folder's time of change is no coarser than this
_LIST_ANYWAY_S = 5.0  # for file systems whose folders have coarse times of change, or none
# Two passes over an entry take 2 to 3 us, so listings for the sake of a change take about 1 % of
# a core for each camera, and those without a sign of one about 0.1 %.
_S_AN_ENTRY = 2e-4
_ANYWAY_S_AN_ENTRY = 2e-3
_OWN_SUFFIXES = (*SUFFIXES.values(), END_SUFFIX, OTHER_SUFFIX)


class MadeAnewError(Exception):
    """The folder is another one under the same name."""


@dataclass(frozen=True, slots=True)
class Found:
    """A new file: its number and its name."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class _Listing:
    """When a folder was listed, and which state of it.

    As long as the folder's inode and time of change stay the same, nothing new is in it. That
    holds only if it was listed well after the change: the time does not tell a file that came
    right after the listing, within one tick of the folder's clock.

    Attributes:
        version: The state: inode, and time of change in ns.
        since_s: When that state was seen first.
        at_s: When it was listed.
        n_entries: How many entries the folder had.
    """

    version: tuple[int, int]
    since_s: float
    at_s: float
    n_entries: int

    def stands(self, version: tuple[int, int], now_s: float) -> bool:
        is_final = self.at_s - self.since_s >= _TICK_S and self.version == version
        anyway_s = max(_LIST_ANYWAY_S, self.n_entries * _ANYWAY_S_AN_ENTRY)
        return is_final and now_s - self.at_s < anyway_s


class ChunkFolder:
    """Finds a camera's new files, in the order of their numbers.

    Args:
        path: The folder.
        next_number: Files below this number are passed over.
        identity: As ``identity_in`` told; empty: the folder cannot be told from another one.
        follow: More files may come; otherwise one look finds all.
        settle_s: A foreign file that has not changed for so many seconds counts as whole.
        on_too_long: Told, whenever it is so, that names have more digits than a number may.

    Attributes:
        n_left: Files that were seen and not found yet: there are many, or the newest may grow.
        n_listed: Entries that the last look has gone through.
        n_passed_over: Files that came too late, as far as listings tell: a later number, or
            another file of the same number, was found before.
    """

    def __init__(
        self,
        path: Path,
        next_number: int,
        *,
        identity: str,
        follow: bool,
        settle_s: float,
        on_too_long: Callable[[], None],
    ) -> None:
        self.path = path
        self.n_left = 0
        self.n_listed = 0
        self.n_passed_over = 0
        self._next = next_number
        self._n_passed: int | None = None  # how many files below the next number there should be
        self._identity = identity
        self._follow = follow
        self._settle_s = settle_s
        self._on_too_long = on_too_long
        self._version: tuple[int, int] | None = None
        self._listed: _Listing | None = None
        self._found_at_s = 0.0
        self._n_entries = 0
        self._highest = -1  # number of the newest file that a listing has shown
        self._pattern: NamePattern | None = None
        self._suffixes = _OWN_SUFFIXES
        self._growing: tuple[str, int, int] | None = None  # newest foreign file: name, size, mtime
        self._growing_since_s = 0.0

    def look(self, now_s: float, most: int, *, may_list: bool) -> list[Found]:
        """Files that were not found before; about ``most`` of them.

        Args:
            now_s: Seconds on a clock that never goes back.
            most: At least 1.
            may_list: Otherwise only foreseen names are found this time.

        Raises:
            MadeAnewError: It is another folder now.
            OSError: As of the file system.
        """
        self.n_listed = 0
        version = self._checked_version()
        if self._follow:
            found = self._foreseen(now_s, most)
            if found:
                self._explain(version, now_s)
                return found
        if may_list and self._must_list(version, now_s):
            return self._by_listing(version, now_s)
        return []

    def lose(self) -> None:
        """Files that were found before may have been removed."""
        self._n_passed = None

    def _checked_version(self) -> tuple[int, int]:
        status = os.stat(self.path)  # noqa: PTH116 - counted by a test
        version = (status.st_ino, status.st_mtime_ns)
        is_marked = self._identity != ""
        if is_marked and version != self._version and identity_in(self.path) != self._identity:
            raise MadeAnewError
        self._version = version
        return version

    def _foreseen(self, now_s: float, most: int) -> list[Found]:
        """The files that follow one another from the next number on, as long as they are whole."""
        found: list[Found] = []
        number = self._next
        while len(found) < most:
            name = self._name_of(number)
            if name is None and self._is_given_up(number):
                number += 1
                continue
            if name is None or not self._is_whole(number, name, now_s):
                break
            found.append(Found(number, name))
            number += 1
        self._take(found)
        return found

    def _name_of(self, number: int) -> str | None:
        """The name of the file with a number, if it is one that can be foreseen."""
        own = own_stem(number)
        if self._has(own + SIDECAR_SUFFIX):
            for suffix in self._suffixes:
                if self._has(own + suffix):
                    return own + suffix
        name = None if self._pattern is None else self._pattern.name(number)
        return name if name is not None and self._has(name) else None

    def _is_given_up(self, number: int) -> bool:
        """True if a writer died between a sidecar and its chunk: the next chunk is there."""
        own, following = own_stem(number), own_stem(number + 1)
        return (
            self._has(own + SIDECAR_SUFFIX)
            and self._has(following + SIDECAR_SUFFIX)
            and any(self._has(following + suffix) for suffix in self._suffixes)
            # By the writers' order nothing is put in place any more before one that is.
            and not any(self._has(own + suffix) for suffix in self._suffixes)
        )

    def _has(self, name: str) -> bool:
        try:
            os.stat(self.path / name)  # noqa: PTH116 - counted by a test
        except OSError:
            return False
        return True

    def _explain(self, version: tuple[int, int], now_s: float) -> None:
        """What was foreseen is why the folder has changed: it need not be listed for that."""
        self._found_at_s = now_s
        if self._listed is not None:
            self._listed = replace(self._listed, version=version, since_s=-_TICK_S)

    def _must_list(self, version: tuple[int, int], now_s: float) -> bool:
        before = self._listed
        if before is None:
            return True
        rested_s = now_s - max(before.at_s, self._found_at_s)
        if rested_s < before.n_entries * _S_AN_ENTRY:
            return False
        return self.n_left > 0 or not before.stands(version, now_s)

    def _by_listing(self, version: tuple[int, int], now_s: float) -> list[Found]:
        before = self._listed
        since_s = before.since_s if before and before.version == version else now_s
        files = self._list()
        if files:
            # A listing that is made while files appear may hold a later file and lack an earlier
            # one. A second listing holds all files that precede the newest one of the first.
            newest = max(files)
            files = self._list()
            self._highest = max(newest, self._highest)
        self._listed = _Listing(version, since_s, now_s, self._n_entries)
        numbers = sorted(number for number in files if number <= self._highest)
        if self._follow and numbers:
            last = numbers[-1]
            if not self._is_whole(last, files[last], now_s):
                numbers.pop()
            numbers = numbers[:MOST_AT_ONCE]
        found = [Found(number, files[number]) for number in numbers]
        self.n_left = len(files)
        self._take(found)
        return found

    def _list(self) -> dict[int, str]:
        names = numbered(self.path, self._next)
        self.n_listed += names.n_entries
        self._n_entries = names.n_entries
        if self._n_passed is not None and names.n_others > self._n_passed:
            self.n_passed_over += names.n_others - self._n_passed
        self._n_passed = names.n_others
        files = names.by_number
        too_long = [number for number in files if number > MAX_NUMBER]
        for number in too_long:
            del files[number]
        if too_long:
            self._on_too_long()
        return files

    def _is_whole(self, number: int, name: str, now_s: float) -> bool:
        """True if a file is finished: it has a sidecar, a later one exists, or it stands still."""
        path = self.path / name
        if number < self._highest or self._has(path.with_suffix(SIDECAR_SUFFIX).name):
            return True
        pattern = NamePattern.of(name)
        if pattern is not None and self._has(pattern.name(number + 1)):
            return True
        status = os.stat(path)  # noqa: PTH116 - counted by a test
        growing = (name, status.st_size, status.st_mtime_ns)
        if growing != self._growing:
            self._growing, self._growing_since_s = growing, now_s
        return now_s - self._growing_since_s >= self._settle_s

    def _take(self, found: list[Found]) -> None:
        if not found:
            return
        last = found[-1]
        self._next = last.number + 1
        self.n_left = max(self.n_left - len(found), 0)
        if self._n_passed is not None:
            self._n_passed += len(found)
        suffix = os.path.splitext(last.name)[1]  # noqa: PTH122 - a Path would cost more
        if suffix != END_SUFFIX:
            self._pattern = NamePattern.of(last.name)
            # The one used last is asked for first; end marks come in between.
            self._suffixes = tuple(dict.fromkeys((suffix, *_OWN_SUFFIXES)))
