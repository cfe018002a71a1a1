"""Where video chunks come from, and the promises every source keeps.

A source is a set of *partitions*, each a log of deliveries in the order of rising offsets. All
chunks of one camera lie in one partition. What was committed is not delivered again, with one
exception: when a partition is assigned (at a restart or after a rebalance), ``start_at`` names the
first offset that a camera needs to read again.
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
    """The ``StartAt`` of a daemon without stored state: no footage is needed again."""
    return None


async def nothing_to_finish(_partition: str) -> None:
    """The ``OnRevoked`` of a source that keeps its partitions: there is nothing to do."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where one delivery lies. Offsets rise within a partition and may have gaps."""

    partition: str
    offset: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record of a source: either a chunk, or the reason why it cannot be one.

    Attributes:
        position: Where it lies.
        camera: The camera's name; of a bad record, as far as it can be read.
        chunk: The parsed chunk, or None.
        error: Why there is no chunk; None if there is one.
        payload: The record's bytes if ``error`` is set, for a dead-letter queue; else empty.
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
    """Gives chunks, in order within a partition; a bad record is a delivery, not an exception."""

    async def start(self) -> None:
        """Connect.

        Raises:
            TransportError: Not reachable before the deadline; names the address and the fix.
            ConfigError: What was configured cannot work.
        """

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Give every delivery of every partition, until the source ends or is closed.

        Raises:
            TransportError: The source was lost and did not come back.
        """

    async def commit(self, position: Position) -> None:
        """Do not deliver again what lies at or before ``position`` in its partition.

        The commit may become durable later, but no later than in ``close``. It never goes beyond
        the position that was asked for, and never back.
        """

    def pause(self, partition: str) -> None:
        """Deliver nothing of ``partition`` until ``resume``."""

    def resume(self, partition: str) -> None:
        """Go on with ``partition`` from where it was paused."""

    async def close(self) -> None:
        """Make commits durable and end ``deliveries``. Safe to repeat."""


def first_offset(committed_next: int | None, low_offset: int | None) -> int | None:
    """The offset at which to begin a partition: the lower one of the two that are given.

    Args:
        committed_next: The offset after the last committed one; None if nothing is committed.
        low_offset: What ``StartAt`` answered: the first offset that is needed again; None if none.

    Returns:
        The first offset to read, or None if neither is known.
    """
    known = [offset for offset in (committed_next, low_offset) if offset is not None]
    return min(known, default=None)
