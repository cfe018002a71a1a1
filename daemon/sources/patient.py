"""Blocking looks at folders and files, of which one that hangs costs nobody but its own folder.

A dead file server lets a thread wait for ever, and nothing can end it. So such work is done in
threads that the process does not wait for when it ends, and what hangs is left to its thread.
"""

import asyncio
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import MalformedRecordError
from daemon.threads import forget, in_thread
from engine.errors import RefusedChunkError

# Whoever has not answered by then is left to itself, and the others go on.
SOON_S = 0.5


@dataclass(slots=True)
class _Walk:
    """One thread's way through folders; ``at`` is where it is."""

    visit: Callable[[str], None]
    left: deque[str]
    hanging: set[str]
    at: str = ""
    n_visited: int = 0
    is_left: bool = False  # it was left alone, and another one goes on

    def go(self) -> None:
        while self.left and not self.is_left:
            self.at = self.left.popleft()
            try:
                self.visit(self.at)
            finally:
                self.n_visited += 1
                self.hanging.discard(self.at)


class Rounds:
    """Visits folders one after the other, in a thread; one that hangs is passed over.

    Args:
        visit: What is done with a folder, by its name, in a thread.
        soon_s: A visit that takes longer is left to its thread, and the others go on in another.

    Attributes:
        hanging: Folders that are left to their threads; each is visited again once it is back.
    """

    def __init__(self, visit: Callable[[str], None], soon_s: float = SOON_S) -> None:
        self.hanging: set[str] = set()
        self._visit = visit
        self._soon_s = soon_s

    async def go(self, names: Iterable[str]) -> None:
        """Visit each once that does not hang.

        Raises:
            Exception: Whatever a visit has raised; those behind it are not visited.
        """
        left = deque(name for name in names if name not in self.hanging)
        while left:
            walk = _Walk(self._visit, left, self.hanging)
            walking = in_thread(walk.go)
            while not walking.done():
                before = walk.n_visited
                await asyncio.wait([walking], timeout=self._soon_s)
                if not walking.done() and walk.n_visited == before:
                    walk.is_left = True
                    self.hanging.add(walk.at)
                    if walk.n_visited != before:  # it came back at that very moment
                        self.hanging.discard(walk.at)
                    forget(walking)  # it is made again
                    break
            else:
                walking.result()


def read_regular(path: Path, most_bytes: int) -> bytes:
    """A file's bytes; what is no regular file is not even opened for long: a pipe would wait.

    Raises:
        RefusedChunkError: It is larger than ``most_bytes``.
        MalformedRecordError: It is no regular file.
        OSError: It cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise MalformedRecordError(f"{path}: is no regular file")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MalformedRecordError(f"{path}: is no regular file")
        payload = file.read(most_bytes + 1) if status.st_size <= most_bytes else None
    if payload is None or len(payload) > most_bytes:
        raise RefusedChunkError(f"{path}: {status.st_size} bytes, at most {most_bytes} are read")
    return payload
