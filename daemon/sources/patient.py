"""Blocking looks at folders and files, of which one that hangs costs nobody but its own folder.

A dead file server lets a thread wait for ever, and nothing can end it. So such work is done in
threads that the process does not wait for when it ends, and what hangs is left to its thread.
"""

import asyncio
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from daemon.errors import MalformedRecordError
from engine.errors import RefusedChunkError

T = TypeVar("T")

# Whoever has not answered by then is left to itself, and the others go on.
SOON_S = 0.5


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Do ``work`` in a thread of its own, for which the end of the process does not wait."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # None only where T is

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="reading", daemon=True).start()
    return future


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
                    walking.add_done_callback(_heard)
                    break
            else:
                walking.result()


def _heard(walking: "asyncio.Future[None]") -> None:
    """Of a walk that was left alone nobody wants to know how it ended; it is made again."""
    if not walking.cancelled():
        walking.exception()


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
