"""Chunks of all cameras that wait to be written, within so many bytes. Pure.

When there are too many, the camera that holds most gives up its oldest. So a camera that sends
little loses nothing for one that sends much, and all share what there is when all must wait. A
camera's newest chunk always has a place.
"""

from collections import deque
from dataclasses import dataclass

from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk

_OVERHEAD_BYTES = 1024  # of a chunk, besides its payload


@dataclass(frozen=True, slots=True)
class Waiting:
    """A chunk that waits.

    Attributes:
        chunk: The chunk, or a run's end marker.
        facts: What its producer knows of it.
    """

    chunk: VideoChunk
    facts: ChunkFacts

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return len(self.chunk.payload) + _OVERHEAD_BYTES

    @property
    def duration_us(self) -> int:
        """How much footage it holds."""
        return self.facts.duration_us or 0


class Spool:
    """Holds what waits, of each camera in its order.

    Args:
        most_bytes: Of all that wait together, and a chunk of each camera more.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._queues: dict[str, deque[Waiting]] = {}
        self._n_bytes: dict[str, int] = {}
        self._n_in_hand_bytes = 0

    def put(self, waiting: Waiting) -> list[Waiting]:
        """Take a chunk in; gives those that must go for it, of whatever camera, oldest first."""
        camera = waiting.chunk.camera
        self._queues.setdefault(camera, deque()).append(waiting)
        self._count(camera, waiting.n_bytes)
        gone: list[Waiting] = []
        while sum(self._n_bytes.values()) + self._n_in_hand_bytes > self._most_bytes:
            several = [name for name, queue in self._queues.items() if len(queue) > 1]
            if not several:
                break
            fullest = max(several, key=self._n_bytes.__getitem__)
            gone.append(self._queues[fullest].popleft())
            self._count(fullest, -gone[-1].n_bytes)
        return gone

    def take(self, camera: str) -> Waiting | None:
        """A camera's oldest chunk, which is in hand until ``done``; None if none waits."""
        queue = self._queues.get(camera)
        if not queue:
            return None
        waiting = queue.popleft()
        self._count(camera, -waiting.n_bytes)
        self._n_in_hand_bytes += waiting.n_bytes
        return waiting

    def done(self, waiting: Waiting) -> None:
        """What was in hand is written, or given up."""
        self._n_in_hand_bytes -= waiting.n_bytes

    def clear(self, camera: str) -> list[Waiting]:
        """Take out all that waits of a camera."""
        gone = list(self._queues.pop(camera, ()))
        self._n_bytes.pop(camera, None)
        return gone

    def held(self, camera: str) -> tuple[int, int]:
        """How many chunks of a camera wait, and how many bytes."""
        return len(self._queues.get(camera, ())), self._n_bytes.get(camera, 0)

    def _count(self, camera: str, n_bytes: int) -> None:
        self._n_bytes[camera] = self._n_bytes.get(camera, 0) + n_bytes
