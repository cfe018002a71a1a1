"""The whole daemon in one process: real decoder, workers and app; memory transports."""

import asyncio
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from daemon.cameras import CameraLimits
from daemon.device.requests import Lane
from daemon.device.thread import Device
from daemon.errors import ForeignCancellationError
from daemon.journal.base import CameraState, Step
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from engine.errors import CorruptChunkError
from engine.grid import Grid
from engine.session import StreamSession
from engine.straight_line import localize_frames
from engine.types import ActionEvent, Phase, Reason
from engine.video.frames import read_video
from tests.support.daemons import TestDaemon, a_log, final_of, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.scripted import (
    MeanColourExtractor,
    SmoothingLocalizer,
    a_camera_mean,
    a_spec,
)
from tests.support.videos import make_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


async def run(log: MemoryLog) -> tuple[TestDaemon, list[ActionEvent]]:
    journal = MemoryJournal()
    daemon = TestDaemon(MemoryChunkSource(log), journal)
    await daemon.serve()
    return daemon, journal.records.events


@pytest.mark.parametrize("chunk_s", [0.4, 1.0, 5.0])
async def test_the_daemon_gives_what_the_straight_line_gives(clip, chunk_s):
    _, records = await run(a_log(*chunks_of(clip, "cam", chunk_s=chunk_s)))

    assert straight_line(clip, "cam") == records
    assert 4 <= len({record.event_id for record in records})


@pytest.mark.parametrize("fps", [12.5, 10, 50])
async def test_a_model_that_sees_frames_at_another_rate_gives_its_straight_line(
    clip: Path, fps: float
) -> None:
    spec = replace(a_spec(), grid=Grid(fps, snippet_frames=4, stride_frames=2))
    journal = MemoryJournal()
    source = MemoryChunkSource(a_log(*chunks_of(clip, "cam", chunk_s=0.4)))
    await TestDaemon(source, journal, spec=spec).serve()

    assert straight_line(clip, "cam", spec) == journal.records.events
    assert journal.records.events


async def test_work_is_due_when_the_camera_s_next_snippet_exists(clip, monkeypatch):
    asked, ask = [], Device._ask  # both lanes go through it

    async def noted(device, lane, group, work, items, camera, deadline_s):
        asked.append((lane, deadline_s - time.monotonic()))
        return await ask(device, lane, group, work, items, camera, deadline_s)

    monkeypatch.setattr(Device, "_ask", noted)
    began_s = time.monotonic()
    await run(a_log(*chunks_of(clip, "cam")))

    stride_s = a_spec().grid.stride_us / 1e6
    most_s = time.monotonic() - began_s
    assert set(Lane) == {lane for lane, _ in asked}
    assert all(stride_s - most_s <= left_s <= stride_s for _, left_s in asked)


async def test_cameras_do_not_touch_each_other(clip):
    names = [f"cam-{i}" for i in range(5)]
    per_camera = [chunks_of(clip, name) for name in names]
    log = a_log(*(chunk for turn in zip(*per_camera, strict=True) for chunk in turn))

    daemon, records = await run(log)

    for name in names:
        assert straight_line(clip, name) == [r for r in records if r.camera == name]
        assert len(per_camera[0]) - 1 == daemon.count("chunks_total", camera=name)


async def test_a_corrupt_chunk_is_named_and_only_costs_its_own_footage(clip):
    good = chunks_of(clip, "good")
    bad = chunks_of(clip, "bad")
    payload = bad[2].payload
    middle = len(payload) // 2
    bad[2] = replace(bad[2], payload=payload[:middle] + b"\xff" * 64 + payload[middle + 64 :])

    daemon, records = await run(a_log(*good, *bad))

    assert straight_line(clip, "good") == [r for r in records if r.camera == "good"]
    mine = [r for r in records if r.camera == "bad"]
    assert Reason.GAP in {r.reason for r in mine}
    assert all(r.final for r in final_of(mine).values())
    (dropped,) = daemon.logs.named("chunk.dropped")
    assert ("bad", 2, "CorruptChunkError") == (
        dropped["camera"],
        dropped["offset"],
        dropped["error"],
    )
    assert 1 == daemon.count("corrupt_chunks_total", camera="bad", error="CorruptChunkError")


async def test_a_chunk_sent_twice_counts_once(clip):
    chunks = chunks_of(clip, "cam")

    daemon, records = await run(a_log(*(c for chunk in chunks for c in (chunk, chunk))))

    assert straight_line(clip, "cam") == records
    assert len(chunks) == daemon.count("duplicate_chunks_total", camera="cam")


async def test_a_lost_chunk_is_a_gap(clip):
    chunks = chunks_of(clip, "cam")
    del chunks[3]

    daemon, records = await run(a_log(*chunks))

    assert 1 == daemon.count("gaps_total", camera="cam")
    assert all(r.final for r in final_of(records).values())


async def test_frames_too_far_apart_are_a_gap_that_is_counted_and_named(tmp_path):
    path = tmp_path / "frozen.mp4"
    ticks = [number * 512 for number in [*range(50), *range(150, 200)]]  # 4 s of nothing
    path.write_bytes(make_video(pts=ticks))

    daemon, _records = await run(a_log(*chunks_of(path, "cam")))

    assert 1 == daemon.count("gaps_total", camera="cam")
    assert ["pictures too far apart"] == [
        line["reason"] for line in daemon.logs.named("stream.gap")
    ]


async def test_frames_that_come_twice_are_counted_as_late(clip):
    chunks = chunks_of(clip, "cam")
    ticks, base = chunks[3].start_ticks, chunks[3].time_base
    chunks[3] = replace(
        chunks[3],
        start_us=chunks[3].start_us - 200_000,
        start_ticks=ticks - round(Fraction(1, 5) / base),
    )

    daemon, _records = await run(a_log(*chunks))

    assert 5 == daemon.count("late_frames_total", camera="cam")  # of 25 a second
    assert [5] == [line["frames"] for line in daemon.logs.named("stream.late_frames")]
    assert 0 == daemon.count("gaps_total", camera="cam")


async def test_a_new_run_starts_anew_and_ends_what_was_open(clip):
    first, second = chunks_of(clip, "cam", run="a"), chunks_of(clip, "cam", run="b")
    cut_off = [c for c in first if c.start_us < 2_500_000]

    _, records = await run(a_log(*cut_off, *second))

    before, after = ([r for r in records if r.run == e] for e in "ab")
    assert [Reason.GAP] == [r.reason for r in before if r.final]
    assert len(straight_line(clip, "cam")) == len(after)


async def test_a_background_outlives_the_producers_run_and_the_daemon(clip):
    """Runs one after the other, and a daemon for each, are one camera all the same."""
    spec = a_spec(camera_mean=a_camera_mean(memory_snippets=1000))
    log, kept = MemoryLog(), MemoryRecords()
    for run in "abc":
        for chunk in chunks_of(clip, "cam", run=run):
            log.append("cam", chunk)
        if run != "a":  # the first daemon sees the first two
            log.finish()
            source = MemoryChunkSource(log)
            await TestDaemon(source, MemoryJournal(kept), spec=spec).serve()

    wanted, camera_mean = [], None
    for run in "abc":
        session = StreamSession("cam", run, spec, camera_mean=camera_mean)
        batches = read_video(clip, spec.geometry, spec.grid)
        result = localize_frames(batches, session, MeanColourExtractor(), SmoothingLocalizer())
        wanted.append(list(result.revisions))
        camera_mean = session.camera_mean
    assert wanted == [[r for r in kept.events if r.run == run] for run in "abc"]
    assert len({tuple((r.span, r.score) for r in records) for records in wanted}) == 3
    last = StreamSession.restore((await left_by(kept, "cam")).blob, spec)
    assert camera_mean.mean.tobytes() == last.camera_mean.mean.tobytes()


async def left_by(kept: MemoryRecords, camera: str) -> CameraState:
    """What a camera's last owner has left of it, in a partition of the same name."""
    past = await MemoryJournal(kept).take(camera)
    return past.cameras[camera].state


@pytest.mark.parametrize("stop_after", range(1, 10))
async def test_stopping_anywhere_and_starting_again_changes_nothing(clip, stop_after):
    """A stop before chunk ``stop_after``; the second daemon has only the journal and the log."""
    chunks = chunks_of(clip, "cam")
    log, kept = MemoryLog(), MemoryRecords()
    for chunk in chunks[:stop_after]:
        log.append("cam", chunk)
    first = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    serving = asyncio.create_task(first.serve())
    async with asyncio.timeout(240):
        await first.app.finished(stop_after)
    first.app.stop()
    await serving
    for chunk in chunks[stop_after:]:
        log.append("cam", chunk)
    log.finish()

    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()

    assert straight_line(clip, "cam") == kept.events


async def test_state_of_another_model_is_refused_and_the_camera_starts_anew(clip):
    kept = MemoryRecords()
    journal = MemoryJournal(kept)
    await journal.take("cam")
    await journal.commit("cam", Step(1, 0, states={"cam": CameraState(b"from another world")}))

    daemon = TestDaemon(MemoryChunkSource(a_log(*chunks_of(clip, "cam"))), MemoryJournal(kept))
    await daemon.serve()

    assert 1 == daemon.count("snapshots_refused_total", camera="cam")
    assert straight_line(clip, "cam") == kept.events


async def test_a_full_queue_pauses_the_partition_and_loses_nothing(clip):
    chunks = [replace(c) for c in chunks_of(clip, "cam", chunk_s=0.4)]

    daemon, records = await run(a_log(*chunks))

    assert daemon.logs.named("partition.paused")
    assert straight_line(clip, "cam") == records


async def test_every_event_ends_in_a_final_record(clip):
    _, records = await run(a_log(*chunks_of(clip, "cam")))

    assert {Phase.CLOSED} == {r.phase for r in final_of(records).values()}


async def test_more_cameras_than_allowed_are_refused_and_named(clip):
    log = a_log(
        *chunks_of(clip, "known"), *(c for i in range(3) for c in chunks_of(clip, f"x{i}"))
    )
    journal = MemoryJournal()
    daemon = TestDaemon(MemoryChunkSource(log), journal, cameras=CameraLimits(most=2))
    await daemon.serve()

    assert {"known", "x0"} == {r.camera for r in journal.records.events}
    reasons = " ".join(str(entry["reason"]) for entry in daemon.logs.named("chunk.dropped"))
    assert "camera 'x1' is one more than max_cameras (2)" in reasons
    assert "camera 'x2'" in reasons


async def test_a_clock_that_goes_back_is_named_and_not_silent(clip):
    chunks = chunks_of(clip, "cam")
    back = replace(chunks[1], sequence=4)

    daemon, records = await run(a_log(*chunks[:4], back, *chunks[4:]))

    (dropped,) = daemon.logs.named("chunk.dropped")
    assert "StaleChunkError" == dropped["error"]
    assert "must start a new run" in str(dropped["reason"])
    assert straight_line(clip, "cam") == records


async def test_every_chunk_of_a_clock_that_went_back_is_refused_until_it_catches_up(clip):
    chunks = chunks_of(clip, "cam")
    again = [replace(c, sequence=4 + i) for i, c in enumerate(chunks[:3])]

    daemon, _ = await run(a_log(*chunks[:4], *again))

    assert 3 == len(daemon.logs.named("chunk.dropped"))
    assert 4 == daemon.count("chunks_total", camera="cam")  # what was refused was of no use


async def test_an_run_that_ended_changes_nothing_when_it_comes_again(clip):
    a, b = chunks_of(clip, "cam", run="a"), chunks_of(clip, "cam", run="b")

    daemon, records = await run(a_log(*a, *b[:2], *a[:8], *b[2:]))

    assert [len(straight_line(clip, "cam"))] * 2 == [
        sum(r.run == run for r in records) for run in "ab"
    ]
    final = set()
    for record in records:
        assert record.event_id not in final
        if record.final:
            final.add(record.event_id)
    assert 8 == daemon.count("duplicate_chunks_total", camera="cam")
    assert 8 == len(daemon.logs.named("chunk.duplicate"))  # of which one a minute is said


async def test_a_late_end_marker_does_not_end_the_next_run(clip):
    a, b = chunks_of(clip, "cam", run="a"), chunks_of(clip, "cam", run="b")
    _, alone = await run(a_log(*b))

    _, records = await run(a_log(*a[:3], *b[:3], a[-1], *b[3:]))

    assert alone == [r for r in records if r.run == "b"]


@pytest.mark.parametrize("stop_after", range(1, 8))
async def test_footage_that_became_unreadable_is_a_gap_after_a_restart(odd_clip, stop_after):
    """Limits were lowered between two runs, say: what was decoded before no longer is."""
    chunks = chunks_of(odd_clip, "cam", chunk_s=0.5)
    log, kept = MemoryLog(), MemoryRecords()
    for chunk in chunks[:stop_after]:
        log.append("cam", chunk)
    log.finish()
    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()
    log = a_log(*[replace(c, payload=b"no video") for c in chunks[:stop_after]])
    for chunk in chunks[stop_after:]:
        log.append("cam", chunk)

    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()

    assert all(r.final for r in final_of(kept.events).values())


async def test_a_restart_reads_again_only_for_the_camera_that_needs_it(clip):
    """One camera fell silent in the middle of a snippet; the other one need not pay for it."""
    silent, busy = chunks_of(clip, "silent", chunk_s=0.4)[:2], chunks_of(clip, "busy")
    log, kept = MemoryLog(), MemoryRecords()
    for chunk in [*silent, *busy]:
        log.append("both", chunk)
    log.finish()
    await TestDaemon(MemoryChunkSource(log), MemoryJournal(kept)).serve()

    again = TestDaemon(MemoryChunkSource(log), MemoryJournal(kept))
    await again.serve()

    assert 0 == again.count("frames_total", camera="busy")
    assert 1 <= again.count("frames_total", camera="silent")
    assert 0 == again.count("chunks_total", camera="silent")  # it was counted before


async def test_a_camera_that_moves_to_another_partition_leaves_none_paused(clip):
    chunks = chunks_of(clip, "cam", chunk_s=0.4)
    log = MemoryLog()
    for number, chunk in enumerate(chunks):
        log.append("old" if number < len(chunks) // 2 else "new", chunk)
    log.finish()
    daemon = TestDaemon(MemoryChunkSource(log), MemoryJournal())

    async with asyncio.timeout(240):
        await daemon.serve()
    assert len(chunks) == daemon.app.progress.n_done


async def test_a_device_that_hangs_is_noticed_while_other_cameras_go_on(clip):
    come_back = threading.Event()

    class HangingExtractor(MeanColourExtractor):
        def extract(self, snippets):
            come_back.wait(240)
            return super().extract(snippets)

    log = MemoryLog()
    for chunk in chunks_of(clip, "cam"):
        log.append("cam", chunk)
    source = MemoryChunkSource(log)
    daemon = TestDaemon(source, MemoryJournal(), extractor=HangingExtractor())
    daemon.app.watch.stall_s = 0.2
    serving = asyncio.create_task(daemon.serve())
    async with asyncio.timeout(240):
        while daemon.app.is_live()[0]:
            log.append_bad("other", CorruptChunkError("bad"))
            await asyncio.sleep(0.02)
    assert daemon.count("corrupt_chunks_total", camera="other", error="CorruptChunkError") > 1
    come_back.set()
    daemon.app.stop()
    await serving
    assert daemon.app.is_live()[0]


async def cancelled_under_us(*_: object, **__: object) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class CancelledJournal(MemoryJournal):
    """Keeps the first step, which belongs to taking the partition, and no other one."""

    async def commit(self, partition: str, step: Step) -> None:
        if step.number > 1:
            await cancelled_under_us()
        await super().commit(partition, step)


@pytest.mark.parametrize("place", ["camera", "journal", "device", "source", "companion"])
async def test_what_is_cancelled_under_a_part_of_the_daemon_ends_it_and_is_named(clip, place):
    """A cancelled future passes every ``except Exception`` and leaves a TaskGroup cold."""
    source = MemoryChunkSource(a_log(*chunks_of(clip, "cam")))
    source._log.is_finished = False
    journal = CancelledJournal() if place == "journal" else MemoryJournal()
    daemon = TestDaemon(source, journal)
    if place == "camera":
        daemon.device.extract = cancelled_under_us
    elif place == "device":
        daemon.device.serve = cancelled_under_us
    elif place == "source":

        async def deliveries():
            yield await cancelled_under_us()

        source.deliveries = deliveries
    elif place == "companion":
        daemon.app._companion = cancelled_under_us

    named = {"camera": "camera cam", "journal": "steps of cam"}.get(place, place)
    async with asyncio.timeout(20):
        with pytest.raises(ForeignCancellationError, match=named):
            await daemon.serve()

    assert [named] == [str(entry["task"]) for entry in daemon.logs.named("task.lost")]
