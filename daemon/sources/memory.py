"""A source without I/O. It reads a log in memory, which several sources may read in turn."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from daemon.sources.base import (
    Delivery,
    OnRevoked,
    Position,
    StartAt,
    first_offset,
    nothing_to_finish,
    nothing_to_read_again,
)
from engine.errors import StreamError
from engine.types import VideoChunk


@dataclass(slots=True)
class MemoryLog:
    """What a broker would keep: each partition's deliveries, and the offset committed in it."""

    partitions: dict[str, list[Delivery]] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    is_finished: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, partition: str, chunk: VideoChunk) -> None:
        """Put one chunk at the partition's end."""
        self._append(partition, chunk.camera, chunk, None)

    def append_bad(self, partition: str, error: StreamError, payload: bytes = b"") -> None:
        """Put a record that is no chunk at the partition's end."""
        self._append(partition, partition, None, error, payload)

    def finish(self) -> None:
        """Tell that nothing more will come."""
        self.is_finished = True
        self.changed.set()

    def _append(
        self,
        partition: str,
        camera: str,
        chunk: VideoChunk | None,
        error: StreamError | None,
        payload: bytes = b"",
    ) -> None:
        log = self.partitions.setdefault(partition, [])
        position = Position(partition, len(log))
        log.append(Delivery(position, camera, chunk, error, payload))
        self.changed.set()


class MemoryChunkSource:
    """Reads a ``MemoryLog``, one delivery of each partition in turn.

    Args:
        log: What to read.
        start_at: As in ``daemon.sources.base``.
        on_revoked: As in ``daemon.sources.base``.
    """

    def __init__(
        self,
        log: MemoryLog,
        start_at: StartAt = nothing_to_read_again,
        on_revoked: OnRevoked = nothing_to_finish,
    ) -> None:
        self._log = log
        self._start_at = start_at
        self._on_revoked = on_revoked
        self._next: dict[str, int] = {}
        self._paused: set[str] = set()
        self._revoked: set[str] = set()
        self._is_closed = False

    async def start(self) -> None:
        """See ``ChunkSource``; there is nothing to connect to."""

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        while not self._is_closed:
            self._log.changed.clear()
            delivered = False
            for partition in list(self._log.partitions):
                delivery = self._take(partition)
                if delivery is not None:
                    delivered = True
                    yield delivery
            if not delivered:
                if self._is_at_end():
                    return
                await self._log.changed.wait()

    async def commit(self, position: Position) -> None:
        """See ``ChunkSource``."""
        before = self._log.committed.get(position.partition, -1)
        self._log.committed[position.partition] = max(before, position.offset)

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.discard(partition)
        self._log.changed.set()

    async def rebalance(self) -> None:
        """Give all partitions up and get them back, as when another member joins the group."""
        for partition in list(self._next):
            self._revoked.add(partition)
            await self._on_revoked(partition)
            del self._next[partition]
            self._paused.discard(partition)
        self._revoked.clear()
        self._log.changed.set()

    async def close(self) -> None:
        """See ``ChunkSource``."""
        self._is_closed = True
        self._log.changed.set()

    def _take(self, partition: str) -> Delivery | None:
        if self._is_closed or partition in self._paused | self._revoked:
            return None
        offset = self._next_offset(partition)
        log = self._log.partitions[partition]
        if offset >= len(log):
            return None
        self._next[partition] = offset + 1
        return log[offset]

    def _next_offset(self, partition: str) -> int:
        if partition not in self._next:
            committed = self._log.committed.get(partition)
            committed_next = None if committed is None else committed + 1
            start = first_offset(committed_next, self._start_at(partition))
            self._next[partition] = start or 0
        return self._next[partition]

    def _is_at_end(self) -> bool:
        ends = self._log.partitions.items()
        is_finished = self._log.is_finished and not self._revoked
        return is_finished and all(self._next_offset(p) >= len(log) for p, log in ends)
