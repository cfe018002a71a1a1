"""Removes chunk files that are done, by their age or by how much room a camera's files take.

What was not processed, and kept in the journal, is never removed. Nor are a camera's newest
chunks, for a restart may need frames of them again. The folder is listed once for thousands of
files that are removed, so a sweep costs no more where more files lie.
"""

import contextlib
import heapq
import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.sources.chunk_files import SIDECAR_SUFFIX, numbered
from daemon.sources.chunk_folder import Found

# An unfinished snippet lasts 0.64 s at 25 fps; even of one-frame chunks it needs fewer.
KEPT_ANYWAY = 64

_MOST_CANDIDATES = 4096
_COUNT_AGAIN_S = 60.0
_S_AN_ENTRY = 2e-3

_log = logging.getLogger("s2netd.directory")


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long done chunks are kept, and how many.

    Attributes:
        most_s: Older ones are removed; None: no age is too old.
        most_bytes: Of one camera; beyond it the oldest are removed. None: any number.
    """

    most_s: float | None = None
    most_bytes: int | None = None

    @property
    def are_none(self) -> bool:
        """True if everything is kept."""
        return self.most_s is None and self.most_bytes is None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a sweep has removed: chunks, and the bytes of their files."""

    n_chunks: int = 0
    n_bytes: int = 0


class Retention:
    """Keeps one camera's folder within limits.

    Args:
        folder: The camera's folder.
        limits: What is kept.
    """

    def __init__(self, folder: Path, limits: RetentionLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._oldest: deque[Found] = deque()
        self._given: deque[Found] = deque()  # delivered since the last count
        self._counted_below = 0
        self._n_bytes = 0  # of the files that are done
        self._count_again_s = 0.0
        self._has_failed = False

    def deliver(self, found: Found) -> None:
        """Take note of a file that was delivered."""
        if not self._limits.are_none:
            self._given.append(found)

    def sweep(self, done_below: int, *, now_s: float, unix_s: float) -> Removed:
        """Remove what may go.

        Args:
            done_below: Everything below this number is done, and kept in the journal.
            now_s: Seconds on a clock that never goes back.
            unix_s: Seconds since 1970, as files' times count.
        """
        if self._limits.are_none:
            return Removed()
        self._count_new(done_below)
        if not self._oldest and now_s >= self._count_again_s:
            self._count(done_below, now_s)
        freed = list(self._remove(done_below - KEPT_ANYWAY, unix_s))
        return Removed(len(freed), sum(freed))

    def _remove(self, below: int, unix_s: float) -> Iterator[int]:
        """Remove the oldest files as long as they may go; gives the bytes of each chunk."""
        while self._oldest and self._oldest[0].number < below:
            path = self._folder / self._oldest[0].name
            try:
                if not self._may_go(path, unix_s):
                    return
                freed = _size_of(path)
                # In this order: a chunk without its sidecar would be read as a foreign one.
                path.unlink()
                path.with_suffix(SIDECAR_SUFFIX).unlink(missing_ok=True)
                self._n_bytes -= freed
                self._has_failed = False
                yield freed
            except FileNotFoundError:  # somebody else has removed it
                path.with_suffix(SIDECAR_SUFFIX).unlink(missing_ok=True)
            except OSError as error:
                self._complain(error)
                return
            self._oldest.popleft()

    def _may_go(self, path: Path, unix_s: float) -> bool:
        limits = self._limits
        age_s = unix_s - os.stat(path).st_mtime  # noqa: PTH116 - counted by a test
        is_old = limits.most_s is not None and age_s > limits.most_s
        return is_old or (limits.most_bytes is not None and self._n_bytes > limits.most_bytes)

    def _count_new(self, done_below: int) -> None:
        """Count the bytes of what was done since the last sweep."""
        while self._given and self._given[0].number < done_below:
            found = self._given.popleft()
            if self._limits.most_bytes is not None and found.number >= self._counted_below:
                self._n_bytes += _size_of(self._folder / found.name)

    def _count(self, done_below: int, now_s: float) -> None:
        """List the folder for its oldest files, and for the bytes of all that are done."""
        try:
            names = numbered(self._folder, 0)
        except OSError as error:
            self._complain(error)
            return
        done = [
            Found(number, name) for number, name in names.by_number.items() if number < done_below
        ]
        oldest = heapq.nsmallest(_MOST_CANDIDATES, done, key=lambda found: found.number)
        self._oldest = deque(oldest)
        self._counted_below = done_below
        if self._limits.most_bytes is not None:
            self._n_bytes = sum(_size_of(self._folder / found.name) for found in done)
        self._count_again_s = now_s + max(_COUNT_AGAIN_S, names.n_entries * _S_AN_ENTRY)

    def _complain(self, error: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.warning("%s: cannot remove old chunks: %s", self._folder, error)


def _size_of(path: Path) -> int:
    """Bytes of a chunk and its sidecar."""
    n_bytes = 0
    for one in (path, path.with_suffix(SIDECAR_SUFFIX)):
        with contextlib.suppress(OSError):
            n_bytes += os.stat(one).st_size  # noqa: PTH116 - counted by a test
    return n_bytes
