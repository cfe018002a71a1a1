"""What the worker logs of a camera's life says enough: its replay gives the events it gave."""

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import structlog

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.decoding.threads import ThreadDecoder
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.journal.base import CameraPast, CameraState, FeatureRows
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.replay.batches import Replay
from daemon.replay.camera import ReplayModel
from daemon.replay.period import LoggedRows, Period
from daemon.sources.base import Delivery, Position
from daemon.stream.beginning import Beginning
from daemon.stream.stages import WorkerParts
from daemon.stream.steps import Outcome
from daemon.stream.worker import StreamWorker
from engine.errors import CorruptChunkError
from engine.types import ActionEvent, Reason, VideoChunk
from engine.video.frames import PyAvDecoder
from tests.support.scripted import SmoothingLocalizer
from tests.support.swaps import a_model, busy_chunks


@dataclass(slots=True)
class Life:
    """A camera's worker, restarted now and then, and all that followed."""

    parts: WorkerParts
    published: list[ActionEvent] = field(default_factory=list)
    logged: list[FeatureRows] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    state: CameraState | None = None
    worker: StreamWorker | None = None

    async def begin(self) -> None:
        if self.worker is not None:
            self.worker.close()
        past = None if self.state is None else CameraPast(self.state, tuple(self.logged))
        next_offset = len(self.deliveries)
        self.worker = StreamWorker("cam", self.parts, Beginning(past, next_offset))
        self.keep(await self.worker.begin())
        low = None if self.state is None else self.state.low_offset
        for delivery in self.deliveries[next_offset if low is None else low :]:
            self.keep(await self.worker.process(delivery))

    async def get(self, chunk: VideoChunk, error: CorruptChunkError | None = None) -> None:
        position = Position("p", len(self.deliveries))
        delivery = Delivery(position, "cam", None if error else chunk, error)
        self.deliveries.append(delivery)
        assert self.worker is not None
        self.keep(await self.worker.process(delivery))

    async def fall_silent(self) -> None:
        assert self.worker is not None
        self.keep(await self.worker.fall_silent())

    def keep(self, outcome: Outcome) -> None:
        self.published += outcome.revisions
        self.logged += outcome.features
        self.state = outcome.state or self.state


@asynccontextmanager
async def a_life(model: OpenModel) -> AsyncIterator[tuple[Life, ModelSlot]]:
    metrics, calls, slot = Metrics(), RunningCalls(SystemClock()), ModelSlot(model)
    device = Device(BatchPolicy(4), metrics, calls)
    serving = asyncio.create_task(device.serve())
    with ThreadPoolExecutor(1) as pool:
        parts = WorkerParts(
            models=slot,
            device=device,
            metrics=metrics,
            calls=calls,
            clock=SystemClock(),
            log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[lambda *_: ""]),
            new_decoder=lambda spec: ThreadDecoder(
                PyAvDecoder(spec.geometry, spec.grid), pool, calls
            ),
        )
        life = Life(parts)
        yield life, slot
        if life.worker is not None:
            life.worker.close()
    serving.cancel()
    device.close()


def replayed(life: Life, model: OpenModel) -> list[ActionEvent]:
    what = ReplayModel(model.spec, model.class_indices, model.feature_id)
    replay = Replay(what, SmoothingLocalizer(), Period(), 5)
    for rows in life.logged:
        replay.push(LoggedRows(rows, 0))
    replay.settle()
    return [one for run in replay.runs for one in run.revisions]


@pytest.mark.parametrize("seed", range(6))
async def test_gaps_silence_new_runs_and_restarts_replay_as_they_were(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    model = a_model("a", hop_snippets=rng.choice([1, 2, 3]))
    async with a_life(model) as (life, _slot):
        await life.begin()
        for n_run in range(3):
            for chunk in busy_chunks():
                this = replace(chunk, run=f"run-{n_run}", anchor_us=1_780_000_000_000_000)
                what = rng.choice(["", "", "", "", "lost", "corrupt", "silent", "restart"])
                if what == "restart":
                    await life.begin()
                if what == "silent":
                    await life.fall_silent()
                if what != "lost":
                    await life.get(this, CorruptChunkError("bad") if what == "corrupt" else None)

        assert life.published == replayed(life, model)
    reasons = {event.reason for event in life.published}
    assert len(life.published) > 30
    assert reasons & {Reason.GAP, Reason.SILENT, Reason.END}


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_another_model_is_told_in_the_log(*, is_restarted: bool) -> None:
    first = a_model("a")
    second = replace(
        a_model("b"), feature_id=first.feature_id, spec=replace(first.spec, model_id="b@0")
    )
    async with a_life(first) as (life, slot):
        await life.begin()
        for n, chunk in enumerate(busy_chunks()):
            if n == 3:  # an event is open
                slot.put(second)
                if is_restarted:
                    await life.begin()
            await life.get(chunk)

    markers = [rows.closed for rows in life.logged if rows.closed]
    of_first = [event for event in life.published if event.model_id == "a@0"]
    again = replayed(life, first)[: len(of_first)]
    assert [Reason.MODEL, Reason.END] == markers
    assert Reason.MODEL is of_first[-1].reason
    assert of_first[0].event_id == again[0].event_id
    if not is_restarted:  # at a restart, the model that is gone cannot answer its last window
        assert of_first == again
