"""A broker has ended a transaction, but not in all of its partitions, where it hangs.

A broker that is killed while it completes one leaves this behind now and then. It cannot be had
at will; what is sent to partitions that the broker was not told of is the same to it, if it has
been told not to look for that.
"""

import asyncio
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from daemon.errors import StaleOwnerError
from daemon.journal.base import CameraState, FeatureRows, Step
from daemon.journal.kafka.committed import Committed
from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.reading import a_reader, written_ends
from daemon.kafka.stable_offset import GroupOffset, stable_offset
from tests.support.kafka import Member, OwnBroker, administering, create_topics, need_java
from tests.support.kafka_daemon import topic_events
from tests.support.processes import PATIENCE_S
from tests.support.records import an_event

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


OFFSET = "offset"

_log = logging.getLogger(__name__)


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
        self._n_partitions = 1
        self._open: list[KafkaJournal] = []

    async def open(self, n_partitions: int = 1) -> None:
        self._n_partitions = n_partitions
        names = (self.settings.chunks_topic, self.settings.events_topic)
        async with administering(self.bootstrap) as admin:
            await create_topics(admin, *[NewTopic(name, n_partitions, 1) for name in names])

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
        async with asyncio.timeout(PATIENCE_S):
            told = await topic_events(
                self.bootstrap, self.settings.events_topic, self._n_partitions
            )
        return [event["event_id"] for event in told]

    async def leave_hanging(
        self,
        journal: KafkaJournal,
        step: Step,
        hanging: AbstractSet[str],
        *,
        is_taken: bool = True,
    ) -> None:
        """End a step's transaction everywhere but in some topics, and let the journal not know.

        Args:
            journal: The journal, whose producer is lost.
            step: The step.
            hanging: Names of topics; ``OFFSET`` stands for the group's offset.
            is_taken: Whether it is committed, where it ends.
        """
        seat = journal._seats[0]
        producer = seat.producer
        assert producer is not None
        await self.until_hidden(set())  # marks of the step before would end what is to hang
        await producer.begin_transaction()
        manager: Any = producer._txn_manager
        # As if the broker had been told of these, so it is not, and marks none of them.
        manager._txn_partitions |= {
            TopicPartition(topic, 0) for topic in hanging if topic != OFFSET
        }
        manager._txn_consumer_group = self.settings.group_id if OFFSET in hanging else None
        await seat.send(producer, step)
        offset = seat.offset(Committed.by(step))
        await producer.send_offsets_to_transaction(offset, self.settings.group_id)
        if not self.all_of_a_step <= hanging:
            await (producer.commit_transaction() if is_taken else producer.abort_transaction())
        await journal._give_up(seat)
        await self.until_hidden(hanging)

    @property
    def all_of_a_step(self) -> AbstractSet[str]:
        settings = self.settings
        return {
            OFFSET,
            settings.events_topic,
            settings.latest_topic,
            settings.state_topic,
            settings.features_topic,
        }

    async def until_hidden(self, wanted: AbstractSet[str]) -> None:
        """Wait until just this is hidden; a broker marks partitions after it has answered."""
        async with asyncio.timeout(PATIENCE_S):
            while wanted != await self.hidden_now():
                await asyncio.sleep(0.05)

    async def hidden_now(self) -> AbstractSet[str]:
        """Topics of which readers do not get all, and ``OFFSET`` if that is not settled."""
        topics = [TopicPartition(topic, 0) for topic in self.all_of_a_step - {OFFSET}]
        connection = self.settings.connection
        written = await written_ends(connection, *topics)
        async with a_reader(connection, *topics) as consumer:
            readable = await consumer.end_offsets(topics)
        hidden = {each.topic for each in topics if readable[each] < written[each]}
        return hidden if (await self.offset()).is_settled else {OFFSET, *hidden}


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
    state = CameraState(f"after {number}".encode(), run="run", first_feature=0)
    event = an_event(event_id=f"event-{number}")
    rows = FeatureRows("cam", "run", 0, number - 1, np.full((1, 2), number, np.float16))
    return Step(
        *(number, 10 * number),
        revisions=(event,),
        features=(rows,),
        states={"cam": state},
    )


def parts(journals: Journals, names: str) -> AbstractSet[str]:
    """What hangs: names of topics, without what is the test's own in them."""
    settings = journals.settings
    topics = {
        "events": settings.events_topic,
        "latest": settings.latest_topic,
        "state": settings.state_topic,
        "features": settings.features_topic,
    }
    return {topics.get(name, name) for name in names.split()}


HANGING = pytest.mark.parametrize(
    ("names", "is_taken", "n_more"),
    [
        # A broker was killed before it marked the group's offset, or before it marked anything.
        pytest.param("offset", True, 1, id="the offset, of a step that was taken"),
        pytest.param("offset", False, 0, id="the offset, of a step that was not"),
        pytest.param("offset events latest state features", True, 0, id="all of it"),
        # And before it marked some of them, which lie on different brokers.
        pytest.param("offset events", True, 1, id="the offset and events"),
        pytest.param("offset latest", False, 0, id="the offset and more, of a step that was not"),
        pytest.param("state", True, 1, id="the states"),
        pytest.param("state events", True, 1, id="the states and events"),
        pytest.param("state", False, 0, id="the states, of a step that was not taken"),
        pytest.param("features", True, 1, id="the features"),
        pytest.param("features", False, 0, id="the features, of a step that was not taken"),
        pytest.param("offset features", True, 1, id="the offset and features"),
    ],
)


@HANGING
async def test_its_own_journal_goes_on(
    journals: Journals, names: str, *, is_taken: bool, n_more: int
) -> None:
    journal = await journals.new()
    await journal.take(journals.partition)
    await journal.commit(journals.partition, a_step(1))
    hanging = parts(journals, names)
    await journals.leave_hanging(journal, a_step(2), hanging, is_taken=is_taken)

    await journal.commit(journals.partition, a_step(2))

    assert [(journals.partition, 1 + n_more)] == journals.hung
    await journal.commit(journals.partition, a_step(3))
    assert [f"event-{number}" for number in (1, 2, 3)] == await journals.events()
    assert GroupOffset(30, "s2netd:3::") == await journals.offset()
    await journals.until_hidden(set())


@pytest.mark.parametrize("n_before", [0, 1])
@HANGING
async def test_the_next_owner_begins_where_it_ended(
    journals: Journals, names: str, n_before: int, *, is_taken: bool, n_more: int
) -> None:
    journal = await journals.new()
    await journal.take(journals.partition)
    for number in range(1, n_before + 1):
        await journal.commit(journals.partition, a_step(number))
    hanging = parts(journals, names)
    await journals.leave_hanging(journal, a_step(n_before + 1), hanging, is_taken=is_taken)

    past = await (await journals.new()).take(journals.partition)

    n_taken = n_before + n_more
    assert (n_taken, 10 * n_taken if n_taken else None) == (past.number, past.next_offset)
    assert ([f"after {n_taken}".encode()] if n_taken else []) == [
        left.state.blob for left in past.cameras.values()
    ]
    rows = [rows.vectors[0, 0] for left in past.cameras.values() for rows in left.features]
    assert list(range(1, n_taken + 1)) == rows
    assert [(journals.partition, n_taken)] == journals.hung
    if n_taken:
        assert GroupOffset(10 * n_taken, f"s2netd:{n_taken}::") == await journals.offset()
    assert [f"event-{number + 1}" for number in range(n_taken)] == await journals.events()
    await journals.until_hidden(set())


@pytest.mark.parametrize("names", ["offset events latest state features", "offset state"])
async def test_what_the_broker_has_answered_for_stays(journals: Journals, names: str) -> None:
    """It had decided, and died before it marked a thing; the step after finds it so."""
    journal = await journals.new()
    await journal.take(journals.partition)
    await journal.commit(journals.partition, a_step(1))
    await journals.leave_hanging(journal, a_step(2), parts(journals, names))
    journal._seats[0].answered = Committed.by(a_step(2))

    await journal.commit(journals.partition, a_step(3))

    assert [(journals.partition, 2)] == journals.hung
    assert [f"event-{number}" for number in (1, 2, 3)] == await journals.events()
    assert GroupOffset(30, "s2netd:3::") == await journals.offset()
    await journals.until_hidden(set())


async def test_an_offset_that_was_lost_with_what_hung_is_set_again(journals: Journals) -> None:
    """Whoever aborts such a transaction by hand takes the offset back, and the step stays."""
    journal = await journals.new()
    await journal.take(journals.partition)
    await journal.commit(journals.partition, a_step(1))
    await journals.leave_hanging(journal, a_step(2), {OFFSET})
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


N_KILLS = 8
N_PRODUCERS = 8  # the more of them, the likelier one is just being marked


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_broker_that_is_killed_again_and_again_costs_no_step(
    own_broker: OwnBroker,
) -> None:
    """Some of these kills leave transactions hanging, as it happens."""
    journals = Journals(own_broker.start())
    await journals.open(N_PRODUCERS)
    journal = await journals.new()
    n_kept, is_over = [0] * N_PRODUCERS, False

    async def keep(number: int) -> None:
        partition = f"{journals.settings.chunks_topic}/{number}"
        await journal.take(partition)
        while not is_over:
            step = n_kept[number] + 1
            event = an_event(event_id=f"{number}-{step}")
            try:
                await journal.commit(partition, Step(step, step, revisions=(event,)))
                n_kept[number] = step
            except StaleOwnerError:  # the broker was away for longer than a transaction may take
                n_kept[number] = (await journal.take(partition)).number

    async with asyncio.TaskGroup() as group:
        for number in range(N_PRODUCERS):
            group.create_task(keep(number))
        for kill in range(N_KILLS):
            await asyncio.sleep(1.5)
            own_broker.signal(signal.SIGKILL)
            await asyncio.to_thread(own_broker.start)
            before = list(n_kept)
            async with asyncio.timeout(PATIENCE_S):
                while any(now <= then for now, then in zip(n_kept, before, strict=True)):
                    await asyncio.sleep(0.1)
            _log.info("kill %d: all go on; hung so far: %s", kill + 1, journals.hung)
        is_over = True

    wanted = [f"{number}-{step + 1}" for number, n in enumerate(n_kept) for step in range(n)]
    assert sorted(wanted) == sorted(await journals.events())
    await journals.close()
