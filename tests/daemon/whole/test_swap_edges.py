"""Hot swaps at bad moments: a partition that leaves, a wish that is taken back twice."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import parse_model
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.errors import TransportError
from daemon.journal.base import Step
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.metrics import Metrics
from daemon.models import opening
from daemon.models.opening import ModelOpener
from daemon.models.reading import ReadModel
from daemon.models.slot import OpenModel, ServingStatus
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.types import CasWindow, FeatureWindow, Reason
from tests.support.daemons import LogCapture, TestDaemon, final_of
from tests.support.scripted import SmoothingLocalizer, a_spec
from tests.support.swaps import a_model, busy_chunks, check_grammar
from tests.support.tiny_bundle import write_tiny_bundle


class HeldUp(SmoothingLocalizer):
    """Once told to, it answers only when it may."""

    def __init__(self) -> None:
        self.is_held = False
        self.inside = threading.Event()
        self.may_answer = threading.Event()

    @override
    def localize(self, windows: list[FeatureWindow]) -> list[CasWindow]:  # type: ignore[override]
        if self.is_held:
            self.inside.set()
            self.may_answer.wait(240)
        return super().localize(windows)


@pytest.mark.parametrize("goes_elsewhere", [False, True])
@pytest.mark.parametrize("n_before", [3, 6, 7])
async def test_a_partition_that_leaves_while_a_camera_goes_over_tears_no_event(
    n_before: int, *, goes_elsewhere: bool
) -> None:
    """It may come back to a second worker, while the first one still ends its events."""
    chunks, log, kept, localizer = busy_chunks(), MemoryLog(), MemoryRecords(), HeldUp()
    for chunk in chunks[:n_before]:
        log.append("cam", chunk)
    spec = replace(a_spec(hop_snippets=4), model_id="a@0").with_open_score(0.4)
    source = MemoryChunkSource(log)
    daemon = TestDaemon(source, MemoryJournal(kept), spec=spec, localizer=localizer)
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(n_before)
        localizer.is_held = True
        daemon.models.put(a_model("b", hop_snippets=4))
        while not localizer.inside.is_set():
            await asyncio.sleep(0.01)
        said = list(kept.events)
        await source.rebalance(goes_elsewhere=goes_elsewhere)
        await asyncio.sleep(0.05)
        if not goes_elsewhere:
            assert said == kept.events
        localizer.is_held = False
        localizer.may_answer.set()
        for chunk in chunks[n_before:]:
            log.append("cam", chunk)
        log.finish()
        await serving
    check_grammar(kept.events)
    assert len(chunks) == kept.next_offset("cam")


async def test_a_swap_during_the_drain_leaves_no_partition_paused() -> None:
    """Neither notice in the queue, of the end and of the swap, keeps the camera full."""
    log, localizer = MemoryLog(), HeldUp()
    for chunk in busy_chunks():
        log.append("cam", chunk)
    log.finish()
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(), localizer=localizer)
    localizer.is_held = True
    async with asyncio.timeout(60):
        serving = asyncio.create_task(daemon.serve())
        while not daemon.logs.named("partition.paused"):
            await asyncio.sleep(0.01)
        localizer.is_held = False
        daemon.app.stop()
        while not daemon.app.progress.draining:
            await asyncio.sleep(0)
        daemon.models.put(a_model("b"))
        localizer.may_answer.set()
        await serving

    assert 0 == daemon.count("paused_partitions")


class DyingJournal(MemoryJournal):
    """Once told to, it fails as the end of the process would."""

    is_dead = False

    @override
    async def commit(self, partition: str, step: Step) -> None:
        if self.is_dead:
            raise TransportError("the process was killed")
        await super().commit(partition, step)


async def test_the_last_words_of_a_silent_camera_are_said_after_a_crash() -> None:
    """It went over to another model, and the process died before its last words were kept."""
    chunks, log, kept = busy_chunks(), MemoryLog(), MemoryRecords()
    for chunk in chunks[:2]:
        log.append("cam", chunk)
    journal = DyingJournal(kept)
    daemon = TestDaemon(MemoryChunkSource(log), journal)
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(2)
        journal.is_dead = True
        daemon.models.put(a_model("b"))
        with pytest.raises(TransportError):
            await serving
        assert [False] == [record.final for record in final_of(kept.events).values()]

        source, spec = MemoryChunkSource(log), a_model("b").spec
        again = TestDaemon(source, MemoryJournal(kept), spec=spec)
        serving = asyncio.create_task(again.serve())
        while not kept.events[-1].final:  # though nothing comes any more
            await asyncio.sleep(0.01)
        again.app.stop()
        await serving
    check_grammar(kept.events)
    assert Reason.MODEL is kept.events[-1].reason


async def test_a_swap_that_was_not_kept_is_as_if_it_had_never_been() -> None:
    chunks, log, kept, unswapped = busy_chunks(), MemoryLog(), MemoryRecords(), MemoryRecords()
    for chunk in chunks[:2]:
        log.append("cam", chunk)
    journal = DyingJournal(kept)
    daemon = TestDaemon(MemoryChunkSource(log), journal)
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        await daemon.app.finished(2)
        journal.is_dead = True
        daemon.models.put(a_model("b"))
        with pytest.raises(TransportError):
            await serving
    for chunk in chunks[2:]:
        log.append("cam", chunk)
    log.finish()

    for records in (kept, unswapped):
        await TestDaemon(MemoryChunkSource(log), MemoryJournal(records)).serve()

    assert unswapped.events == kept.events


@pytest.mark.openvino
async def test_a_wish_given_up_twice_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a newer wish, then by the end of the daemon, while it is still being opened."""
    is_opening, may_open, closed = threading.Event(), threading.Event(), []
    really_open = opening.open_read

    def open_slowly(read: ReadModel, *rest: Any) -> OpenModel:
        is_opening.set()
        may_open.wait(240)
        model = really_open(read, *rest)
        for backend in model.backends:
            backend.close = lambda: closed.append(model)  # type: ignore[method-assign]
        return model

    monkeypatch.setattr(opening, "open_read", open_slowly)
    device = Device(BatchPolicy(4), Metrics(), RunningCalls(SystemClock()))
    opener = ModelOpener(device, ServingStatus(), lambda _words: None, LogCapture().logger())
    bundle = str(write_tiny_bundle(tmp_path / "a"))
    read = await opener.read(parse_model({"bundle": bundle, "precision": "f32", "threads": 1}))
    task = asyncio.create_task(opener.open(read))
    while not is_opening.is_set():
        await asyncio.sleep(0.01)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.05)
    assert task.done()  # a drain does not wait for a build
    may_open.set()
    await opener.settle()
    assert 2 == len(closed)
    opener.close()
    device.close()
