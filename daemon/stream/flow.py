"""Queue depths → which partitions to pause and which to resume. Pure.

Every camera has a short queue of chunks. A partition is paused while any camera on it is full and
resumed once all of them are nearly empty, so a slow box leaves chunks in the broker, not in
memory, and a camera's backlog holds up only those that share its partition.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """When to pause and resume; the distance between the two keeps the switch from fluttering."""

    full_chunks: int = 4
    resume_chunks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.resume_chunks < self.full_chunks:
            raise ValueError(
                f"resume_chunks is {self.resume_chunks}, wanted 0..{self.full_chunks - 1}"
            )


@dataclass(slots=True)
class FlowControl:
    """Remembers who is full.

    Attributes:
        limits: When to pause and resume.
    """

    limits: FlowLimits
    _full: dict[str, set[str]] = field(default_factory=dict)

    def queued(self, partition: str, camera: str, depth: int) -> bool:
        """A chunk was queued; True if the partition must be paused now."""
        if depth < self.limits.full_chunks:
            return False
        full = self._full.setdefault(partition, set())
        is_first = not full
        full.add(camera)
        return is_first

    def taken(self, camera: str, depth: int) -> list[str]:
        """A chunk of a camera was finished; the partitions that must be resumed now.

        A camera that moved may have filled up in a partition it will never finish a chunk of.
        """
        if depth > self.limits.resume_chunks:
            return []
        freed = [partition for partition, full in self._full.items() if camera in full]
        for partition in freed:
            self._full[partition].discard(camera)
        return [partition for partition in freed if not self._full[partition]]

    def forget(self, partition: str) -> None:
        """The partition was given up."""
        self._full.pop(partition, None)

    def is_paused(self, partition: str) -> bool:
        """Is some camera of this partition full?"""
        return bool(self._full.get(partition))
