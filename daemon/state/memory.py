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

    def low_offset(self, partition: str) -> int | None:
        """See ``StateStore``."""
        mine = (row.low_offset for row in self._rows.values() if row.partition == partition)
        return min((offset for offset in mine if offset is not None), default=None)

    def close(self) -> None:
        """See ``StateStore``; there is nothing to close."""
