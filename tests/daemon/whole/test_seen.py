"""What an operator sees of cameras while they are served: /readyz, metrics and log."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from daemon.cameras import CameraLimits
from daemon.holdings import REFUSED_CAMERAS
from daemon.journal.base import Condition
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.errors import CorruptChunkError
from engine.types import VideoChunk
from tests.support.daemons import TestDaemon
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.videos import make_video
from tests.support.waiting import until

LIMITS = CameraLimits(silent_after_s=1e6, look_s=0.02)
SILENT = CameraLimits(silent_after_s=0.1, look_s=0.02)
FORGETFUL = CameraLimits(silent_after_s=0.05, forget_after_s=0.1, look_s=0.02)


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[VideoChunk]:
    clip = colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)
    return chunks_of(clip, "cam", chunk_s=0.5)


def captured(chunks: list[VideoChunk], ago_s: float) -> list[VideoChunk]:
    """The chunks, of a run that began so long ago."""
    anchor_us = time.time_ns() // 1000 - round(ago_s * 1e6)
    return [replace(chunk, anchor_us=anchor_us) for chunk in chunks]


@dataclass
class World:
    log: MemoryLog = field(default_factory=MemoryLog)

    def put(self, chunks: list[VideoChunk], partition: str = "p") -> None:
        for chunk in chunks:
            self.log.append(partition, chunk)

    @asynccontextmanager
    async def daemon(self, limits: CameraLimits = LIMITS) -> AsyncIterator[TestDaemon]:
        source, journal = MemoryChunkSource(self.log), MemoryJournal(MemoryRecords())
        daemon = TestDaemon(source, journal, cameras=limits)
        async with asyncio.timeout(240):
            serving = asyncio.create_task(daemon.serve())
            yield daemon
            daemon.app.stop()
            await serving


def report(daemon: TestDaemon, camera: str = "cam") -> dict[str, Any]:
    cameras: dict[str, dict[str, Any]] = daemon.app.is_ready()[1]["cameras"]
    return cameras.get(camera, {})


def states(daemon: TestDaemon, camera: str = "cam") -> set[str]:
    """The states that a camera is in, by its metric."""
    return {
        condition.value
        for condition in Condition
        if daemon.count("camera_state", camera=camera, state=condition.value)
    }


async def test_a_camera_is_seen_in_readyz_metrics_and_log(chunks: list[VideoChunk]) -> None:
    world, n_chunks = World(), len(chunks) - 1  # not the end of the run
    async with world.daemon() as daemon:
        world.put(captured(chunks[:n_chunks], 60 + 3))
        await daemon.app.finished(n_chunks)
        seen = report(daemon)
        lag_s = daemon.count("camera_lag_seconds", camera="cam")

    assert ("late", 25, [], 0) == tuple(seen[k] for k in ("state", "fps", "degraded", "queued"))
    assert seen["last_frame"].endswith("Z")
    assert 0 < seen["snippets_per_minute"] <= daemon.count("snippets_total", camera="cam")
    assert seen["lag_s"] == pytest.approx(lag_s, abs=0.001)
    assert lag_s > 40
    assert {"late"} == {line["state"] for line in daemon.logs.named("camera.state")}


async def test_events_that_open_and_close_are_lines(chunks: list[VideoChunk]) -> None:
    world = World()
    async with world.daemon() as daemon:
        world.put(captured(chunks, 30))
        await daemon.app.finished(len(chunks))

    opened, closed = (daemon.logs.named(f"event.{what}") for what in ("opened", "closed"))
    n_opened = daemon.count("events_total", camera="cam", phase="opened")
    assert n_opened == len(opened) > 0
    assert daemon.count("events_total", camera="cam", phase="closed") == len(closed)
    assert {line["id"] for line in closed} <= {line["id"] for line in opened}


async def test_each_condition_is_shown_and_said_once(chunks: list[VideoChunk]) -> None:
    world = World()
    async with world.daemon(SILENT) as daemon:
        world.put(chunks[:4])
        await until(lambda: {"silent"} == states(daemon))
        assert "silent" == report(daemon)["state"]
        world.log.append_bad("cam", CorruptChunkError("bad"))
        await until(lambda: 5 == daemon.app.progress.n_done)

    said = [line["state"] for line in daemon.logs.named("camera.state")]
    assert said[0] == "live"
    assert "silent" in said
    assert all(before != after for before, after in pairwise(said))


async def test_a_clock_that_is_ahead_is_skew(chunks: list[VideoChunk]) -> None:
    world = World()
    async with world.daemon() as daemon:
        world.put(captured(chunks, -3600))
        await daemon.app.finished(len(chunks))
        assert daemon.count("clock_skew_seconds", camera="cam") > 3000
        assert ["clock_ahead"] == report(daemon)["degraded"]

    n_early = daemon.count("early_revisions_total", camera="cam")
    assert n_early > 0
    assert 0 == daemon.count("event_latency_seconds_count")


async def test_too_few_frames_a_second_are_said_once_a_run(tmp_path: Path) -> None:
    clip = tmp_path / "slow.mp4"
    clip.write_bytes(make_video(n_frames=60, fps=10, gop=5))
    runs = [chunks_of(clip, "cam", chunk_s=0.5, run=run) for run in ("first", "second")]
    world = World()
    async with world.daemon() as daemon:
        world.put(runs[0] + runs[1][:-1])
        await daemon.app.finished(len(runs[0]) + len(runs[1]) - 1)
        assert "degraded" == report(daemon)["state"]

    lines = daemon.logs.named("stream.low_fps")
    assert [("first", 10, 25), ("second", 10, 25)] == [
        (line["run"], line["fps"], line["wanted"]) for line in lines
    ]
    assert 2 == daemon.count("low_fps_runs_total", camera="cam")


def shown(daemon: TestDaemon, kind: str) -> set[str]:
    """Metrics of a kind that tell of the camera."""
    return {
        family.name
        for family in daemon.metrics.registry.collect()
        for sample in family.samples
        if family.type == kind and sample.labels.get("camera") == "cam"
    }


async def test_gauges_go_when_the_partition_goes_though_a_chunk_is_in_hand(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    async with world.daemon() as daemon:
        world.put(captured(chunks[:4], 2))
        await daemon.app.finished(4)
        assert len(shown(daemon, "gauge")) >= 7
        world.put(captured(chunks[4:], 2))
        await until(lambda: daemon.app.progress.busy > 0)
        await daemon.app.partitions.give_back("p")
        assert not shown(daemon, "gauge")
        await until(lambda: daemon.app.progress.busy == 0)
        assert not shown(daemon, "gauge")
    assert {"s2netd_chunks", "s2netd_snippets"} <= shown(daemon, "counter")


async def test_a_camera_that_changed_partitions_is_shown_when_the_old_one_goes(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    async with world.daemon(SILENT) as daemon:
        world.put(chunks[:2], "old")
        await daemon.app.finished(2)
        world.put(chunks[2:4], "new")
        await daemon.app.finished(4)
        assert {"live"} == states(daemon)
        await until(lambda: {"silent"} == states(daemon))
        world.put(chunks[4:6], "new")
        await daemon.app.finished(6)
        await until(lambda: {"silent"} == states(daemon))
        await daemon.app.partitions.give_back("old")
        assert {"silent"} == states(daemon)
        await daemon.app.partitions.give_back("new")
        assert set() == states(daemon)


async def test_names_that_were_made_up_are_refused_and_not_silent(
    chunks: list[VideoChunk],
) -> None:
    world = World()
    limits = replace(SILENT, most=2)
    async with world.daemon(limits) as daemon:
        world.put([*chunks[:2], replace(chunks[0], camera="b"), replace(chunks[0], camera="c")])
        world.log.append_bad("junk", CorruptChunkError("bad"))
        await daemon.app.finished(5)
        await until(lambda: all({"silent"} == states(daemon, name) for name in ("cam", "b")))
        await until(lambda: not report(daemon, REFUSED_CAMERAS).get("state"))
        assert set() == states(daemon, REFUSED_CAMERAS)
        assert set() == states(daemon, "junk")
    told = {line["camera"] for line in daemon.logs.named("camera.state")}
    assert {"cam", "b"} == told


async def test_of_a_forgotten_camera_nothing_is_shown(chunks: list[VideoChunk]) -> None:
    world = World()
    async with world.daemon(FORGETFUL) as daemon:
        world.put(captured(chunks[:4], 2))
        await until(lambda: not shown(daemon, "counter") and daemon.app.progress.n_done == 4)
        world.put([replace(chunk, camera="other") for chunk in chunks])
        await daemon.app.finished(4 + len(chunks))  # and nothing comes back
        assert not shown(daemon, "gauge") | shown(daemon, "counter")


async def test_readyz_is_answered_while_cameras_come_and_go(chunks: list[VideoChunk]) -> None:
    world, is_over = World(), threading.Event()
    failed: list[Exception] = []
    async with world.daemon(FORGETFUL) as daemon:

        def ask() -> None:
            try:
                while not is_over.is_set():
                    daemon.app.is_ready()
            except Exception as error:  # noqa: BLE001 - shown below
                failed.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for number in range(60):
                world.put([replace(chunks[0], camera=f"cam-{number}")], f"p{number % 7}")
            await daemon.app.finished(60)
        finally:
            is_over.set()
            asking.join()

    assert [] == failed
