"""Worker processes that never outlive whoever started them."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any


def process_pool(
    processes: int, initializer: Callable[..., None] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """Make a pool of fresh processes, which share no thread, lock or GPU with this one.

    Args:
        processes: How many work at once.
        initializer: Called once in each, before its first task.
        arguments: What it gets.
    """
    return ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(initializer, *arguments),
    )


def _begin(initializer: Callable[..., None] | None, *arguments: Any) -> None:
    # A pool's workers wait for tasks on a pipe whose other end they hold themselves. So without
    # this, after a parent that was killed, they would work off what they have and wait for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
