"""What the daemon tells of its cameras while they come, go and send what cannot be used."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from typing_extensions import override

from daemon.cameras import Camera, CameraLimits
from daemon.journal.base import CameraStatus, Presence
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.types import (
    ActionEvent,
    CasWindow,
    FeatureWindow,
    Snippet,
    SnippetFeature,
    VideoChunk,
)
from tests.support.daemons import TestDaemon, a_log
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer

SILENT = CameraLimits(silent_after_s=0.1, look_s=0.02, status_interval_s=1e6)
TALKATIVE = CameraLimits(silent_after_s=1e6, look_s=0.02, status_interval_s=0.05)
QUIET = CameraLimits(silent_after_s=1e6, look_s=0.02, status_interval_s=1e6)
FORGETFUL = CameraLimits(silent_after_s=0.05, forget_after_s=0.1, look_s=0.02)


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[VideoChunk]:
    clip = colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)
    return chunks_of(clip, "cam", chunk_s=0.5)


@dataclass
class World:
    """A log and what is kept; daemons come and go."""

    log: MemoryLog = field(default_factory=MemoryLog)
    kept: MemoryRecords = field(default_factory=MemoryRecords)

    def put(self, *chunks: VideoChunk) -> None:
        for chunk in chunks:
            self.log.append("p", chunk)

    @property
    def told(self) -> list[CameraStatus]:
        return self.kept.statuses

    @asynccontextmanager
    async def daemon(self, cameras: CameraLimits) -> AsyncIterator[TestDaemon]:
        source, journal = MemoryChunkSource(self.log), MemoryJournal(self.kept)
        daemon = TestDaemon(source, journal, cameras=cameras)
        async with asyncio.timeout(240):
            serving = asyncio.create_task(daemon.serve())
            yield daemon
            daemon.app.stop()
            await serving

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0.005)

    async def until_told(self, state: Presence) -> CameraStatus:
        await self.until(lambda: bool(self.told) and self.told[-1].state is state)
        return self.told[-1]


async def test_a_camera_is_told_of_when_it_opens_and_not_chunk_by_chunk(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    world.put(*chunks)
    async with world.daemon(QUIET) as daemon:
        await daemon.app.finished(len(chunks))

    assert len(world.told) <= 2  # the second one, if the machine is very slow
    first = world.told[0]
    assert ("cam", Presence.ONLINE, "p", 0) == (
        first.camera,
        first.state,
        first.partition,
        first.last_offset,
    )
    assert ("scripted@0", "file") == (first.model_id, first.run)
    assert first.watermark_us is not None


async def test_silence_is_told_and_that_it_is_over(chunks: list[VideoChunk]) -> None:
    world = World()
    world.put(*chunks[:3])
    async with world.daemon(SILENT):
        silent = await world.until_told(Presence.SILENT)
        world.put(chunks[3])
        online = await world.until_told(Presence.ONLINE)

    assert silent.last_chunk_us is not None
    assert silent.silent_since_us is not None
    assert silent.silent_since_us < silent.at_us
    assert (None, 3) == (online.silent_since_us, online.last_offset)


async def test_the_next_owner_says_at_once_that_the_camera_is_still_silent(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    world.put(*chunks[:3])
    async with world.daemon(SILENT):
        silent = await world.until_told(Presence.SILENT)
    n_told = len(world.told)
    async with world.daemon(QUIET):
        await world.until(lambda: len(world.told) > n_told)
        taken_over = world.told[-1]
        world.put(chunks[3])
        online = await world.until_told(Presence.ONLINE)

    assert (Presence.SILENT, silent.silent_since_us) == (
        taken_over.state,
        taken_over.silent_since_us,
    )
    assert taken_over.last_offset is None
    assert online.last_offset == 3
    assert world.kept.partitions["p"].states["cam"].silent_since_us is None


async def test_refused_chunks_are_told_of_a_camera_that_is_known(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    bad = replace(chunks[1], payload=b"no video")
    async with world.daemon(QUIET):
        world.put(chunks[0])
        await world.until_told(Presence.ONLINE)
        world.put(bad)
        refused = await world.until_told(Presence.REFUSED)
        world.put(chunks[2])
        online = await world.until_told(Presence.ONLINE)

    assert (1, 1) == (refused.n_refused, refused.n_gaps)
    assert (1, 1) == (online.n_refused, online.n_gaps)


async def test_nothing_is_told_of_names_that_may_be_made_up(chunks: list[VideoChunk]) -> None:
    world = World()
    world.put(*(replace(chunks[0], camera=f"junk-{n}", payload=b"x") for n in range(5)))
    async with world.daemon(TALKATIVE) as daemon:
        await daemon.app.finished(5)
        await asyncio.sleep(0.2)

    assert [] == world.told


async def test_numbers_are_told_again_and_again(chunks: list[VideoChunk]) -> None:
    world = World()
    world.put(*chunks[:2])
    async with world.daemon(TALKATIVE):
        await world.until(lambda: len(world.told) >= 5)

    assert {Presence.ONLINE} == {status.state for status in world.told}
    assert world.told[-1].at_us > world.told[0].at_us


async def test_a_forgotten_camera_is_told_last(chunks: list[VideoChunk]) -> None:
    world = World()
    world.put(*chunks[:2])
    async with world.daemon(FORGETFUL):
        await world.until_told(Presence.FORGOTTEN)
        n_told = len(world.told)
        await asyncio.sleep(0.2)

    assert n_told == len(world.told)


async def test_a_new_run_is_news(chunks: list[VideoChunk]) -> None:
    world = World()
    async with world.daemon(QUIET):
        world.put(chunks[0])
        await world.until_told(Presence.ONLINE)
        world.put(replace(chunks[0], run="second"))
        await world.until(lambda: world.told[-1].run == "second")


class Looked:
    """Counts how often the cameras were looked at; a network's answer may wait for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._n_looks = 0
        tell_status = Camera.tell_status

        def counted(camera: Camera) -> None:
            tell_status(camera)
            self._n_looks += 1

        monkeypatch.setattr(Camera, "tell_status", counted)

    def wait(self) -> None:
        """On the device's thread: until a camera that is being worked on was looked at."""
        n_before, end_s = self._n_looks, time.monotonic() + 240
        while self._n_looks == n_before and time.monotonic() < end_s:
            time.sleep(0.001)


class LookedAtExtractor(MeanColourExtractor):
    """Answers after the cameras were looked at."""

    def __init__(self, looked: Looked) -> None:
        self._looked = looked

    @override
    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        self._looked.wait()
        return super().extract(snippets)


class LookedAtLocalizer(SmoothingLocalizer):
    """Answers after the cameras were looked at."""

    def __init__(self, looked: Looked) -> None:
        self._looked = looked

    @override
    def localize(self, windows: Sequence[FeatureWindow]) -> list[CasWindow]:
        self._looked.wait()
        return super().localize(windows)


async def test_whoever_looks_while_a_chunk_is_worked_on_changes_no_record(
    chunks: list[VideoChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = a_log(*chunks)
    alone, looked_at = MemoryRecords(), MemoryRecords()
    await TestDaemon(MemoryChunkSource(log), MemoryJournal(alone)).serve()
    looked = Looked(monkeypatch)
    await TestDaemon(
        MemoryChunkSource(log),
        MemoryJournal(looked_at),
        extractor=LookedAtExtractor(looked),
        localizer=LookedAtLocalizer(looked),
        cameras=CameraLimits(silent_after_s=1e6, look_s=0.001),
    ).serve()

    def with_watermarks(kept: MemoryRecords) -> list[tuple[ActionEvent, int | None]]:
        return [(record, record.watermark_us) for record in kept.events]

    assert alone.events
    assert with_watermarks(alone) == with_watermarks(looked_at)
