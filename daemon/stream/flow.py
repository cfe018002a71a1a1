"""Queues → which partitions to pause and which to resume. Pure.

Every camera has a short queue of chunks. A partition is paused as soon as the queue of one of its
cameras is full, and resumed once all of them are nearly empty. All queues together may hold so
many bytes; beyond that, each partition that brings more is paused, until half of them are gone.
So a slow machine leaves chunks in the broker and not in memory, however large they are, and a
camera's backlog holds up only the cameras of its partition.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """When to pause and resume; the two differ, so that a partition does not go to and fro.

    Attributes:
        full_chunks: A camera with so many chunks in its queue is full.
        resume_chunks: A full camera with no more than so many is not full any more.
        full_bytes: With more bytes in all queues, whoever brings more is paused.
    """

    full_chunks: int = 4
    resume_chunks: int = 1
    full_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        if not 0 <= self.resume_chunks < self.full_chunks:
            raise ValueError(
                f"resume_chunks is {self.resume_chunks}, wanted 0..{self.full_chunks - 1}"
            )


@dataclass(slots=True)
class FlowControl:
    """Remembers which cameras are full, and how many bytes each partition has in memory.

    Attributes:
        limits: When to pause and resume.
    """

    limits: FlowLimits
    _full: dict[str, set[str]] = field(default_factory=dict)
    _heavy: dict[str, None] = field(default_factory=dict)  # paused for bytes, in their order
    _bytes: dict[str, int] = field(default_factory=dict)
    _n_bytes: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes in all queues, with those of chunks in hand."""
        return self._n_bytes

    def queued(self, partition: str, camera: str, depth: int, n_bytes: int = 0) -> bool:
        """Take note of a queued chunk; True if the partition must be paused now.

        Args:
            partition: Where the chunk came from.
            camera: Its camera.
            depth: Chunks in the camera's queue now.
            n_bytes: The chunk's size.
        """
        was_paused = self.is_paused(partition)
        self._count(partition, n_bytes)
        if depth >= self.limits.full_chunks:
            self._full.setdefault(partition, set()).add(camera)
        if self.n_bytes > self.limits.full_bytes:
            self._heavy[partition] = None
        return self.is_paused(partition) and not was_paused

    def taken(self, partition: str, camera: str, depth: int, n_bytes: int = 0) -> list[str]:
        """Take note of a finished chunk; gives the partitions that must be resumed now.

        Args:
            partition: Where the chunk came from.
            camera: The chunk's camera.
            depth: Chunks in the camera's queue now.
            n_bytes: The chunk's size.
        """
        was_paused = self.is_paused(partition)
        self._count(partition, -n_bytes)
        if depth <= self.limits.resume_chunks:
            self._full.get(partition, set()).discard(camera)
        lighter = self._lightened()
        candidates = dict.fromkeys((partition, *lighter)) if was_paused else lighter
        return [name for name in candidates if not self.is_paused(name)]

    def forget(self, partition: str) -> list[str]:
        """Forget a partition that was given up; gives the others that must be resumed now."""
        self._full.pop(partition, None)
        self._heavy.pop(partition, None)
        self._n_bytes -= self._bytes.pop(partition, 0)
        return [name for name in self._lightened() if not self.is_paused(name)]

    def is_paused(self, partition: str) -> bool:
        """True if a camera of this partition is full, or the partition brought too many bytes."""
        return bool(self._full.get(partition)) or partition in self._heavy

    def _count(self, partition: str, n_bytes: int) -> None:
        self._bytes[partition] = self._bytes.get(partition, 0) + n_bytes
        self._n_bytes += n_bytes

    def _lightened(self) -> list[str]:
        """The partitions that were paused for bytes, if so few are left that none need be."""
        if self._n_bytes > self.limits.full_bytes // 2:
            return []
        lighter = list(self._heavy)
        self._heavy.clear()
        return lighter
