"""Where video chunks come from, and the promises every source keeps.

A source is a set of *partitions*, each a log of deliveries in the order of rising offsets. All
chunks of one camera lie in one partition. Which deliveries are done is not the source's business:
whenever it may read a partition it asks the partition's owner where to begin.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from engine.errors import StreamError
from engine.types import VideoChunk


class PartitionOwner(Protocol):
    """Whoever processes deliveries; it knows what is done, and keeps that where others find it."""

    async def take(
        self,
        partition: str,
        *,
        fallback: int,
        oldest: int = 0,
        committed: int | None = None,
        log_id: str = "",
    ) -> int:
        """Become the partition's owner, and the only one.

        Args:
            partition: Its name.
            fallback: The offset to begin at if nothing is known of the partition.
            oldest: The offset of the oldest delivery there is; a log made anew begins there.
            committed: The first delivery that the transport itself says is not done, if it does.
            log_id: Names the partition's log, so that one made anew under the same name is told
                from the one before; empty where a log has no name.

        Returns:
            The first offset to read, again or for the first time. After ``hold``, where nobody
            else had the partition meanwhile, it is the one after the last delivery.

        Raises:
            TransportError: It could not be taken.
        """

    async def hold(self, partition: str) -> None:
        """Keep what is finished, then nothing more: another member may get the partition now."""

    async def give_back(self, partition: str) -> None:
        """Another member has the partition: forget it. Safe to repeat."""


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
        key: The record's key as it came; None: it has none.
        headers: The record's headers as they came; Kafka allows one without a value.
    """

    position: Position
    camera: str
    chunk: VideoChunk | None
    error: StreamError | None = None
    payload: bytes = b""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def own_bytes(self) -> bytes:
        """The record's bytes, whether it is a chunk or not."""
        return self.payload if self.chunk is None else self.chunk.payload

    def __post_init__(self) -> None:
        if (self.chunk is None) == (self.error is None):
            raise ValueError(f"{self.position}: wanted either a chunk or an error")


class ChunkSource(Protocol):
    """Gives chunks, in order within a partition; a bad record is a delivery, not an exception."""

    async def start(self, owner: PartitionOwner) -> None:
        """Connect; ``owner`` is asked for every partition before anything of it is delivered.

        Raises:
            TransportError: Not reachable before the deadline; names the address and the fix.
            ConfigError: What was configured cannot work.
        """

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Give every delivery of every partition, until the source ends or is closed.

        Raises:
            TransportError: The source was lost and did not come back.
        """

    def reached(self, partition: str, next_offset: int) -> None:
        """Everything below ``next_offset`` is done: tell other programs, where that is usual.

        Nothing depends on it, so it may come late or get lost.
        """

    def renounce(self, partition: str) -> None:
        """Another process has taken the partition: deliver nothing of it until ``take`` again."""

    def is_caught_up(self, partition: str) -> bool:
        """True if it was looked for more a moment ago, and there is none."""

    def is_blind(self, partition: str) -> bool:
        """True if nobody knows whether there is more: broker or folder did not answer lately."""

    def n_behind(self, partition: str) -> int | None:
        """How many deliveries of it, as far as was looked, are not given yet; None: not known."""

    def pause(self, partition: str) -> None:
        """Deliver nothing of ``partition`` until ``resume``."""

    def resume(self, partition: str) -> None:
        """Go on with ``partition`` from where it was paused."""

    async def close(self) -> None:
        """End ``deliveries`` and let go. Safe to repeat."""
