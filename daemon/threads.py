"""Blocking work that may hang for ever, in threads that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T], name: str = "reading") -> "asyncio.Future[T]":
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

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def told_if_slow(work: Awaitable[T], limit_s: float, tell: Callable[[str], object]) -> T:
    """What ``work`` gives; ``tell`` is called each time it has taken so long once more."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=limit_s))[0]:
            tell(f"no answer for {limit_s:g} s")
        return task.result()
    finally:
        task.cancel()


def forget(future: "asyncio.Future[T]") -> None:
    """Leave work to its thread: nobody wants to know how it ends."""
    future.add_done_callback(_heard)


def _heard(future: "asyncio.Future[T]") -> None:
    if not future.cancelled():
        future.exception()
