"""Partitions that are given up and come back: cameras go on as if nothing had been."""

import asyncio
from pathlib import Path

import pytest

from daemon.sinks.memory import MemoryEventSink
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.state.memory import MemoryStateStore
from tests.support.daemons import TestDaemon, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip

CAMERAS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of 13 frames end within a snippet of 4, so a camera always needs frames again."""
    return colour_clip(tmp_path_factory.mktemp("clips") / "odd.mp4", BUSY, gop=13)


async def test_a_rebalance_cuts_no_event_and_reads_only_what_is_needed_again(clip: Path) -> None:
    per_camera = [chunks_of(clip, name, chunk_s=0.5) for name in CAMERAS]
    turns = list(zip(*per_camera, strict=True))
    log, store, sink = MemoryLog(), MemoryStateStore(), MemoryEventSink()
    daemons: list[TestDaemon] = []

    async def on_revoked(partition: str) -> None:
        await daemons[0].app.release(partition)

    source = MemoryChunkSource(log, store.low_offset, on_revoked)
    daemon = TestDaemon(source, sink, store)
    daemons.append(daemon)
    serving = asyncio.create_task(daemon.serve())
    async with asyncio.timeout(60):
        for turn in turns:
            for chunk in turn:
                log.append("p", chunk)
            while log.committed.get("p", -1) < len(log.partitions["p"]) - 1:
                await asyncio.sleep(0.01)
            await source.rebalance()
        log.finish()
        await serving

    for name in CAMERAS:
        assert straight_line(clip, name) == [r for r in sink.events if r.camera == name]
        # Each chunk once, and after each rebalance a few of them again.
        assert daemon.count("chunks_total", camera=name) <= 4 * len(turns)
