"""A daemon that looks at less of the footage says so, and is the straight line all the same."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from daemon.cameras import CameraLimits
from daemon.errors import TransportError
from daemon.journal.base import FeatureRows, Presence, Step
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.stream import ladder
from engine.spec import EconomySpec, ModelSpec, Rung
from engine.types import Reason, VideoChunk
from tests.support.daemons import MortalJournal, TestDaemon, a_log, straight_line
from tests.support.footage import chunks_of
from tests.support.scripted import MeanColourExtractor, a_spec

ECONOMIES = {
    "half": EconomySpec(Rung.HALF),
    "quarter": EconomySpec(Rung.QUARTER),
    "gated": EconomySpec(Rung.GATED, look_every=9),
    "motion gate": EconomySpec(is_gated=True, look_every=5),
    "half, motion gate": EconomySpec(Rung.HALF, is_gated=True),
}


@pytest.fixture(params=ECONOMIES.values(), ids=ECONOMIES.keys())
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return a_spec(economy=request.param)


class CountingExtractor(MeanColourExtractor):
    def __init__(self) -> None:
        self.n_looks = 0

    def extract(self, snippets):  # type: ignore[no-untyped-def]
        self.n_looks += len(snippets)
        return super().extract(snippets)


def a_daemon(log: MemoryLog, kept: MemoryRecords, spec: ModelSpec, **parts: object) -> TestDaemon:
    return TestDaemon(MemoryChunkSource(log), MemoryJournal(kept), spec=spec, **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk_s", [0.2, 0.5, 3.0])
async def test_every_economy_gives_the_straight_line(
    odd_clip: Path, spec: ModelSpec, chunk_s: float
) -> None:
    kept, extractor = MemoryRecords(), CountingExtractor()
    log = a_log(*chunks_of(odd_clip, "cam", chunk_s=chunk_s))
    daemon = a_daemon(log, kept, spec, extractor=extractor)
    await daemon.serve()

    n_spared = sum(
        daemon.count("spared_snippets_total", camera="cam", why=why)
        for why in ("still", "between")
    )
    assert straight_line(odd_clip, "cam", spec) == kept.events
    assert n_spared > 0
    assert daemon.count("snippets_total", camera="cam") == extractor.n_looks + n_spared
    assert {spec.economy.rung.value} == {event.rung for event in kept.events}


async def test_a_camera_may_have_a_rung_of_its_own(odd_clip: Path) -> None:
    spec = a_spec(economy=EconomySpec(rungs={"side door": Rung.QUARTER}))
    chunks = [chunks_of(odd_clip, name, chunk_s=0.5) for name in ("gate", "side door")]
    kept = MemoryRecords()
    await a_daemon(a_log(*chunks[0], *chunks[1]), kept, spec).serve()

    rungs = {(event.camera, event.rung) for event in kept.events}
    assert {("gate", "full"), ("side door", "quarter")} == rungs
    for name in ("gate", "side door"):
        own = [event for event in kept.events if event.camera == name]
        assert straight_line(odd_clip, name, spec) == own


async def test_a_restart_after_every_chunk_changes_nothing(
    odd_clip: Path, spec: ModelSpec
) -> None:
    chunks, log, kept = chunks_of(odd_clip, "cam", chunk_s=0.5), MemoryLog(), MemoryRecords()
    for number, chunk in enumerate(chunks):
        log.append("cam", chunk)
        while kept.next_offset("cam") <= number:
            daemon = a_daemon(log, kept, spec)
            async with asyncio.timeout(240):
                serving = asyncio.create_task(daemon.serve())
                await daemon.app.finished(1)
                daemon.app.stop()
                await serving

    assert straight_line(odd_clip, "cam", spec) == kept.events


@dataclass
class LoggedRows(MortalJournal):
    """Dies at one of its commits; what came into the feature log before is kept in a list."""

    records: MemoryRecords
    rows: list[FeatureRows]
    n_commits: int

    def __post_init__(self) -> None:
        super().__init__(self.records, self.n_commits, is_kept=True)

    async def commit(self, partition: str, step: Step) -> None:
        self.rows.extend(step.features)
        await super().commit(partition, step)


@pytest.mark.parametrize("n_commits", [3, 8, 14, 99])
async def test_each_snippet_has_one_feature_in_the_log_whenever_the_daemon_is_killed(
    odd_clip: Path, spec: ModelSpec, n_commits: int
) -> None:
    log, kept = a_log(*chunks_of(odd_clip, "cam", chunk_s=0.5)), MemoryRecords()
    rows: list[FeatureRows] = []
    for n in (n_commits, 99):
        with suppress(TransportError):
            daemon = TestDaemon(MemoryChunkSource(log), LoggedRows(kept, rows, n), spec=spec)
            await daemon.serve()

    indices = [one.first_index + n for one in rows for n in range(len(one.vectors))]
    assert straight_line(odd_clip, "cam", spec) == kept.events
    assert list(range(75)) == indices
    assert 75 == rows[-1].first_index  # the segment's end
    assert rows[-1].closed is Reason.END


def late(chunks: list[VideoChunk], by_s: list[float]) -> list[VideoChunk]:
    """Chunks that end so long before now."""
    now_us = time.time_ns() // 1000
    return [
        replace(chunk, anchor_us=now_us - after.start_us - round(lag_s * 1e6))
        for chunk, after, lag_s in zip(chunks, chunks[1:], by_s, strict=False)
    ]


async def test_a_late_camera_goes_down_the_ladder_and_up_again_and_says_so(
    odd_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SETTLE_S", 0.0)
    monkeypatch.setattr(ladder, "CALM_S", 1e-6)
    spec = a_spec(economy=EconomySpec(lowest=Rung.QUARTER))
    log, kept = MemoryLog(), MemoryRecords()
    chunks = chunks_of(odd_clip, "cam", chunk_s=0.5)
    lags_s = [100.0] * 4 + [110.0] * 6 + [100.0] * 8
    daemon = a_daemon(log, kept, spec)
    seen = []
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        for number, chunk in enumerate(late(chunks, lags_s), 1):
            log.append("cam", chunk)
            await daemon.app.finished(number)
            report = daemon.app.is_ready()[1]["cameras"]["cam"]
            seen.append((report["rung"], tuple(report["degraded"])))
        assert 1 == daemon.count("camera_rung", camera="cam", rung="full")
        daemon.app.stop()
        await serving

    lowered = [("half", ("overload",)), ("quarter", ("overload",))]
    assert [("full", ())] * 4 + lowered == seen[:6]
    assert [("quarter", ("overload",))] * 4 == seen[6:10]
    assert ("full", ()) == seen[-1]
    moves = [(line["before"], line["rung"]) for line in daemon.logs.named("stream.rung")]
    down, up = [("full", "half"), ("half", "quarter")], [("quarter", "half"), ("half", "full")]
    assert down + up == moves
    assert {"full", "quarter"} <= {event.rung for event in kept.events}


async def test_a_late_camera_that_goes_away_is_overloaded_no_more(odd_clip: Path) -> None:
    spec = a_spec(economy=EconomySpec(lowest=Rung.QUARTER))
    log, kept = MemoryLog(), MemoryRecords()
    chunks = late(chunks_of(odd_clip, "cam", chunk_s=0.5), [100.0, 110.0])
    limits = CameraLimits(silent_after_s=0.1, look_s=0.02, status_interval_s=1e6)
    daemon = a_daemon(log, kept, spec, cameras=limits)
    async with asyncio.timeout(240):
        serving = asyncio.create_task(daemon.serve())
        for chunk in chunks:
            log.append("cam", chunk)
        while not kept.statuses or kept.statuses[-1].state is not Presence.SILENT:
            await asyncio.sleep(0.005)
        daemon.app.stop()
        await serving

    assert (Rung.FULL, ()) == (kept.statuses[-1].rung, kept.statuses[-1].degraded)
    moves = [(line["before"], line["rung"]) for line in daemon.logs.named("stream.rung")]
    assert [("full", "half"), ("half", "full")] == moves
