"""A whole daemon inside the test's process: real app, workers and decoder, numpy model."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from daemon.app import App
from daemon.clock import SystemClock
from daemon.device.batching import BatchPolicy
from daemon.device.calls import RunningCalls
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.sinks.base import EventSink
from daemon.sources.base import ChunkSource
from daemon.sources.memory import MemoryLog
from daemon.state.base import StateStore
from daemon.stream.flow import FlowControl, FlowLimits
from daemon.stream.worker import WorkerParts
from daemon.systemd import Notifier
from engine.cas import Localizer
from engine.features import FeatureExtractor
from engine.judging.histories import histories
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.straight_line import localize_frames
from engine.types import ActionEvent, VideoChunk
from engine.video.frames import PyAvDecoder, read_video
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec


class LogCapture:
    """What was logged: (event name, fields)."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, object]]] = []

    def logger(self) -> structlog.stdlib.BoundLogger:
        return structlog.wrap_logger(structlog.ReturnLogger(), processors=[self._keep])

    def _keep(self, _logger: object, _method: str, fields: dict[str, object]) -> str:
        self.entries.append((str(fields.pop("event")), fields))
        return ""

    def named(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.entries if event == name]


class TestDaemon:
    """Build, then ``await serve()``.

    Attributes:
        metrics: What it counted.
        logs: What it logged.
    """

    __test__ = False

    def __init__(
        self,
        source: ChunkSource,
        sink: EventSink,
        store: StateStore,
        *,
        spec: ModelSpec | None = None,
        extractor: FeatureExtractor | None = None,
        localizer: Localizer | None = None,
        max_batch: int = 4,
        max_cameras: int = 512,
    ) -> None:
        self.metrics = Metrics()
        self.logs = LogCapture()
        self._spec = spec or a_spec()
        calls = RunningCalls(SystemClock())
        self._device = Device(BatchPolicy(max_batch), self.metrics, calls)
        self._pool = ThreadPoolExecutor(2)
        model = OpenModel(
            self._spec,
            None,
            extractor or MeanColourExtractor(),
            localizer or SmoothingLocalizer(),
        )
        self.models = ModelSlot(model)
        parts = WorkerParts(
            models=self.models,
            device=self._device,
            decode_pool=self._pool,
            sink=sink,
            store=store,
            metrics=self.metrics,
            calls=calls,
            clock=SystemClock(),
            log=self.logs.logger(),
            new_decoder=lambda spec: PyAvDecoder(spec.geometry, spec.grid),
        )
        self.app = App(
            source=source,
            device=self._device,
            parts=parts,
            flow=FlowControl(FlowLimits()),
            notifier=Notifier({}),
            drain_timeout_s=30,
            max_cameras=max_cameras,
        )

    async def serve(self) -> None:
        try:
            await self.app.serve()
        finally:
            self._device.close()
            self._pool.shutdown()

    def count(self, name: str, **labels: str) -> float:
        """A metric's value, 0 if it was never touched."""
        return self.metrics.registry.get_sample_value(f"s2netd_{name}", labels) or 0


def a_log(*chunks: VideoChunk) -> MemoryLog:
    """Each camera's chunks in a partition of its own, and no more to come."""
    log = MemoryLog()
    for chunk in chunks:
        log.append(chunk.camera, chunk)
    log.finish()
    return log


def straight_line(clip: Path, camera: str) -> list[ActionEvent]:
    """What a daemon must say of a clip: the same model, without daemon or chunks."""
    spec = a_spec()
    batches = read_video(clip, spec.geometry, spec.grid)
    session = StreamSession(camera, "file", spec)
    result = localize_frames(batches, session, MeanColourExtractor(), SmoothingLocalizer())
    return list(result.revisions)


def final_of(records: Sequence[ActionEvent]) -> dict[str, ActionEvent]:
    """The last record of each event id."""
    return {event.last.event_id: event.last for event in histories(records)}
