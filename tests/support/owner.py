"""An owner of partitions that only remembers: for tests of sources."""

import asyncio
from dataclasses import dataclass, field


@dataclass
class Owner:
    """Answers where to begin, as a daemon that finished so much would.

    Attributes:
        begin_at: Partition → the offset to begin at; of others nothing is known.
        taken: Partitions that are ours, each with the fallback and the log that were told.
        oldest: Partition → the oldest offset that was told.
        committed: Partition → what was told to be committed.
        calls: What was asked: (what, partition), in order.
        changed: Set at each call.
    """

    begin_at: dict[str, int] = field(default_factory=dict)
    taken: dict[str, tuple[int, str]] = field(default_factory=dict)
    oldest: dict[str, int] = field(default_factory=dict)
    committed: dict[str, int | None] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(
        self,
        partition: str,
        *,
        fallback: int,
        oldest: int = 0,
        committed: int | None = None,
        log_id: str = "",
    ) -> int:
        self.oldest[partition] = oldest
        self.committed[partition] = committed
        self._note("take", partition)
        self.taken[partition] = (fallback, log_id)
        return self.begin_at.get(partition, fallback)

    async def hold(self, partition: str) -> None:
        self._note("hold", partition)

    async def give_back(self, partition: str) -> None:
        self._note("give back", partition)
        self.taken.pop(partition, None)

    def _note(self, what: str, partition: str) -> None:
        self.calls.append((what, partition))
        self.changed.set()
