"""A store without I/O: nothing survives the process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Row:
    partition: str
    low_offset: int | None
    blob: bytes


class MemoryStateStore:
    """Keeps the newest blob of each camera."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def load(self, camera: str) -> bytes | None:
        """See ``StateStore``."""
        row = self._rows.get(camera)
        return row.blob if row else None

    def save(self, camera: str, partition: str, low_offset: int | None, blob: bytes) -> None:
        """See ``StateStore``."""
        self._rows[camera] = _Row(partition, low_offset, bytes(blob))

    def low_offsets(self) -> dict[str, int]:
        """See ``StateStore``."""
        lowest: dict[str, int] = {}
        for row in self._rows.values():
            if row.low_offset is not None:
                known = lowest.get(row.partition, row.low_offset)
                lowest[row.partition] = min(known, row.low_offset)
        return lowest

    def close(self) -> None:
        """See ``StateStore``; there is nothing to close."""
