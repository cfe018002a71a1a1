"""What a chunk goes through with one model, each stage counted and timed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from daemon.calls import RunningCalls
from daemon.clock import Clock
from daemon.decoding.opening import NewDecoder
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.stream.foreign import ForeignTime
from engine.session import StreamSession
from engine.types import (
    ActionEvent,
    FeatureWindow,
    FrameBatch,
    Snippet,
    SnippetFeature,
    VideoChunk,
)

# So many seconds of computing for a chunk are never too many, however short it is.
SLOW_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all cameras share.

    Attributes:
        models: Tells which model to work with.
        device: Runs the model's networks.
        metrics: Work and faults are counted here.
        calls: Those that run now, so that one that hangs is noticed.
        clock: Measures latencies and gives deadlines on the device, no event times.
        log: Changes and faults of a camera are logged here.
        new_decoder: Makes a decoder of one camera's chunks for a model.
        foreign_time: What the time of a record without headers marks.
    """

    models: ModelSlot
    device: Device
    metrics: Metrics
    calls: RunningCalls
    clock: Clock
    log: structlog.stdlib.BoundLogger
    new_decoder: NewDecoder
    foreign_time: ForeignTime = "end"


class Stages:
    """One camera's stages with one model.

    Args:
        camera: The camera.
        parts: What all cameras share.
        model: The model; whoever gives it keeps it open.

    Attributes:
        is_too_slow: To decode the last chunk took far longer than it plays.
    """

    def __init__(self, camera: str, parts: WorkerParts, model: OpenModel) -> None:
        self.is_too_slow = False
        self._camera = camera
        self._parts = parts
        self._model = model
        self._decoder = parts.new_decoder(model.spec)
        self._deadline_s = 0.0  # when the camera will have its next snippet, by the device's clock

    def begin(self) -> None:
        """A chunk has come, and another may be here a stride later."""
        self.is_too_slow = False
        stride_s = self._model.spec.grid.stride_us / 1e6
        self._deadline_s = self._parts.clock.monotonic_s() + stride_s

    async def decode(self, chunk: VideoChunk) -> FrameBatch:
        """Chunk → frames.

        Raises:
            StreamError: As of ``ChunkDecoder``.
        """
        with self.timed("decode"):
            decoded = await self._decoder.decode(chunk)
        frames = decoded.frames
        span_s = (int(frames.pts_us[-1]) - int(frames.pts_us[0])) / 1e6
        self.is_too_slow = decoded.spent_s > max(SLOW_S, 2 * span_s)
        self._parts.metrics.frames.labels(self._camera).inc(frames.n_decoded)
        return frames

    def sample(self, frames: FrameBatch, session: StreamSession) -> list[Snippet]:
        """Frames → the snippets they complete."""
        snippets = session.sample(frames)
        self._parts.metrics.snippets.labels(self._camera).inc(len(snippets))
        return snippets

    async def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        """Snippets → features.

        Raises:
            DeviceError: The accelerator failed.
        """
        with self.timed("backbone"):
            return await self._parts.device.extract(
                self._model.extractor,
                snippets,
                camera=self._camera,
                deadline_s=self._deadline_s,
            )

    async def look(
        self, session: StreamSession, snippets: Sequence[Snippet]
    ) -> list[SnippetFeature]:
        """Snippets → the features that are known then, made with no more looks than are needed.

        Raises:
            DeviceError: The accelerator failed.
        """
        features: list[SnippetFeature] = []
        for part in session.parts(snippets):
            answers = await self.extract(session.choose(part))
            with self._spared(session):
                features += session.fill(answers)
        return features

    def release(self, session: StreamSession) -> list[SnippetFeature]:
        """The features of snippets that wait for a look, as the segment ends."""
        with self._spared(session):
            return session.release()

    @contextmanager
    def _spared(self, session: StreamSession) -> Iterator[None]:
        """Count the snippets that get features inside the ``with`` block without a look."""
        still, between = session.n_reused, session.n_interpolated
        yield
        spared = self._parts.metrics.spared_snippets
        spared.labels(self._camera, "still").inc(session.n_reused - still)
        spared.labels(self._camera, "between").inc(session.n_interpolated - between)

    async def localize(
        self, session: StreamSession, windows: list[FeatureWindow]
    ) -> list[ActionEvent]:
        """Windows → revisions of events.

        Raises:
            DeviceError: The accelerator failed.
        """
        self._parts.metrics.windows.labels(self._camera).inc(len(windows))
        with self.timed("localize"):
            cas_windows = await self._parts.device.localize(
                self._model.localizer,
                windows,
                camera=self._camera,
                deadline_s=self._deadline_s,
            )
        with self.timed("track"):
            return session.track(cas_windows)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time that is spent inside the ``with`` block."""
        started_s = self._parts.clock.monotonic_s()
        yield
        spent_s = self._parts.clock.monotonic_s() - started_s
        self._parts.metrics.stage_seconds.labels(stage).observe(spent_s)

    def close(self) -> None:
        """Free the decoder."""
        self._decoder.close()
