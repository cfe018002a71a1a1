"""A whole daemon inside the test's process: real app, workers and decoder, numpy model."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
from typing_extensions import override

from daemon.app import App
from daemon.calls import RunningCalls
from daemon.cameras import CameraLimits
from daemon.clock import SystemClock
from daemon.decoding.opening import NewDecoder
from daemon.decoding.threads import ThreadDecoder
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.errors import TransportError
from daemon.journal.base import Journal, Step
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.outages import Outages
from daemon.partitions import Serving
from daemon.sources.base import ChunkSource
from daemon.sources.memory import MemoryLog
from daemon.stream.flow import FlowControl, FlowLimits
from daemon.stream.stages import WorkerParts
from daemon.stream.tenure import StepLimits
from daemon.systemd import Notifier
from daemon.watch import Watch
from engine.cas import Localizer
from engine.features import FeatureExtractor
from engine.judging.histories import histories
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.straight_line import localize_frames
from engine.types import ActionEvent, CasWindow, VideoChunk
from engine.video.frames import PyAvDecoder, read_video
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec

AT_ONCE = StepLimits(interval_s=0)  # no test waits for a step


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
    """Build, then ``await serve()``, which starts the source; the journal is started already.

    Attributes:
        metrics: What it counted.
        logs: What it logged.
        device: What runs its model.
        models: Its model, and others that are to take over.
    """

    __test__ = False

    def __init__(
        self,
        source: ChunkSource,
        journal: Journal,
        *,
        spec: ModelSpec | None = None,
        extractor: FeatureExtractor | None = None,
        localizer: Localizer | None = None,
        max_batch: int = 4,
        steps: StepLimits | None = None,
        cameras: CameraLimits | None = None,
        instance: str | None = None,
        new_decoder: NewDecoder | None = None,
    ) -> None:
        self.metrics = Metrics()
        self.logs = LogCapture()
        self._spec = spec or a_spec()
        calls = RunningCalls(SystemClock())
        self.device = Device(BatchPolicy(max_batch), self.metrics, calls)
        self._pool = ThreadPoolExecutor(2)
        model = OpenModel(
            self._spec,
            None,
            extractor or MeanColourExtractor(),
            localizer or SmoothingLocalizer(),
        )
        self.models = ModelSlot(model)

        def in_a_thread(spec: ModelSpec) -> ThreadDecoder:
            return ThreadDecoder(PyAvDecoder(spec.geometry, spec.grid), self._pool, calls)

        parts = WorkerParts(
            models=self.models,
            device=self.device,
            metrics=self.metrics,
            calls=calls,
            clock=SystemClock(),
            log=self.logs.logger(),
            new_decoder=new_decoder or in_a_thread,
        )
        self.app = App(
            source=source,
            journal=journal,
            device=self.device,
            parts=parts,
            flow=FlowControl(FlowLimits()),
            notifier=Notifier({}),
            watch=Watch(Notifier({}), calls, Outages(self.logs.logger()), self.metrics),
            serving=Serving(30, steps or AT_ONCE, cameras or CameraLimits(), instance),
        )

    async def serve(self) -> None:
        try:
            await self.app.start()
            await self.app.serve()
        finally:
            self.device.close()
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


def straight_line(clip: Path, camera: str, spec: ModelSpec | None = None) -> list[ActionEvent]:
    """What a daemon must say of a clip: the same model, without daemon or chunks."""
    spec = spec or a_spec()
    batches = read_video(clip, spec.geometry, spec.grid)
    session = StreamSession(camera, "file", spec)
    result = localize_frames(batches, session, MeanColourExtractor(), SmoothingLocalizer())
    return list(result.revisions)


def final_of(records: Sequence[ActionEvent]) -> dict[str, ActionEvent]:
    """The last record of each event id."""
    return {event.last.event_id: event.last for event in histories(records)}


class HeldCamera:
    """Once told to, a daemon's device lets one camera wait for what it asked last.

    Args:
        daemon: The daemon.
        camera: The camera.
    """

    def __init__(self, daemon: TestDaemon, camera: str) -> None:
        self.is_held = False
        self.inside = asyncio.Event()
        self._waiting: list[asyncio.Event] = []
        self._camera = camera
        self._localize = daemon.device.localize
        daemon.device.localize = self._wait  # type: ignore[method-assign]

    async def until_waiting(self, n_workers: int) -> None:
        """Wait until so many workers of the camera are held."""
        while len(self._waiting) < n_workers:
            await asyncio.sleep(0.01)

    def let_first_go(self) -> None:
        """Let the worker of the camera go on that has waited longest; it is held again."""
        self._waiting.pop(0).set()

    def let_go(self) -> None:
        """Let the camera go on."""
        self.is_held = False
        while self._waiting:
            self.let_first_go()

    async def _wait(self, *work: Any, camera: str, **rest: Any) -> list[CasWindow]:
        if self.is_held and camera == self._camera:
            self._waiting.append(may_go_on := asyncio.Event())
            self.inside.set()
            await may_go_on.wait()
        return await self._localize(*work, camera=camera, **rest)


class MortalJournal(MemoryJournal):
    """The process dies at one of its commits.

    Args:
        records: What an earlier journal kept.
        n_commits: How many commits there are before.
        is_kept: It dies right after the step was kept, and otherwise right before.
    """

    def __init__(self, records: MemoryRecords, n_commits: int, *, is_kept: bool) -> None:
        super().__init__(records)
        self._n_left = n_commits
        self._is_kept = is_kept

    @override
    async def commit(self, partition: str, step: Step) -> None:
        if self._n_left > 0 or (self._n_left == 0 and self._is_kept):
            await super().commit(partition, step)
        self._n_left -= 1
        if self._n_left < 0:
            raise TransportError("the process was killed")
