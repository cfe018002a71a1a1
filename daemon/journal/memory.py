"""A journal without I/O, for tests and measurements; nothing survives the process."""

from dataclasses import dataclass, field

from daemon.errors import StaleOwnerError
from daemon.journal.base import (
    CameraPast,
    CameraState,
    CameraStatus,
    DeadLetter,
    FeatureRows,
    Past,
    Step,
    features_from,
)
from engine.types import ActionEvent


@dataclass(slots=True)
class _Partition:
    owner: object | None = None
    number: int = 0
    next_offset: int | None = None
    log_id: str = ""
    states: dict[str, CameraState] = field(default_factory=dict)
    features: dict[str, list[FeatureRows]] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryRecords:
    """What journals that follow one another, or compete, share.

    Attributes:
        events: Every revision that was kept, oldest first.
        dead: Every record that could not be used.
        partitions: The rest, by partition.
        statuses: Every status that was kept, oldest first.
    """

    events: list[ActionEvent] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    partitions: dict[str, _Partition] = field(default_factory=dict)
    statuses: list[CameraStatus] = field(default_factory=list)

    def next_offset(self, partition: str) -> int:
        """The first offset that no step covers."""
        known = self.partitions.get(partition)
        return (known.next_offset or 0) if known else 0


class MemoryJournal:
    """Keeps steps in lists.

    Args:
        records: What an earlier journal kept; none by default.
    """

    def __init__(self, records: MemoryRecords | None = None) -> None:
        self.records = records or MemoryRecords()

    async def start(self) -> None:
        """See ``Journal``; there is nothing to open."""

    async def take(self, partition: str) -> Past:
        """See ``Journal``."""
        kept = self.records.partitions.setdefault(partition, _Partition())
        kept.owner = self
        cameras = {
            camera: CameraPast(state, tuple(kept.features.get(camera, ())))
            for camera, state in kept.states.items()
        }
        return Past(kept.number, kept.next_offset, kept.log_id, cameras=cameras)

    async def commit(self, partition: str, step: Step) -> None:
        """See ``Journal``."""
        kept = self.records.partitions[partition]
        if kept.owner is not self:
            raise StaleOwnerError(f"partition {partition} has another owner")
        kept.number, kept.next_offset, kept.log_id = step.number, step.next_offset, step.log_id
        self.records.events.extend(step.revisions)
        self.records.dead.extend(step.dead)
        self.records.statuses.extend(step.statuses)
        for rows in step.features:
            kept.features.setdefault(rows.camera, []).append(rows)
        for camera, state in step.states.items():
            if state is None:
                kept.states.pop(camera, None)
            else:
                kept.states[camera] = state
            needed = [r for r in kept.features.get(camera, ()) if features_from(r, state)]
            kept.features[camera] = needed

    async def give_back(self, partition: str) -> None:
        """See ``Journal``."""
        kept = self.records.partitions.get(partition)
        if kept is not None and kept.owner is self:
            kept.owner = None

    async def close(self) -> None:
        """See ``Journal``; there is nothing to close."""
