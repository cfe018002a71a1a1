"""Queue depths → which partitions to pause and which to resume. Pure.

Every camera has a short queue of chunks. A partition is paused as soon as the queue of one of its
cameras is full, and resumed once all of them are nearly empty. So a slow machine leaves chunks in
the broker and not in memory, and a camera's backlog holds up only the cameras of its partition.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """When to pause and resume; the two differ, so that a partition does not go to and fro.

    Attributes:
        full_chunks: A camera with so many chunks in its queue is full.
        resume_chunks: A full camera with no more than so many is not full any more.
    """

    full_chunks: int = 4
    resume_chunks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.resume_chunks < self.full_chunks:
            raise ValueError(
                f"resume_chunks is {self.resume_chunks}, wanted 0..{self.full_chunks - 1}"
            )


@dataclass(slots=True)
class FlowControl:
    """Remembers which cameras are full.

    Attributes:
        limits: When to pause and resume.
    """

    limits: FlowLimits
    _full: dict[str, set[str]] = field(default_factory=dict)

    def queued(self, partition: str, camera: str, depth: int) -> bool:
        """Take note of a queued chunk; True if the partition must be paused now.

        Args:
            partition: Where the chunk came from.
            camera: Its camera.
            depth: Chunks in the camera's queue now.
        """
        if depth < self.limits.full_chunks:
            return False
        full = self._full.setdefault(partition, set())
        is_first = not full
        full.add(camera)
        return is_first

    def taken(self, partition: str, camera: str, depth: int) -> bool:
        """Take note of a finished chunk; True if the partition must be resumed now.

        Args:
            partition: Where the chunk came from.
            camera: The chunk's camera.
            depth: Chunks in the camera's queue now.
        """
        full = self._full.get(partition)
        if depth > self.limits.resume_chunks or not full or camera not in full:
            return False
        full.discard(camera)
        return not full

    def forget(self, partition: str) -> None:
        """Forget a partition that was given up."""
        self._full.pop(partition, None)

    def is_paused(self, partition: str) -> bool:
        """True if a camera of this partition is full."""
        return bool(self._full.get(partition))
