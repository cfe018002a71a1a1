"""The partitions that a process holds, and the cameras in them: who has a place, who is shown."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import structlog

from daemon.cameras import Camera
from daemon.metrics import Metrics
from daemon.sources.base import Delivery
from daemon.stream.tenure import Tenure
from engine.errors import RefusedChunkError

# Chunks of cameras beyond max_cameras are counted under this name.
REFUSED_CAMERAS = "(refused)"


@dataclass(slots=True)
class Holding:
    """A partition that is ours.

    Attributes:
        tenure: The right to it.
        next_offset: What is done below it, an owner before has done.
        cameras: Its cameras by name.
        keeping: Keeps its steps; None: not begun yet.
    """

    tenure: Tenure
    next_offset: int
    cameras: dict[str, Camera]
    keeping: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Keep nothing more; a step that a broker is just tried for is left as it is."""
        self.tenure.end()
        # It is the one that ends, where it finds that the partition is somebody else's.
        if self.keeping is not None and self.keeping is not asyncio.current_task():
            self.keeping.cancel()


class Holdings:
    """Knows them all.

    Args:
        most_cameras: There may be, for their names come from outside.
        metrics: Told of those that are known no more.
        log: Told of those that are let go.
    """

    def __init__(
        self, most_cameras: int, metrics: Metrics, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._most_cameras = most_cameras
        self._metrics = metrics
        self._log = log
        self._held: dict[str, Holding] = {}

    def __iter__(self) -> Iterator[Holding]:
        """All of them, as they are now."""
        return iter(tuple(self._held.values()))

    def of(self, partition: str) -> Holding | None:
        """That of a partition; None: it is not ours."""
        return self._held.get(partition)

    def add(self, holding: Holding) -> None:
        """Take one in."""
        self._held[holding.tenure.partition] = holding

    def remove(self, partition: str) -> Holding | None:
        """Know one no more."""
        return self._held.pop(partition, None)

    def cameras(self) -> Iterator[Camera]:
        """All that there are, partition by partition; any thread may ask."""
        for holding in self:
            yield from tuple(holding.cameras.values())

    def known_no_more(self, names: Iterable[str]) -> set[str]:
        """Those of the names that no camera has; one that changed partitions may be in both."""
        return set(names) - {camera.name for camera in self.cameras()}

    def show_alone(self, camera: Camera) -> None:
        """Of the cameras of one name in several partitions, show the one that sends."""
        if camera.name == REFUSED_CAMERAS:  # that is none
            return
        for other in self.cameras():
            if other.name == camera.name:
                other.hide()
        camera.is_shown = True

    def admitted(self, delivery: Delivery, holding: Holding) -> Delivery:
        """The delivery, refused if its camera is one too many; names come from outside."""
        if delivery.camera in holding.cameras:
            return delivery
        n_admitted = sum(camera.name != REFUSED_CAMERAS for camera in self.cameras())
        if n_admitted < self._most_cameras or self._makes_room():
            return delivery
        error = RefusedChunkError(
            f"camera {delivery.camera!r} is one more than max_cameras ({self._most_cameras})"
        )
        return replace(
            delivery,
            camera=REFUSED_CAMERAS,
            chunk=None,
            error=error,
            payload=delivery.own_bytes,
        )

    def _makes_room(self) -> bool:
        """Let a camera go of which nothing could be used, or else the one silent for longest."""
        known = [camera for camera in self.cameras() if camera.name != REFUSED_CAMERAS]
        spare = next((camera for camera in known if camera.is_spare), None)
        if spare is not None:
            spare.end()
            self.drop(spare)
            return True
        silent = max(known, key=lambda camera: camera.silent_s, default=None)
        if silent is None or not silent.silent_s:
            return False
        self._log.warning("camera.let_go", camera=silent.name, silent_s=round(silent.silent_s))
        silent.let_go()
        self.drop(silent)
        return True

    def drop(self, camera: Camera) -> None:
        """Know a camera no more that has been told to end."""
        camera.hide()
        del self._held[camera.tenure.partition].cameras[camera.name]
        self._metrics.forget(self.known_no_more({camera.name}))
