"""Decoders that somebody kills under load: events are those of a daemon that nobody disturbed."""

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from daemon.config import DecodeConfig
from daemon.decoding.messages import Task
from daemon.decoding.opening import limits_of
from daemon.decoding.pool import DecoderPool, PoolLimits
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.metrics import Metrics
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from tests.support.daemons import LogCapture, TestDaemon, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.processes import PATIENCE_S

CAMERAS = ("a", "b", "c", "d")
N_KILLS = 50 if os.environ.get("S2NETD_TEST_SOAK") else 8
SIGNALS = (signal.SIGKILL, signal.SIGSEGV)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


async def test_killed_decoders_change_no_event(clip: Path) -> None:
    chunks = {name: chunks_of(clip, name, chunk_s=0.4) for name in CAMERAS}
    log, kept, limits = MemoryLog(), MemoryRecords(), limits_of(DecodeConfig())
    metrics, logs = Metrics(), LogCapture()
    pool = DecoderPool(PoolLimits(), metrics, logs.logger())
    await pool.start()
    daemon = TestDaemon(
        MemoryChunkSource(log),
        MemoryJournal(kept),
        new_decoder=lambda spec: pool.decoder(Task(spec.geometry, spec.grid, limits)),
    )
    rng = random.Random(7)  # noqa: S311
    n_killed, serving = 0, asyncio.create_task(daemon.serve())

    def n_lost() -> float:
        return metrics.registry.get_sample_value("s2netd_lost_decoders_total") or 0

    try:
        async with asyncio.timeout(PATIENCE_S):
            for number in range(max(len(some) for some in chunks.values())):
                for name in CAMERAS:
                    log.append(name, chunks[name][number])
                while n_killed < N_KILLS * (number + 1) / len(chunks["a"]):
                    with suppress(ProcessLookupError):  # it has just ended, of the last one
                        os.kill(rng.choice(pool.pids), rng.choice(SIGNALS))
                        n_killed += 1
                    await _until_all_is_done(kept, number)
            log.finish()
            await serving
    finally:
        serving.cancel()
        await pool.close()

    assert N_KILLS == n_killed
    assert n_lost() >= 1
    for name in CAMERAS:
        assert straight_line(clip, name) == [e for e in kept.events if e.camera == name]
    assert not kept.dead


async def _until_all_is_done(kept: MemoryRecords, number: int) -> None:
    """Wait until every camera's chunk is processed; meanwhile its decoder may have to start."""
    while any((kept.next_offset(name) or 0) <= number for name in CAMERAS):
        await asyncio.sleep(0.001)
