"""Where video chunks come from, and the promises every source keeps.

A source is a set of *partitions*, each a log of deliveries in rising offset order. One camera's
chunks all lie in one partition. What was committed is never shown again, except to whoever asks
for it when the partition is assigned, at a restart or after a rebalance: ``start_at`` names the
first offset some camera needs to read again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from engine.errors import StreamError
from engine.types import VideoChunk

StartAt = Callable[[str], int | None]
"""Partition → first offset to read again, from local state; None where nothing is known.

Asked in the event loop, each time a partition is assigned: with every chunk the state moves on.
"""

OnRevoked = Callable[[str], Awaitable[None]]
"""Awaited before a partition is given up: finish what was begun on it, and commit."""


def nothing_to_read_again(_partition: str) -> int | None:
    """A ``StartAt`` without local state."""
    return None


async def nothing_to_finish(_partition: str) -> None:
    """An ``OnRevoked`` for sources that keep their partitions."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """One delivery's place: offsets rise within a partition and may have gaps."""

    partition: str
    offset: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record of a source: either a chunk, or the reason why it is none.

    Attributes:
        position: Where it lies.
        camera: The camera, as far as it can be told.
        chunk: The parsed chunk, or None.
        error: Why there is no chunk, or None.
        payload: The record's own bytes where ``error`` is set, for a dead-letter queue.
    """

    position: Position
    camera: str
    chunk: VideoChunk | None
    error: StreamError | None = None
    payload: bytes = b""

    def __post_init__(self) -> None:
        if (self.chunk is None) == (self.error is None):
            raise ValueError(f"{self.position}: wanted either a chunk or an error")


class ChunkSource(Protocol):
    """Chunks in order per partition; a bad record is a delivery, never an exception."""

    async def start(self) -> None:
        """Connect.

        Raises:
            TransportError: Not reachable before the deadline; names the address and the fix.
            ConfigError: What was configured cannot work.
        """

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Every delivery of every partition; ends when the source ends or is closed.

        Raises:
            TransportError: The source was lost and did not come back.
        """

    async def commit(self, position: Position) -> None:
        """Never show again what lies at or before ``position`` in its partition.

        May be lazy, but not lazier than ``close``; never goes past what was asked, never back.
        """

    def pause(self, partition: str) -> None:
        """Deliver nothing of ``partition`` until ``resume``."""

    def resume(self, partition: str) -> None:
        """Go on with ``partition`` where it was paused."""

    async def close(self) -> None:
        """Make commits durable and end ``deliveries``. Safe to repeat."""


def first_offset(committed_next: int | None, low_offset: int | None) -> int | None:
    """Where to begin a partition: the lower of what is committed and what is needed again.

    Args:
        committed_next: The offset after the last committed one; None if nothing is committed.
        low_offset: What ``StartAt`` answered.

    Returns:
        The first offset to read, or None when neither is known.
    """
    known = [offset for offset in (committed_next, low_offset) if offset is not None]
    return min(known, default=None)
