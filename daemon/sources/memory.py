"""A source without I/O. It reads a log in memory, which several sources may read in turn."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from daemon.sources.base import Delivery, PartitionOwner, Position
from engine.errors import StreamError
from engine.types import VideoChunk


@dataclass(slots=True)
class MemoryLog:
    """What a broker would keep: each partition's deliveries."""

    partitions: dict[str, list[Delivery]] = field(default_factory=dict)
    log_id: str = ""
    committed: dict[str, int] = field(default_factory=dict)  # as others may have left it
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
    """

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._owner: PartitionOwner | None = None
        self._next: dict[str, int] = {}
        self._paused: set[str] = set()
        self._revoked: set[str] = set()
        self._is_closed = False

    async def start(self, owner: PartitionOwner) -> None:
        """See ``ChunkSource``; there is nothing to connect to."""
        self._owner = owner

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        while not self._is_closed:
            self._log.changed.clear()
            delivered = False
            for partition in list(self._log.partitions):
                await self._take_new(partition)
                delivery = self._take(partition)
                if delivery is not None:
                    delivered = True
                    yield delivery
            if not delivered:
                if self._is_at_end():
                    return
                await self._log.changed.wait()

    def reached(self, partition: str, next_offset: int) -> None:
        """See ``ChunkSource``; nobody else wants to know."""

    def renounce(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._revoked.add(partition)

    def is_caught_up(self, partition: str) -> bool:
        """See ``ChunkSource``."""
        log = self._log.partitions.get(partition, [])
        return self._next.get(partition, 0) >= len(log)

    def is_blind(self, partition: str) -> bool:  # noqa: ARG002 - it is of all
        """See ``ChunkSource``; memory answers."""
        return False

    def n_behind(self, partition: str) -> int | None:
        """See ``ChunkSource``."""
        return len(self._log.partitions.get(partition, ())) - self._next.get(partition, 0)

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.add(partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        self._paused.discard(partition)
        self._log.changed.set()

    async def rebalance(self, *, goes_elsewhere: bool = False) -> None:
        """Hold all partitions and get them back, as when another member joins the group.

        Args:
            goes_elsewhere: Another member has them in between.
        """
        mine = list(self._next)
        self._revoked.update(mine)
        for partition in mine:
            await self._open_owner.hold(partition)
        for partition in mine:
            if goes_elsewhere:
                await self._open_owner.give_back(partition)
                self._paused.discard(partition)
            del self._next[partition]
        self._revoked.clear()
        self._log.changed.set()

    async def close(self) -> None:
        """See ``ChunkSource``."""
        self._is_closed = True
        self._log.changed.set()

    @property
    def _open_owner(self) -> PartitionOwner:
        if self._owner is None:
            raise AssertionError("the source is not started")
        return self._owner

    async def _take_new(self, partition: str) -> None:
        if partition not in self._next and partition not in self._revoked:
            self._next[partition] = await self._open_owner.take(
                partition,
                fallback=0,
                committed=self._log.committed.get(partition),
                log_id=self._log.log_id,
            )

    def _take(self, partition: str) -> Delivery | None:
        if self._is_closed or partition in self._paused | self._revoked:
            return None
        offset = self._next[partition]
        log = self._log.partitions[partition]
        if offset >= len(log):
            return None
        self._next[partition] = offset + 1
        return log[offset]

    def _is_at_end(self) -> bool:
        ends = self._log.partitions.items()
        is_finished = self._log.is_finished and not self._revoked
        return is_finished and all(self._next.get(p, 0) >= len(log) for p, log in ends)
