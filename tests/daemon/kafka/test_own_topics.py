"""What readers of a journal's own topics see while daemons work."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.journal.base import DeadLetter, Step
from daemon.journal.kafka.dead_records import parse_dead
from daemon.journal.kafka.journal import KafkaJournal
from engine.types import Phase
from tests.support.footage import BUSY, chunks_of, colour_clip
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


class Alone:
    """A member of a group that has no other."""

    async def is_member(self) -> bool:
        return True

    async def commit(self, partition: str, next_offset: int, metadata: str) -> None:
        raise AssertionError((partition, next_offset, metadata))


@pytest.fixture
async def journal(stage: Stage) -> AsyncIterator[KafkaJournal]:
    journal = KafkaJournal(stage.journal, Alone())
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

    again = KafkaJournal(stage.journal, Alone())
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
    assert [b"cam"] == list(states)
    assert 42 == len(await stage.records(stage.journal.dead_topic))
