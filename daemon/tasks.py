"""The daemon's tasks, under one TaskGroup, none of which ends unnoticed.

If what a task waits for is cancelled, a TaskGroup takes the task for one that was cancelled on
purpose; here it ends the daemon with an error. Work that was begun is then either in a step or
done again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from daemon.cancellation import own_cancellation
from daemon.errors import ForeignCancellationError

R = TypeVar("R")


class Tasks:
    """Begins tasks; those asked for before there is a group begin with it.

    Args:
        log: A task that was lost is named here.
    """

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._group: asyncio.TaskGroup | None = None
        self._waiting: list[Callable[[], object]] = []

    def serve(self, group: asyncio.TaskGroup) -> None:
        """Begin what waits, and from now on at once."""
        self._group = group
        waiting, self._waiting = self._waiting, []
        for begin in waiting:
            begin()

    def begin(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Begin a task of the group.

        Args:
            name: For errors.
            work: What it does.
        """
        if self._group is None:
            raise AssertionError("tasks begin while the daemon serves")
        return self._group.create_task(self.not_in_silence(name, work), name=name)

    def when_serving(self, begin: Callable[[], object]) -> None:
        """Call ``begin`` as soon as tasks may begin."""
        if self._group is None:
            self._waiting.append(begin)
        else:
            begin()

    async def not_in_silence(self, name: str, work: Callable[[], Awaitable[R]]) -> R:
        """Do ``work``, which only the daemon itself may cancel; log any other cancellation."""
        try:
            with own_cancellation(name):
                return await work()
        except ForeignCancellationError as error:
            self._log.error("task.lost", task=name, reason=str(error))
            raise
