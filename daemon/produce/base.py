"""Where a producer puts chunks: the other end of a source."""

from typing import Protocol

from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk


class ChunkWriter(Protocol):
    """Gives chunks to one transport, in the order they are written."""

    async def start(self) -> None:
        """Connect; raises as ``ChunkSource.start`` does."""

    async def write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        """Return once the transport has the chunk.

        Raises:
            TransportError: The transport cannot be reached, or takes no chunk of this size.
        """

    async def close(self) -> None:
        """Let go. Safe to repeat."""
