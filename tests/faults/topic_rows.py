"""What cameras and operators do to topics and offsets: rows 15 to 19, 21 and 22."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import ConsumerRecord

from daemon.wire.records import Record
from tests.faults.cluster import CHUNK_PARTITIONS
from tests.faults.daemons import SILENT_AFTER_S, Daemon
from tests.faults.feeder import partition_of
from tests.faults.trial import Rig, RowResult, Trial, a_trial

# Of a partition with two live cameras: each one's chunk of an unfinished snippet, and what the
# other one sent meanwhile, twice over.
REREAD_CHUNKS = 8
_NORMAL_REASONS = ("score", "frozen", "gap", "end", "vanished", "model")
_POISONED, _JUNK_NAMES = 2628, 600


def judge_reread(trial: Trial, daemon: Daemon) -> None:
    """At most a resume window may be read again after a start."""
    first = daemon.fetched(trial.place.chunks)
    again = {}
    for partition, mark in first.items():
        marks = trial.observer.committed[partition]
        done = max((m.offset for m in marks if m.at_s <= mark.at_s), default=0)
        again[partition] = max(0, done - mark.offset)
    worst = max(again.values(), default=0)
    trial.notes.append(f"chunks of a partition read again, at the most: {worst}")
    if worst > REREAD_CHUNKS:
        trial.complaints.append(f"{worst} chunks were read again, allowed are {REREAD_CHUNKS}")


async def delete_unread(rig: Rig) -> RowResult:
    """Row 15: retention overtakes a daemon that was away."""
    async with a_trial(rig, 15) as trial:
        (daemon,) = await trial.begin("a")
        await trial.progress(3)
        await daemon.stop()
        stopped_s = time.monotonic()
        done = await trial.cluster.committed(trial.place.group, trial.place.chunks)
        await trial.play(3)
        records = await trial.cluster.records(trial.place.chunks)
        ends = {p: marks[-1].offset for p, marks in trial.feeder.acknowledged.items()}
        holes = {p: max(done.get(p, 0), end - 4) for p, end in ends.items()}
        await trial.cluster.delete_records(trial.place.chunks, holes)
        trial.injected += len(holes)
        cut = _cameras_with_a_hole(records, done, holes)
        away_s = round(time.monotonic() - stopped_s, 1)
        daemon.start()
        await daemon.ready()
        await trial.progress(4)
        fault = f"unread records deleted while the daemon is away for {away_s} s"
        result = await trial.finish(fault, 10 + away_s, compares=False)
        _judge_gaps(trial, daemon, cut)
        return result


def _cameras_with_a_hole(
    records: Iterable[ConsumerRecord], done: Mapping[int, int], until: Mapping[int, int]
) -> set[str]:
    """Cameras of which records are skipped in the middle of a run."""
    skipped: dict[str, set[bytes]] = {}
    other: dict[str, set[bytes]] = {}
    for record in records:
        camera, run = record.key.decode(), dict(record.headers)["vc_epoch"]
        at = record.offset
        is_skipped = done.get(record.partition, 0) <= at < until.get(record.partition, 0)
        (skipped if is_skipped else other).setdefault(camera, set()).add(run)
    return {
        camera
        for camera, runs in skipped.items()
        if len(runs) == 1 and runs <= other.get(camera, set())
    }


def _judge_gaps(trial: Trial, daemon: Daemon, cut: Iterable[str]) -> None:
    gaps = [line["camera"] for line in daemon.logged("stream.gap")]
    wrong = {camera: gaps.count(camera) for camera in sorted(cut) if gaps.count(camera) != 1}
    trial.notes.append(f"cameras with a hole: {len(set(cut))}; gaps logged: {len(gaps)}")
    if wrong:
        trial.complaints.append(f"a hole is one gap, but these have: {wrong}")


async def make_topic_anew(rig: Rig) -> RowResult:
    """Row 16: the chunks' topic is deleted and made anew, while the daemon runs and is down."""
    results = [await _make_anew(rig, is_down=False, is_longer=True)]
    results.append(await _make_anew(rig, is_down=True, is_longer=False))
    if rig.is_full:
        results.append(await _make_anew(rig, is_down=False, is_longer=False))
        results.append(await _make_anew(rig, is_down=True, is_longer=True))
    return joined(results, "topic made anew, running and down, longer and shorter")


async def _make_anew(rig: Rig, *, is_down: bool, is_longer: bool) -> RowResult:
    async with a_trial(rig, 16) as trial:
        (daemon,) = await trial.begin("a")
        await trial.progress(4 if is_longer else 8)
        trial.feeder.silence(*trial.cameras)
        await trial.until(lambda: not trial.feeder.unacknowledged, "acknowledgements")
        await trial.until(trial.is_caught_up, "the old topic to be read")
        old = await trial.cluster.records(trial.place.chunks)
        if is_down:
            await daemon.stop()
        else:
            daemon.supervise()
        await trial.feed_anew(lambda: _delete_and_make(trial))
        trial.injected += 1
        if is_down:
            daemon.start()
            await daemon.ready()
        await trial.play(14 if is_longer else 4)
        await trial.end_feeding()
        new = await trial.cluster.records(trial.place.chunks)
        longer = "longer" if is_longer else "shorter"
        how = f"{'down' if is_down else 'running'}, {longer}"
        trial.notes.append(f"{how}: {len(old)} records, then {len(new)}")
        return await trial.finish(f"topic made anew, {how}", 15, wanted_of=[*old, *new])


async def _delete_and_make(trial: Trial) -> None:
    await trial.cluster.delete_topic(trial.place.chunks)
    async with asyncio.timeout(60):
        while trial.place.chunks in await trial.cluster.topics():
            await asyncio.sleep(0.1)
    await trial.cluster.make_topic(trial.place.chunks, CHUNK_PARTITIONS)


def joined(results: Sequence[RowResult], fault: str) -> RowResult:
    """Several trials as one row: what was counted is added up, and the worst stall counts."""
    first = results[0]
    for other in results[1:]:
        mine, theirs = first.verdict, other.verdict
        for name in (
            *("events", "records", "unprocessed", "doubled", "conflicting", "torn_or_illegal"),
            *("open_for_ever", "lost", "foreign", "differing"),
        ):
            setattr(mine, name, getattr(mine, name) + getattr(theirs, name))
        mine.stall = max(mine.stall, theirs.stall, key=lambda stall: stall.seconds)
        mine.examples += theirs.examples
        first.injected += other.injected
        first.seconds += other.seconds
        first.notes += other.notes
        first.complaints += other.complaints
        mine.by_camera += theirs.by_camera
    first.fault = fault
    return first


async def add_partitions(rig: Rig) -> RowResult:
    """Row 17: 4 → 8 partitions under load; producers use them at once."""
    async with a_trial(rig, 17) as trial:
        await trial.begin("a", start="latest")
        await trial.progress(4)
        wider = 2 * CHUNK_PARTITIONS
        for topic in (*trial.other_topics, trial.place.chunks):  # the chunks' last
            await trial.cluster.add_partitions(topic, wider)
        trial.injected += 1
        moved = [
            camera
            for camera in trial.cameras
            if partition_of(camera, wider) != partition_of(camera, CHUNK_PARTITIONS)
        ]
        there = {partition_of(camera, wider) for camera in moved}
        await trial.until(
            lambda: there <= trial.feeder.acknowledged.keys(), "producers to use new partitions"
        )
        await trial.play(10)
        trial.notes.append(f"{len(moved)} of {len(trial.cameras)} cameras moved")
        return await trial.finish(
            "partitions 4 → 8 under load", 15, excused=moved, look=_until_all_final
        )


async def fall_silent(rig: Rig) -> RowResult:
    """Row 18: a camera stops in the middle of an event, without an end mark, and returns."""
    async with a_trial(rig, 18) as trial:
        await trial.begin("a")
        await trial.progress(2)
        await trial.until(lambda: bool(_open_events(trial)), "an open event")
        camera, event_id = next(iter(_open_events(trial).items()))
        trial.feeder.silence(camera)
        trial.injected += 1
        await trial.play(2)
        event_id = _open_events(trial).get(camera, event_id)
        await _judge_silence(trial, camera, event_id)
        trial.feeder.wake(camera)
        await trial.progress(6)
        return await trial.finish("a camera falls silent, and returns", None, excused=[camera])


async def _until_all_final(trial: Trial) -> None:
    """A camera that has moved is silent where it was, and that takes its time."""
    await trial.until(lambda: not _open_events(trial), "the final record of every event")


def _open_events(trial: Trial) -> dict[str, str]:
    """Camera → its newest open event."""
    states: dict[str, tuple[str, bool]] = {}
    for effect in trial.observer.effects:
        if effect.record is not None:
            states[effect.record["event_id"]] = (
                effect.record["camera_id"],
                effect.record["final"],
            )
    return {camera: event_id for event_id, (camera, final) in states.items() if not final}


async def _judge_silence(trial: Trial, camera: str, event_id: str) -> None:
    patience_s = SILENT_AFTER_S + 10
    end_s = asyncio.get_running_loop().time() + patience_s
    while True:
        reasons = [
            effect.record["reason"]
            for effect in trial.observer.effects
            if effect.record and effect.record["event_id"] == event_id and effect.record["final"]
        ]
        if reasons:
            trial.notes.append(f"the silent camera's event ended with reason {reasons[0]}")
            if reasons[0] in _NORMAL_REASONS:
                trial.complaints.append(f"reason {reasons[0]} does not tell of silence")
            return
        if asyncio.get_running_loop().time() > end_s:
            trial.complaints.append(
                f"camera {camera} was silent for {patience_s:g} s and its event stayed open"
            )
            return
        await asyncio.sleep(0.1)


async def unplug(rig: Rig) -> RowResult:
    """Row 19: a camera is unplugged for good; a restart must not read from there on."""
    async with a_trial(rig, 19) as trial:
        (daemon,) = await trial.begin("a")
        await trial.progress(3)
        unplugged = trial.cameras[0]
        trial.feeder.silence(unplugged)
        trial.injected += 1
        await trial.progress(10)
        await daemon.stop()
        daemon.start(tells_fetched=True)
        await daemon.ready()
        await trial.progress(3)
        judge_reread(trial, daemon)
        # Its last event may end by silence, where an undisturbed daemon sees the end of the topic.
        return await trial.finish(
            "a camera is unplugged, and the daemon restarted", 5, excused=[unplugged]
        )


async def move_offsets(rig: Rig) -> RowResult:
    """Row 21: an operator sets half of the offsets back and the others forward."""
    async with a_trial(rig, 21) as trial:
        (daemon,) = await trial.begin("a")
        await trial.progress(4)
        await daemon.stop()
        done = await trial.cluster.committed(trial.place.group, trial.place.chunks)
        await trial.play(3)
        back = {partition: max(0, done[partition] - 12) for partition in (0, 1)}
        forward = {partition: done[partition] + 6 for partition in (2, 3)}
        records = await trial.cluster.records(trial.place.chunks)
        await trial.cluster.move_offsets(
            trial.place.group, trial.place.chunks, {**back, **forward}
        )
        trial.injected += CHUNK_PARTITIONS
        skipping = [c for c in trial.cameras if partition_of(c, CHUNK_PARTITIONS) in forward]
        daemon.start()
        await daemon.ready()
        await trial.progress(5)
        result = await trial.finish("offsets moved by an operator", None, excused=skipping)
        _judge_gaps(trial, daemon, _cameras_with_a_hole(records, {**done, 0: 0, 1: 0}, forward))
        return result


async def poison(rig: Rig) -> RowResult:
    """Row 22: junk beside two good cameras and one that comes later."""
    cameras = ("good-1", "good-2", "late")
    async with a_trial(rig, 22, cameras) as trial:
        trial.feeder.silence("late")
        await trial.begin("a")
        await trial.progress(1)
        for number in range(_POISONED):
            key = f"junk-{number % _JUNK_NAMES}".encode()
            junk = trial.rng.randbytes(60)
            headers = [("vc_epoch", b"x")] if number % 3 == 0 else []
            await trial.feeder.put(Record(key, headers, junk))
        trial.injected += 1  # all of it is one fault
        await trial.progress(2)
        trial.feeder.wake("late")
        await trial.play(8)
        what = f"{_POISONED} poisoned records of {_JUNK_NAMES} junk names"
        return await trial.finish(f"{what} beside three cameras", 5)
