"""A camera's worker, and what its failures cost: the camera's run, and no other camera anything.

A fault of this code, a damaged state or footage that ends a decoder may show anywhere inside a
worker. What was kept is sound, for a worker's only way out is an ``Outcome``. So the worker is
given up, another one begins where the last outcome left off, and the delivery becomes a dead
letter. A camera to which this happens again within minutes, or that was never any good, is in
quarantine for a while: its deliveries become dead letters untried.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from daemon.errors import CameraFailedError, TransportError
from daemon.journal.base import CameraPast, CameraState
from daemon.sources.base import Delivery
from daemon.stream.beginning import Beginning
from daemon.stream.stages import WorkerParts
from daemon.stream.status import StreamFacts
from daemon.stream.steps import Outcome
from daemon.stream.strikes import Strikes
from daemon.stream.worker import StreamWorker
from engine.errors import DecoderLostError, DeviceError, QuarantineError

# These are of the whole daemon, whichever camera meets them first.
NOT_THE_CAMERAS = (DeviceError, TransportError)


class GuardedWorker:
    """A ``StreamWorker`` that may fail; see there for what its methods do.

    Args:
        camera: The camera.
        parts: What all cameras share.
        beginning: Where it begins.
    """

    def __init__(self, camera: str, parts: WorkerParts, beginning: Beginning) -> None:
        self.camera = camera
        self._parts = parts
        self._log = parts.log.bind(camera=camera)
        self._strikes = Strikes()
        self._is_proven = beginning.past is not None
        self._next_offset = beginning.next_offset
        self._state: CameraState | None = beginning.past.state if beginning.past else None
        self._worker = self._begun(beginning)

    @property
    def knows_nothing(self) -> bool:
        """True if nothing that the camera has sent could be used."""
        return self._worker.knows_nothing

    @property
    def facts(self) -> StreamFacts:
        """What others are told of the camera."""
        return self._worker.facts

    async def begin(self) -> Outcome:
        """See ``StreamWorker``."""
        return await self._guarded(self._worker.begin)

    async def take_over(self) -> Outcome:
        """See ``StreamWorker``.

        Raises:
            DeviceError: The accelerator failed.
        """
        return await self._guarded(self._worker.take_over)

    async def fall_silent(self) -> Outcome:
        """See ``StreamWorker``.

        Raises:
            DeviceError: The accelerator failed.
        """
        return await self._guarded(self._worker.fall_silent)

    async def process(self, delivery: Delivery) -> Outcome:
        """See ``StreamWorker``; a camera in quarantine gets nothing but dead letters.

        Raises:
            DeviceError: The accelerator failed.
        """
        left_s = self._strikes.left_s(self._parts.clock.monotonic_s())
        if left_s:
            error = QuarantineError(f"camera {self.camera} is in quarantine for {left_s:.0f} s")
            return self._worker.refuse(delivery, error)
        outcome = await self._guarded(lambda: self._worker.process(delivery), delivery)
        self._next_offset = max(self._next_offset, delivery.position.offset + 1)
        if self._worker.is_too_slow:
            self._log.warning("camera.too_slow", offset=delivery.position.offset)
            self._strike()
        elif outcome.state is not None and not outcome.dead:
            self._is_proven = True
        return outcome

    def close(self) -> None:
        """Free the decoder and give the model back."""
        self._worker.close()

    async def _guarded(
        self, work: Callable[[], Awaitable[Outcome]], delivery: Delivery | None = None
    ) -> Outcome:
        try:
            outcome = await work()
        except NOT_THE_CAMERAS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, other cameras go on
            outcome = self._begin_again(error, delivery)
        if any(letter.error == DecoderLostError.__name__ for letter in outcome.dead):
            self._strike()
        if outcome.state is not None:
            self._state = outcome.state
        return outcome

    def _begin_again(self, error: Exception, delivery: Delivery | None) -> Outcome:
        """Give the worker up; the next one owes the last words of what was open."""
        self._tell(error, delivery)
        self._strike()
        self._worker.close()
        offset = self._next_offset if delivery is None else delivery.position.offset + 1
        past = None if self._state is None else CameraPast(self._state)
        self._worker = self._begun(Beginning(past, offset, is_over=True))
        outcome = self._worker.restated()
        if delivery is None:
            return outcome
        what = CameraFailedError(f"{type(error).__name__}: {error}")
        return replace(outcome, dead=self._worker.refuse(delivery, what).dead)

    def _begun(self, beginning: Beginning) -> StreamWorker:
        try:
            return StreamWorker(self.camera, self._parts, beginning)
        except NOT_THE_CAMERAS:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._tell(error, None)
            return StreamWorker(self.camera, self._parts, Beginning(None, beginning.next_offset))

    def _tell(self, error: Exception, delivery: Delivery | None) -> None:
        self._parts.metrics.camera_failures.labels(self.camera).inc()
        self._log.error(
            "camera.failed",
            error=type(error).__name__,
            reason=str(error),
            partition=delivery.position.partition if delivery else None,
            offset=delivery.position.offset if delivery else None,
            exc_info=error,
        )

    def _strike(self) -> None:
        pause_s = self._strikes.strike(self._parts.clock.monotonic_s(), is_proven=self._is_proven)
        if pause_s:
            self._parts.metrics.quarantines.labels(self.camera).inc()
            self._log.error("camera.quarantined", for_s=pause_s)
