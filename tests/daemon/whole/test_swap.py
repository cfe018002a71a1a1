"""Another model takes over between two chunks: with scripted models, real workers and decoder."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.decoding.threads import ThreadDecoder
from daemon.device.requests import BatchPolicy
from daemon.device.thread import Device
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.sources.base import Delivery, Position
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.stream.beginning import Beginning
from daemon.stream.ledger import Ledger
from daemon.stream.stages import WorkerParts
from daemon.stream.steps import StepBuilder
from daemon.stream.worker import StreamWorker
from engine.types import (
    ActionEvent,
    Phase,
    Reason,
    Snippet,
)
from engine.video.frames import PyAvDecoder
from tests.support.daemons import LogCapture, TestDaemon, final_of
from tests.support.swaps import (
    N_CHUNKS,
    NAMES,
    a_model,
    busy_chunks,
    check_grammar,
)


class Crash(BaseException):
    """A kill -9: nothing of the daemon runs after it, not even what handles errors."""


@dataclass
class Fate:
    """Lets a daemon die before or after a step is kept."""

    dies_after: float = float("inf")
    n_moments: int = 0

    def moment(self) -> None:
        self.n_moments += 1
        if self.n_moments > self.dies_after:
            raise Crash


@dataclass
class World:
    """What outlives a daemon: what its journal kept.

    Attributes:
        fate: When the daemon dies.
        n_together: With how many deliveries a step is kept.
        moments_before: Chunk → moments until then.
        kept: The steps.
    """

    fate: Fate = field(default_factory=Fate)
    n_together: int = 1
    moments_before: dict[int, int] = field(default_factory=dict)
    kept: MemoryRecords = field(default_factory=MemoryRecords)

    @property
    def records(self) -> list[ActionEvent]:
        return self.kept.events

    async def commit(self, journal: MemoryJournal, steps: StepBuilder) -> None:
        if steps.is_empty:
            return
        step = steps.build()
        self.fate.moment()
        await journal.commit("cam", step)
        self.fate.moment()
        self.moments_before[step.next_offset] = self.fate.n_moments


async def run_worker(
    world: World, models: Sequence[OpenModel], swaps: dict[int, int], first: int
) -> tuple[LogCapture, Metrics, ModelSlot]:
    """One life of a daemon with one camera.

    Args:
        world: What it finds and leaves.
        models: To choose from.
        swaps: Chunk → the model that becomes current before it is processed.
        first: The model it starts with.
    """
    metrics, calls, logs = Metrics(), RunningCalls(SystemClock()), LogCapture()
    device = Device(BatchPolicy(4), metrics, calls)
    slot = ModelSlot(models[first])
    serving = asyncio.create_task(device.serve())
    journal = MemoryJournal(world.kept)
    past = await journal.take("cam")
    next_offset = past.next_offset or 0
    low = past.first_offset(next_offset)
    steps = StepBuilder(Ledger(next_offset, low), past.number)
    with ThreadPoolExecutor(1) as pool:
        worker = StreamWorker(
            "cam",
            WorkerParts(
                models=slot,
                device=device,
                metrics=metrics,
                calls=calls,
                clock=SystemClock(),
                log=logs.logger(),
                new_decoder=lambda spec: ThreadDecoder(
                    PyAvDecoder(spec.geometry, spec.grid), pool, calls
                ),
            ),
            Beginning(past.cameras.get("cam"), next_offset),
        )
        try:
            steps.add("cam", await worker.begin())
            await world.commit(journal, steps)
            for offset in range(low, len(busy_chunks())):
                if offset in swaps and offset >= next_offset:
                    slot.put(models[swaps[offset]])
                chunk = busy_chunks()[offset]
                steps.ledger.begin(offset)
                outcome = await worker.process(Delivery(Position("cam", offset), "cam", chunk))
                steps.add("cam", outcome, offset)
                if steps.n_deliveries >= world.n_together:
                    await world.commit(journal, steps)
            await world.commit(journal, steps)
        finally:
            serving.cancel()
            worker.close()
            device.close()
    return logs, metrics, slot


def model_at(swaps: dict[int, int], offset: int) -> int:
    """The model that was wanted last when a chunk was up."""
    return swaps[max((at for at in swaps if at <= offset), default=0)] if swaps else 0


def live(world: World, models: Sequence[OpenModel], swaps: dict[int, int]) -> None:
    """A whole run without a crash."""
    asyncio.run(run_worker(world, models, swaps, 0))


def live_with_a_crash(world: World, models: Sequence[OpenModel], swaps: dict[int, int]) -> None:
    """A run that dies where ``world.fate`` says, and the next, with what was wanted by then."""
    with suppress(Crash):
        asyncio.run(run_worker(world, models, swaps, 0))
    world.fate.dies_after = float("inf")
    wanted = model_at({0: 0, **swaps}, world.kept.next_offset("cam"))
    asyncio.run(run_worker(world, models, swaps, wanted))


swap_plans = st.dictionaries(
    st.integers(0, N_CHUNKS - 1), st.integers(0, len(NAMES) - 1), min_size=1, max_size=6
)


@given(swap_plans, st.sampled_from([1, 2]))
@settings(max_examples=25)
def test_events_are_whole_and_no_chunk_is_lost_whatever_is_swapped(swaps, hop_snippets):
    models = [a_model(name, hop_snippets=hop_snippets) for name in NAMES]
    world = World()

    logs, metrics, slot = asyncio.run(run_worker(world, models, swaps, 0))

    check_grammar(world.records)
    chunks = busy_chunks()
    assert len(chunks) - 1 == metrics.registry.get_sample_value(
        "s2netd_chunks_total", {"camera": "cam"}
    )
    assert not logs.named("chunk.dropped")
    assert not logs.named("chunk.duplicate")
    assert [models[model_at({0: 0, **swaps}, len(chunks))]] == list(slot.models)
    for model, spans in shown_to(models, swaps).items():
        for snippet in model.extractor.seen:  # type: ignore[attr-defined]
            assert any(
                start_us <= snippet.span.start_us and snippet.span.end_us <= end_us
                for start_us, end_us in spans
            ), f"{model.spec.model_id} was shown footage of another's"


def shown_to(
    models: Sequence[OpenModel], swaps: dict[int, int]
) -> dict[OpenModel, list[tuple[int, int]]]:
    """Model → the footage between the swap that made it current and the next one."""
    chunks = busy_chunks()
    plan = {0: 0, **swaps}
    runs = [(0, plan[0])]
    for at in sorted(plan)[1:]:
        if plan[at] != runs[-1][1]:
            runs.append((at, plan[at]))
    spans: dict[OpenModel, list[tuple[int, int]]] = {model: [] for model in models}
    for (at, number), (end, _next) in pairwise([*runs, (len(chunks) - 1, -1)]):
        # A frame is shown up to the next one's time, which may lie in the next chunk.
        spans[models[number]].append((chunks[at].start_us, chunks[end].start_us + 40_000))
    return spans


def test_the_boundary_shows_in_the_events():
    at = next(n for n, chunk in enumerate(busy_chunks()) if chunk.start_us >= 2_000_000)
    models, world = [a_model(name) for name in NAMES], World()

    live(world, models, {at: 1})

    boundary_us = busy_chunks()[at].start_us
    (cut,) = [record for record in world.records if record.reason is Reason.MODEL]
    assert ("a@0", Phase.CLOSED, "red") == (cut.model_id, cut.phase, cut.class_name)
    assert cut.span.end_us <= boundary_us
    assert {"a@0"} == {r.model_id for r in world.records if r.decided_us <= boundary_us}
    later = [r for r in world.records if r.decided_us > boundary_us]
    assert {"b@0"} == {r.model_id for r in later}
    # What was going on at the boundary goes on under the new model, as an event of its own.
    assert boundary_us <= later[0].span.start_us < boundary_us + 200_000
    assert "red" == later[0].class_name


@pytest.mark.parametrize("at", range(N_CHUNKS))
def test_a_swap_gives_what_a_restart_with_the_other_model_gives(at):
    models = [a_model(name) for name in NAMES]
    swapped, restarted = World(), World()

    live(swapped, models, {at: 1})
    restarted_models = [a_model(name) for name in NAMES]
    stop_at(restarted, restarted_models, at)
    asyncio.run(run_worker(restarted, restarted_models, {}, 1))

    assert swapped.records == restarted.records
    assert footage_shown_to(models[1]) == footage_shown_to(restarted_models[1])


def footage_shown_to(model: OpenModel) -> list[tuple[int, bytes]]:
    seen: list[Snippet] = model.extractor.seen  # type: ignore[attr-defined]
    return [(snippet.index, snippet.rgb.tobytes()) for snippet in seen]


def stop_at(world: World, models: Sequence[OpenModel], at: int) -> None:
    """A first life that ends in order before a chunk."""
    if at == 0:
        return
    world.fate.dies_after = 2 * at - 1  # after the step of the chunk before is kept
    with suppress(Crash):
        asyncio.run(run_worker(world, models, {}, 0))
    world.fate.dies_after = float("inf")
    assert at == world.kept.next_offset("cam")


def test_a_crash_at_every_moment_around_a_swap_changes_no_record():
    at = next(n for n, chunk in enumerate(busy_chunks()) if chunk.start_us >= 2_000_000)
    swaps = {at: 1}
    whole = World()
    live(whole, [a_model(name) for name in NAMES], swaps)
    assert Reason.MODEL in {record.reason for record in whole.records}

    for dies_after in range(whole.moments_before[at - 1], whole.moments_before[at + 2]):
        world = World(Fate(dies_after))
        live_with_a_crash(world, [a_model(name) for name in NAMES], swaps)

        assert whole.records == world.records, f"died after moment {dies_after}"


@given(swap_plans, st.floats(0, 1), st.integers(1, 4))
@settings(max_examples=25)
def test_a_crash_anywhere_among_swaps_changes_no_record(swaps, share, n_together):
    whole = World(n_together=n_together)
    live(whole, [a_model(name) for name in NAMES], swaps)

    world = World(Fate(int(share * whole.fate.n_moments)), n_together)
    live_with_a_crash(world, [a_model(name) for name in NAMES], swaps)

    assert whole.records == world.records


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_crash_at_a_swap_tears_no_event_whichever_model_comes_after_it(wanted):
    """Here the old model's last window moves an event before it is cut off."""
    at = next(n for n, chunk in enumerate(busy_chunks()) if chunk.start_us >= 2_000_000)
    whole = World()
    live(whole, [a_model(name, hop_snippets=4) for name in NAMES], {at: 1})
    first, last = whole.moments_before[at], whole.moments_before[at + 1]
    (cut,) = (n for n, record in enumerate(whole.records) if record.reason is Reason.MODEL)
    assert whole.records[cut - 1].decided_us % (4 * 160_000), "no window was cut short"

    for dies_after in range(first, last):
        models = [a_model(name, hop_snippets=4) for name in NAMES]
        world = World(Fate(dies_after))
        with suppress(Crash):
            asyncio.run(run_worker(world, models, {at: 1}, 0))
        world.fate.dies_after = float("inf")
        asyncio.run(run_worker(world, models, {}, wanted))

        check_grammar(world.records)


@given(swap_plans, st.floats(0, 1), st.integers(0, len(NAMES) - 1), st.integers(1, 4))
@settings(max_examples=40)
def test_a_restart_with_yet_another_model_tears_no_event(swaps, share, wanted, n_together):
    """Windows that were not yet shown make the cut records differ; none may contradict another."""
    models = [a_model(name, hop_snippets=2) for name in NAMES]
    dry = World(n_together=n_together)
    live(dry, models, swaps)
    world = World(Fate(int(share * dry.fate.n_moments)), n_together)

    with suppress(Crash):
        asyncio.run(run_worker(world, models, swaps, 0))
    world.fate.dies_after = float("inf")
    asyncio.run(run_worker(world, models, {}, wanted))

    check_grammar(world.records)


def test_other_scores_of_the_same_bundle_leave_open_events_alone():
    at = next(n for n, chunk in enumerate(busy_chunks()) if chunk.start_us >= 2_000_000)
    models, world = [a_model("a"), a_model("a", open_score=1.9)], World()
    unswapped = World()
    live(unswapped, [a_model("a")], {})

    live(world, models, {at: 1})

    assert Reason.MODEL not in {record.reason for record in world.records}
    first = unswapped.records[0].event_id
    assert [r for r in unswapped.records if r.event_id == first] == world.records


def test_a_backend_that_is_exchanged_changes_no_event():
    models, world, unswapped = [a_model("a"), a_model("a")], World(), World()
    live(unswapped, [a_model("a")], {})

    live(world, models, {n: n % 2 for n in range(N_CHUNKS)})

    assert unswapped.records == world.records
    assert all(model.extractor.seen for model in models)  # type: ignore[attr-defined]


async def test_a_camera_without_a_chunk_in_hand_goes_over_too():
    """Its open event gets its last word although nothing comes any more."""
    log, kept, closed = MemoryLog(), MemoryRecords(), []
    for chunk in busy_chunks()[:2]:
        log.append("cam", chunk)
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    daemon.models.on_unused = closed.append
    first = daemon.models.current
    serving = asyncio.create_task(daemon.serve())
    async with asyncio.timeout(240):
        await daemon.app.finished(2)
        assert [False] == [record.final for record in final_of(kept.events).values()]
        daemon.models.put(a_model("b"))
        while not closed:
            await asyncio.sleep(0.01)
    daemon.app.stop()
    await serving

    assert [first] == closed
    assert [Reason.MODEL] == [record.reason for record in final_of(kept.events).values()]


async def test_swaps_under_back_pressure_neither_stop_a_partition_nor_lose_a_chunk():
    log, kept = MemoryLog(), MemoryRecords()
    cameras = [f"cam-{n}" for n in range(4)]
    for chunk in busy_chunks():
        for camera in cameras:
            log.append("all", replace(chunk, camera=camera))
    log.finish()
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    models = [a_model(name) for name in NAMES]

    async def put_and_put() -> None:
        for n in range(10_000):
            daemon.models.put(models[n % len(models)])
            await asyncio.sleep(0.005)

    putting = asyncio.create_task(put_and_put())
    async with asyncio.timeout(240):
        await daemon.serve()
    putting.cancel()

    assert daemon.logs.named("partition.paused")
    check_grammar(kept.events)
    for camera in cameras:
        assert N_CHUNKS - 1 == daemon.count("chunks_total", camera=camera)
    assert len(cameras) * N_CHUNKS == daemon.app.progress.n_done
    assert 0 == daemon.count("paused_partitions")
