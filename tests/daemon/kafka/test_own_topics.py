"""What readers of a journal's own topics see while daemons work."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from daemon.cameras import CameraLimits
from daemon.journal.base import CameraStatus, DeadLetter, Owner, Presence, Step
from daemon.journal.kafka.committed import STEP_KEY
from daemon.journal.kafka.dead_records import parse_dead
from daemon.journal.kafka.journal import KafkaJournal
from daemon.wire.schemas import camera_status_schema
from engine.types import Phase
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.kafka import Member
from tests.support.kafka_stage import Stage, foreign, newest
from tests.support.records import an_event

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


@pytest.fixture
async def stage(kafka_bootstrap: str) -> Stage:
    stage = Stage(kafka_bootstrap)
    await stage.open()
    return stage


@pytest.fixture
async def journal(stage: Stage) -> AsyncIterator[KafkaJournal]:
    journal = KafkaJournal(stage.journal, Member())
    await journal.start()
    await journal.take(f"{stage.journal.chunks_topic}/0")
    yield journal
    await journal.close()


async def test_latest_has_one_record_an_event_and_a_retracted_one_goes(
    stage: Stage, journal: KafkaJournal
) -> None:
    partition = f"{stage.journal.chunks_topic}/0"
    first = (an_event("a", 0), an_event("b", 0), an_event("a", 1))
    then = (an_event("b", 1, phase=Phase.RETRACTED), an_event("a", 2))

    await journal.commit(partition, Step(1, 5, revisions=first))
    await journal.commit(partition, Step(2, 9, revisions=then))

    events = await stage.records(stage.journal.events_topic)
    latest = await stage.records(stage.journal.latest_topic)
    assert [b"a"] == list(newest(latest))
    of_b = [record.value for record in latest if record.key == b"b"]
    assert [0, 1, None] == [value and json.loads(value)["revision"] for value in of_b]
    by_revision = {
        (json.loads(r.value)["event_id"], json.loads(r.value)["revision"]): r for r in events
    }
    wanted = by_revision["a", 2]
    assert (wanted.value, wanted.headers) == (
        newest(latest)[b"a"].value,
        newest(latest)[b"a"].headers,
    )


async def test_a_step_that_is_not_kept_shows_nothing_in_latest(
    stage: Stage, journal: KafkaJournal
) -> None:
    seat = journal._seats[0]
    assert seat.producer is not None
    await seat.producer.begin_transaction()
    await seat.send(seat.producer, Step(1, 5, revisions=(an_event("a", 0),)))

    again = KafkaJournal(stage.journal, Member())
    await again.start()
    await again.take(f"{stage.journal.chunks_topic}/0")  # which ends what was left open
    await again.close()

    assert [] == await stage.records(stage.journal.latest_topic)


async def test_a_daemons_events_are_in_latest_each_once(stage: Stage, clip: Path) -> None:
    chunks = chunks_of(clip, "cam")
    await stage.put(*chunks)

    async with stage.daemon() as daemon:
        await daemon.app.finished(len(chunks))

    events = [json.loads(r.value) for r in await stage.records(stage.journal.events_topic)]
    final = {e["event_id"]: e for e in events if e["final"] and e["state"] != "retracted"}
    latest = newest(await stage.records(stage.journal.latest_topic))
    assert final
    assert final == {key.decode(): json.loads(record.value) for key, record in latest.items()}


async def test_a_letter_that_the_topic_does_not_take_is_cut(
    stage: Stage, journal: KafkaJournal
) -> None:
    partition = f"{stage.journal.chunks_topic}/0"
    payload = bytes(9 * 2**20)
    letters = tuple(
        DeadLetter("cam", partition, n, "E", "why", payload, b"cam", (("h", None),))
        for n in range(3)
    )

    await journal.commit(partition, Step(1, 3, dead=letters))

    records = await stage.records(stage.journal.dead_topic)
    stored = [parse_dead(r.key, r.headers, r.value) for r in records]
    assert [True] * 3 == [each.truncated for each in stored]
    assert {len(payload)} == {each.size for each in stored}
    assert [(("h", None),)] * 3 == [each.letter.headers for each in stored]


async def test_bad_records_of_unknown_cameras_leave_no_state(stage: Stage, clip: Path) -> None:
    chunks = chunks_of(clip, "cam")
    junk = [foreign(b"junk-%d" % n, b"no video") for n in range(20)]
    malformed = [foreign(b"odd-%d" % n, b"x", ("vc_epoch", b"r")) for n in range(20)]
    await stage.put_records([*junk, *malformed, foreign(b"\xff", b"x"), foreign(None, b"")])
    await stage.put(*chunks)

    async with stage.daemon() as daemon:
        await daemon.app.finished(len(chunks) + 42)

    states = newest(await stage.records(stage.journal.state_topic))
    assert {STEP_KEY, b"cam"} == states.keys()
    assert 42 == len(await stage.records(stage.journal.dead_topic))


async def statuses(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(r.value) for r in await stage.records(stage.journal.status_topic)]


async def served_by(stage: Stage, instance: str) -> bool:
    """Whether a daemon has told of the cameras that it took over."""
    return instance in {status["owner"]["instance"] for status in await statuses(stage)}


async def test_a_silent_camera_is_told_of_and_who_serves_it(stage: Stage, clip: Path) -> None:
    chunks = chunks_of(clip, "cam")
    await stage.put(*chunks[:3])
    limits = CameraLimits(silent_after_s=0.3, look_s=0.05)

    async with stage.daemon(cameras=limits, instance="one") as daemon:
        await stage.until(lambda: daemon.count("silent_cameras_total", camera="cam") == 1)
    async with stage.daemon(cameras=limits, instance="two") as daemon:
        while not await served_by(stage, "two"):  # one step tells only the newest of a camera
            await asyncio.sleep(0.02)
        await stage.put(chunks[3])
        await daemon.app.finished(1)

    told = await statuses(stage)
    schema = Draft202012Validator(camera_status_schema())
    for status in told:
        schema.validate(status)
    states = [(status["owner"]["instance"], status["state"]) for status in told]
    assert ("one", "silent") in states
    assert ("two", "silent") == next(state for state in states if state[0] == "two")
    silent = next(status for status in told if status["state"] == "silent")
    assert silent["silent_since"] < silent["updated"]
    assert {stage.journal.chunks_topic} == {s["partition"].rpartition("/")[0] for s in told}
    assert {"queued": 0, "partition": 0, "seconds": None} == silent["lag"]


async def test_a_status_that_is_forgotten_leaves_no_value(
    stage: Stage, journal: KafkaJournal
) -> None:
    partition = f"{stage.journal.chunks_topic}/0"
    online = CameraStatus("cam", Presence.ONLINE, 5, partition, Owner("host"), "model")
    gone = replace(online, state=Presence.FORGOTTEN)

    await journal.commit(partition, Step(1, 5, statuses=(online,)))
    await journal.commit(partition, Step(2, 5, statuses=(gone,)))

    records = await stage.records(stage.journal.status_topic)
    assert [False, True] == [record.value is None for record in records]
    assert {} == newest(records)


async def test_a_daemon_that_has_not_kept_up_says_how_far_behind_it_is(
    stage: Stage, clip: Path
) -> None:
    template = chunks_of(clip, "cam")[0]
    await stage.put(*(replace(template, sequence=n) for n in range(200)))

    async with stage.daemon() as daemon:
        await daemon.app.finished(1)

    first = (await statuses(stage))[0]
    assert first["lag"]["partition"] > 100
