"""Waits for what must happen; a machine may be as busy as it likes."""

import asyncio
from collections.abc import Callable

from tests.support.processes import PATIENCE_S


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_us(self) -> int:
        return int(self.now_s * 1e6)
