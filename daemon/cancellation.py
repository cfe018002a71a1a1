"""Tells the cancellation of a task itself from the cancellation of what it waits for.

If several tasks wait for one future and it is cancelled, each of them gets a CancelledError,
though nobody told it to end. No ``except Exception`` catches that error, and a TaskGroup takes
such a task for one that was cancelled on purpose: it would end, and nobody would hear of it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.errors import ForeignCancellationError


@contextmanager
def own_cancellation(what: str) -> Iterator[None]:
    """Let the cancellation of the task itself pass, and make an error of any other one.

    A time-out or a TaskGroup around this cancels the task itself, so that passes too.

    Args:
        what: What is waited for; the error names it.

    Raises:
        ForeignCancellationError: What was waited for was cancelled, but the task was not.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ForeignCancellationError(f"{what}: was cancelled by somebody else") from error
