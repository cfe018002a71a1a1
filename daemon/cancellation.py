"""Whose cancellation is it? The law for whoever waits for what others wait for too.

A future that is cancelled under several tasks gives each of them a CancelledError, though nobody
told them to end. No ``except Exception`` sees it, and a TaskGroup takes such a task for one that
was cancelled on purpose: it is gone, and nobody hears of it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.errors import ForeignCancellationError


@contextmanager
def own_cancellation(what: str) -> Iterator[None]:
    """Let the cancellation of the task itself pass; any other one is an error.

    A time-out and a TaskGroup around this cancel the task itself, so theirs pass too.

    Args:
        what: What is waited for, for the error.

    Raises:
        ForeignCancellationError: What was waited for was cancelled, and not by way of this task.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ForeignCancellationError(f"{what}: was cancelled by somebody else") from error
