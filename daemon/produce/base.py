"""Where a producer puts chunks, which a source then reads."""

from typing import Protocol

from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk


class ChunkWriter(Protocol):
    """Gives chunks to one transport, in the order in which they are written.

    Attributes:
        most_bytes: The largest payload that it takes; None: any, or it is not known yet.
    """

    @property
    def most_bytes(self) -> int | None:
        """See above."""

    async def start(self) -> None:
        """Connect.

        Raises:
            TransportError: The transport cannot be reached before the deadline.
            ConfigError: What was configured cannot work.
        """

    async def write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        """Return once the transport has the chunk.

        Raises:
            RefusedRecordError: The transport will never take this chunk.
            TransportError: The transport cannot be reached; a later try may work.
        """

    async def close(self) -> None:
        """Let go. Safe to repeat."""
