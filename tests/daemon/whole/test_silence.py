"""Cameras that send nothing: their events get a last word, and in the end they are forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from typing_extensions import override

from daemon.cameras import CameraLimits
from daemon.holdings import REFUSED_CAMERAS
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.errors import CorruptChunkError
from engine.types import ActionEvent, Reason, VideoChunk
from tests.support.daemons import HeldCamera, TestDaemon, final_of, straight_line
from tests.support.footage import chunks_of
from tests.support.swaps import check_grammar

NEVER_S = 1e6
SILENT = CameraLimits(silent_after_s=0.1, look_s=0.02)
FORGETFUL = CameraLimits(most=1, silent_after_s=0.1, forget_after_s=0.5, look_s=0.02)
PATIENT = CameraLimits(silent_after_s=NEVER_S)


class BusySource(MemoryChunkSource):
    """Says of some partitions that more waits to be read, so that no camera of theirs ages."""

    def __init__(self, log: MemoryLog, busy: set[str]) -> None:
        super().__init__(log)
        self._busy = busy

    @override
    def is_caught_up(self, partition: str) -> bool:
        return partition not in self._busy and super().is_caught_up(partition)


@dataclass
class World:
    """A log and what is kept; daemons come and go. In ``busy`` partitions no time passes."""

    log: MemoryLog = field(default_factory=MemoryLog)
    kept: MemoryRecords = field(default_factory=MemoryRecords)
    busy: set[str] = field(default_factory=set)

    @property
    def events(self) -> list[ActionEvent]:
        return self.kept.events

    def put(self, chunks: list[VideoChunk], partition: str = "p") -> None:
        for chunk in chunks:
            self.log.append(partition, chunk)

    @asynccontextmanager
    async def daemon(self, cameras: CameraLimits) -> AsyncIterator[TestDaemon]:
        """A daemon that serves until the block ends."""
        source = BusySource(self.log, self.busy)
        daemon = TestDaemon(source, MemoryJournal(self.kept), cameras=cameras)
        async with asyncio.timeout(240):
            serving = asyncio.create_task(daemon.serve())
            yield daemon
            daemon.app.stop()
            await serving

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0.005)

    def is_over(self) -> bool:
        """True if there were events, and all are final."""
        last = final_of(self.events).values()
        return bool(last) and all(record.final for record in last)


@pytest.fixture
def chunks(odd_clip: Path) -> list[VideoChunk]:
    return chunks_of(odd_clip, "cam", chunk_s=0.5)


async def test_a_camera_that_falls_silent_ends_its_events_and_may_return_in_the_same_run(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    world = World()
    async with world.daemon(SILENT) as daemon:
        world.put(chunks[:5])
        await world.until(world.is_over)
        (last,) = final_of(world.events).values()
        assert Reason.SILENT is last.reason
        assert 1 == daemon.count("silent_cameras_total", camera="cam")

        world.put(chunks[5:])
        await world.until(lambda: world.kept.next_offset("p") == len(chunks))

    check_grammar(world.events)
    assert straight_line(odd_clip, "cam")[-1] == world.events[-1]
    assert len(chunks) - 1 == daemon.count("chunks_total", camera="cam")
    assert not daemon.logs.named("chunk.dropped")


async def test_a_camera_is_silent_once_until_it_sends_something(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    world.put(chunks[:5])
    async with world.daemon(SILENT) as daemon:
        await world.until(world.is_over)
        await asyncio.sleep(0.4)

    assert 1 == daemon.count("silent_cameras_total", camera="cam")


async def test_a_camera_that_sends_nothing_after_a_restart_gets_its_last_word_too(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    world.put(chunks[:5])
    async with world.daemon(PATIENT) as daemon:
        await daemon.app.finished(5)
    assert not world.is_over()

    async with world.daemon(SILENT):
        await world.until(world.is_over)

    check_grammar(world.events)
    assert [Reason.SILENT] == [r.reason for r in world.events if r.final]


async def test_a_restart_after_a_silence_reads_nothing_again(chunks: list[VideoChunk]) -> None:
    world = World()
    world.put(chunks[:5])
    async with world.daemon(SILENT):
        await world.until(world.is_over)
    n_events = len(world.events)

    async with world.daemon(PATIENT) as again:
        await asyncio.sleep(0.1)

    assert 0 == again.count("chunks_total", camera="cam")
    assert n_events == len(world.events)


async def test_a_camera_that_is_slow_is_not_silent(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    """Its chunk is in hand for long, or it waits in the queue or in the log."""
    world = World()
    async with world.daemon(SILENT) as daemon:
        held = HeldCamera(daemon, "cam")
        held.is_held = True
        world.put(chunks)
        await held.inside.wait()
        await asyncio.sleep(0.4)
        held.let_go()
        await world.until(lambda: world.kept.next_offset("p") == len(chunks))

    assert straight_line(odd_clip, "cam") == world.events


async def test_the_last_chunk_in_hand_is_no_silence(chunks: list[VideoChunk]) -> None:
    world = World()
    async with world.daemon(SILENT) as daemon:
        held = HeldCamera(daemon, "cam")
        held.is_held = True
        world.put(chunks[:1])
        await held.inside.wait()
        await asyncio.sleep(0.4)
        held.let_go()
        world.put(chunks[1:2])
        await daemon.app.finished(2)
        assert 0 == daemon.count("silent_cameras_total", camera="cam")


class BlinkingSource(MemoryChunkSource):
    """It cannot be asked for more at every tenth look, until it is told otherwise."""

    n_looks = 0
    blinks = True

    @override
    def is_blind(self, partition: str) -> bool:
        self.n_looks += 1
        return self.blinks and self.n_looks % 10 == 0


async def test_silence_is_counted_anew_after_nobody_could_look(
    chunks: list[VideoChunk],
) -> None:
    """A look counts twice its time at most, so nine of them never make the time of silence."""
    world = World()
    limits = replace(SILENT, silent_after_s=0.4)
    source = BlinkingSource(world.log)
    daemon = TestDaemon(source, MemoryJournal(world.kept), cameras=limits)
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        world.put(chunks[:5])
        await daemon.app.finished(5)
        await world.until(lambda: source.n_looks > 150)
        assert 0 == daemon.count("silent_cameras_total", camera="cam")
        assert not world.is_over()

        source.blinks = False
        await world.until(world.is_over)
        assert 1 == daemon.count("silent_cameras_total", camera="cam")
        daemon.app.stop()
        await serving


async def test_others_of_a_partition_keep_no_camera_from_being_silent(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    world = World()
    others = chunks_of(odd_clip, "other", chunk_s=0.5)
    async with world.daemon(replace(SILENT, silent_after_s=0.4)):
        world.put(chunks[:5])
        for chunk in others:
            world.put([chunk])
            await asyncio.sleep(0.05)
        await world.until(lambda: world.kept.next_offset("p") == 5 + len(others))
        await world.until(
            lambda: all(r.final for r in final_of(world.events).values() if r.camera == "cam")
        )

    assert [Reason.SILENT] == [r.reason for r in world.events if r.camera == "cam" and r.final]
    seen = [r for r in world.events if r.camera == "other"]
    assert straight_line(odd_clip, "other") == seen


async def test_a_forgotten_camera_frees_its_place_and_its_state(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    world = World()
    others = chunks_of(odd_clip, "other", chunk_s=0.5)
    async with world.daemon(FORGETFUL) as daemon:
        world.busy.add("p")
        world.put(chunks[:5])
        await daemon.app.finished(5)
        world.put(others[:1])  # one camera too many
        await daemon.app.finished(6)
        assert {"cam"} == set(world.kept.partitions["p"].states)
        world.busy.clear()
        await world.until(lambda: not world.kept.partitions["p"].states)
        assert world.is_over()
        assert not world.kept.partitions["p"].features.get("cam")
        await world.until(lambda: not daemon.app.is_ready()[1]["cameras"])

        world.put(others)
        await daemon.app.finished(6 + len(others))
        assert {"other"} == set(world.kept.partitions["p"].states)

    assert 1 == len(daemon.logs.named("chunk.dropped"))
    seen = [r for r in world.events if r.camera == "other"]
    assert straight_line(odd_clip, "other") == seen


async def test_names_that_somebody_made_up_give_their_places_back_once_they_are_silent(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    """Each of them has sent a chunk that decodes, so each has earned a place."""
    world, n_junk = World(), 3
    limits = CameraLimits(most=n_junk, silent_after_s=0.1, look_s=0.02)
    template = chunks_of(odd_clip, "junk", chunk_s=0.5)[0]
    async with world.daemon(limits) as daemon:
        world.put([replace(template, camera=f"junk-{number}") for number in range(n_junk)])
        await daemon.app.finished(n_junk)
        states = world.kept.partitions["p"].states.values()
        await world.until(lambda: all(state.silent_since_us is not None for state in states))
        world.put(chunks, "q")
        await daemon.app.finished(n_junk + len(chunks))
        await world.until(lambda: len(world.kept.partitions["p"].states) == n_junk - 1)

    assert not daemon.logs.named("chunk.dropped")
    assert 1 == len(daemon.logs.named("camera.let_go"))
    assert straight_line(odd_clip, "cam") == [e for e in world.events if e.camera == "cam"]


async def test_those_that_were_refused_take_no_place(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    """More of them wait, so they are not forgotten; a place becomes free all the same."""
    world, others = World(), chunks_of(odd_clip, "other", chunk_s=0.5)
    junk = chunks_of(odd_clip, "junk", chunk_s=0.5)[:1]
    async with world.daemon(FORGETFUL) as daemon:
        world.busy.update(("p", "q"))
        world.put(chunks[:2], "p")
        await daemon.app.finished(2)
        world.put(junk, "q")
        await daemon.app.finished(3)
        assert 1 == len(daemon.logs.named("chunk.dropped"))
        world.busy.remove("p")
        await world.until(lambda: not world.kept.partitions["p"].states)
        world.put(others, "r")
        await daemon.app.finished(3 + len(others))
        assert {REFUSED_CAMERAS, "other"} == set(daemon.app.is_ready()[1]["cameras"])

    seen = [r for r in world.events if r.camera == "other"]
    assert straight_line(odd_clip, "other") == seen


async def test_a_forgotten_camera_that_comes_back_begins_anew(
    odd_clip: Path, chunks: list[VideoChunk]
) -> None:
    world = World()
    async with world.daemon(FORGETFUL) as daemon:
        world.put(chunks[:5])
        await daemon.app.finished(5)
        await world.until(lambda: not world.kept.partitions["p"].states)
        world.put(chunks[5:])
        await daemon.app.finished(len(chunks))

    check_grammar(world.events)
    assert straight_line(odd_clip, "cam")[-1] == world.events[-1]


async def test_junk_names_are_forgotten(odd_clip: Path) -> None:
    world = World()
    async with world.daemon(FORGETFUL) as daemon:
        world.log.append_bad("junk", CorruptChunkError("bad"))
        await daemon.app.finished(1)
        await world.until(lambda: not daemon.app.is_ready()[1]["cameras"])
        world.put(chunks_of(odd_clip, "cam", chunk_s=0.5))
        await daemon.app.finished(26)

    assert straight_line(odd_clip, "cam") == world.events
