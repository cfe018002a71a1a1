"""A broker has ended a transaction everywhere but in the group's offsets, where it hangs.

A broker that is killed while it completes one leaves this behind now and then. It cannot be had
at will; an offset that is sent for a transaction that has ended is the same to the broker, which
must have been told not to look for that.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.protocol.transaction import TxnOffsetCommitRequest

from daemon.journal.base import CameraState, Step
from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.seat import Seat
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.stable_offset import GroupOffset, stable_offset
from tests.support.kafka import Member, OwnBroker, administering, create_topics, need_java
from tests.support.kafka_daemon import topic_events
from tests.support.records import an_event

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


class Journals:
    """Journals of one group, one after the other, and what they tell.

    Attributes:
        partition: The only one.
        hung: What was told of transactions that hung.
    """

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        name = uuid.uuid4().hex
        self.settings = KafkaJournalSettings(
            KafkaConnection(bootstrap),
            group_id=f"group-{name}",
            chunks_topic=f"chunks-{name}",
            events_topic=f"events-{name}",
            prefix=f"own-{name}",
        )
        self.partition = f"chunks-{name}/0"
        self.hung: list[tuple[str, int]] = []
        self._open: list[KafkaJournal] = []

    async def open(self) -> None:
        names = (self.settings.chunks_topic, self.settings.events_topic)
        async with administering(self.bootstrap) as admin:
            await create_topics(admin, *[NewTopic(name, 1, 1) for name in names])

    async def new(self) -> KafkaJournal:
        tell = lambda *what: self.hung.append(what)  # noqa: E731
        journal = KafkaJournal(self.settings, Member(), on_hanging=tell)
        self._open.append(journal)
        await journal.start()
        return journal

    @property
    def place(self) -> TopicPartition:
        return TopicPartition(self.settings.chunks_topic, 0)

    async def close(self) -> None:
        for journal in self._open:
            await journal.close()

    async def offset(self) -> GroupOffset:
        async with administering(self.bootstrap) as admin:
            return await stable_offset(admin, self.settings.group_id, self.place, patience_s=0.5)

    async def events(self) -> list[str]:
        return [
            event["event_id"]
            for event in await topic_events(self.bootstrap, self.settings.events_topic, 1)
        ]

    async def leave_hanging(self, journal: KafkaJournal, step: Step, *, is_taken: bool) -> None:
        """Let a step's transaction end and its offset hang, and the journal not know of it."""
        seat = journal._seats[0]
        producer = seat.producer
        assert producer is not None
        await producer.begin_transaction()
        await seat.send(producer, step)
        await (producer.commit_transaction() if is_taken else producer.abort_transaction())
        await self._send_offset(seat, producer, step)
        await journal._give_up(seat)
        found = await self.offset()
        assert not found.is_settled

    async def _send_offset(self, seat: Seat, producer: AIOKafkaProducer, step: Step) -> None:
        manager: Any = producer._txn_manager
        metadata = f"s2netd:{step.number}::"
        late = TxnOffsetCommitRequest(
            *(manager.transactional_id, self.settings.group_id),
            *(manager.producer_id, manager.producer_epoch),
            [(self.settings.chunks_topic, [(seat.number, step.next_offset, metadata)])],
        )
        async with administering(self.bootstrap) as admin:
            coordinator = await admin.find_coordinator(self.settings.group_id)
            answer = await admin._send_request(late, coordinator)
        assert answer.errors == [(self.settings.chunks_topic, [(0, 0)])]


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need_java("a broker of our own needs")
    folder = tmp_path_factory.mktemp("kafka")
    broker = OwnBroker(folder, transaction_partition_verification_enable="false")
    try:
        yield broker.start()
    finally:
        broker.run("stop")


@pytest.fixture
async def journals(bootstrap: str) -> AsyncIterator[Journals]:
    journals = Journals(bootstrap)
    await journals.open()
    yield journals
    await journals.close()


def a_step(number: int) -> Step:
    state = CameraState(f"after {number}".encode())
    event = an_event(event_id=f"event-{number}")
    return Step(number, next_offset=10 * number, revisions=(event,), states={"cam": state})


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
async def test_its_own_journal_goes_on(journals: Journals, *, is_taken: bool) -> None:
    journal = await journals.new()
    await journal.take(journals.partition)
    await journal.commit(journals.partition, a_step(1))
    await journals.leave_hanging(journal, a_step(2), is_taken=is_taken)

    await journal.commit(journals.partition, a_step(2))

    assert [(journals.partition, 2 if is_taken else 1)] == journals.hung
    assert GroupOffset(20, "s2netd:2::") == await journals.offset()
    await journal.commit(journals.partition, a_step(3))
    assert [f"event-{number}" for number in (1, 2, 3)] == await journals.events()
    assert GroupOffset(30, "s2netd:3::") == await journals.offset()
    assert 1 == len(journals.hung)


@pytest.mark.parametrize("n_before", [0, 1])
@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
async def test_the_next_owner_begins_where_it_ended(
    journals: Journals, n_before: int, *, is_taken: bool
) -> None:
    journal = await journals.new()
    await journal.take(journals.partition)
    for number in range(1, n_before + 1):
        await journal.commit(journals.partition, a_step(number))
    await journals.leave_hanging(journal, a_step(n_before + 1), is_taken=is_taken)

    past = await (await journals.new()).take(journals.partition)

    n_taken = n_before + is_taken
    assert (n_taken, 10 * n_taken if n_taken else None) == (past.number, past.next_offset)
    assert ([f"after {n_taken}".encode()] if n_taken else []) == [
        left.state.blob for left in past.cameras.values()
    ]
    assert [(journals.partition, n_taken)] == journals.hung
    if n_taken:
        assert GroupOffset(10 * n_taken, f"s2netd:{n_taken}::") == await journals.offset()
    assert [f"event-{number + 1}" for number in range(n_taken)] == await journals.events()


async def test_an_offset_that_was_lost_with_what_hung_is_set_again(journals: Journals) -> None:
    """Whoever aborts such a transaction by hand takes the offset back, and the step stays."""
    journal = await journals.new()
    await journal.take(journals.partition)
    await journal.commit(journals.partition, a_step(1))
    await journals.leave_hanging(journal, a_step(2), is_taken=True)
    producer = await journal._new_producer(0)
    await producer.begin_transaction()
    offsets = {journals.place: (20, "")}
    await producer.send_offsets_to_transaction(offsets, journals.settings.group_id)
    await producer.abort_transaction()
    await producer.stop()
    assert GroupOffset(10, "s2netd:1::") == await journals.offset()

    past = await (await journals.new()).take(journals.partition)

    assert 2 == past.number
    assert GroupOffset(20, "s2netd:2::") == await journals.offset()


async def test_states_that_cannot_be_read_are_waited_for(
    journals: Journals,
) -> None:
    """Another transaction hides the newest states; the offset alone would promise too much."""
    journal = await journals.new()
    await journal.take(journals.partition)
    await journal.commit(journals.partition, a_step(1))
    hides = AIOKafkaProducer(bootstrap_servers=journals.bootstrap, transactional_id="hides")
    await hides.start()
    await hides.begin_transaction()
    await hides.send_and_wait(journals.settings.state_topic, b"x", b"x", partition=0)
    await journal.commit(journals.partition, a_step(2))

    taking = asyncio.create_task((other := await journals.new()).take(journals.partition))
    topic = journals.settings.state_topic
    while f"a transaction hangs in partition 0 of topic {topic}" not in other._outage.reason:
        assert not taking.done()
        await asyncio.sleep(0.05)
    await hides.abort_transaction()
    past = await taking
    await hides.stop()

    assert 2 == past.number
    assert b"after 2" == past.cameras["cam"].state.blob
    assert not journals.hung
