"""A broker falls silent, whoever waits for it is told to end: no connection stays behind.

One that stayed would be closed when it is collected, at some other time, with a warning.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from daemon.journal.kafka.group_offsets import GroupOffsets
from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.clients import admin_of, start, stop
from daemon.kafka.connection import KafkaConnection, describe_topic
from daemon.kafka.producer import DurableProducer
from daemon.kafka.reading import a_reader
from daemon.kafka.reasons import refusal
from daemon.kafka.topic_identity import topic_id
from daemon.sources.kafka.assignment import Assignment
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.sources.kafka.source import KafkaChunkSource
from tests.support.owner import Owner
from tests.support.silent_broker import a_silent_broker
from tests.support.waiting import until


async def a_description(connection: KafkaConnection) -> None:
    await describe_topic(connection, "events")


async def an_admin(connection: KafkaConnection) -> None:
    async with admin_of(connection) as admin:
        await admin.describe_topics(["events"])


async def a_producer(connection: KafkaConnection) -> None:
    await DurableProducer(connection, "events")._ready()


async def a_journal_producer(connection: KafkaConnection) -> None:
    await a_journal(connection)._new_producer(0)


async def a_journal_admin(connection: KafkaConnection) -> None:
    await GroupOffsets(settings_of(connection)).of(0)


def a_journal(connection: KafkaConnection) -> KafkaJournal:
    source = KafkaChunkSource(KafkaSourceSettings(connection, "chunks", group_id="group"))
    return KafkaJournal(settings_of(connection), source)


def settings_of(connection: KafkaConnection) -> KafkaJournalSettings:
    return KafkaJournalSettings(
        connection, group_id="group", chunks_topic="chunks", events_topic="events", prefix="own"
    )


async def a_topic_reader(connection: KafkaConnection) -> None:
    async with a_reader(connection, TopicPartition("chunks", 0)) as consumer:
        await consumer.end_offsets([TopicPartition("chunks", 0)])


async def a_member(connection: KafkaConnection) -> None:
    source = KafkaChunkSource(KafkaSourceSettings(connection, "chunks", group_id="group"))
    source._assignment = Assignment(source._settings, Owner(), source._outage)
    await source._connect()


async def an_identity(connection: KafkaConnection) -> None:
    await topic_id(connection, "chunks")


async def a_question_why(connection: KafkaConnection) -> None:
    await refusal(connection)


CLIENTS = [
    a_description,
    an_admin,
    a_producer,
    a_journal_producer,
    a_journal_admin,
    a_topic_reader,
    a_member,
]
SILENT_AT = {
    "the first connection": (0, 0),
    "the first question": (1, 0),
    "the second connection": (1, 1),
    "the second question": (2, 1),
}
CASES = [
    *((client, at) for client in CLIENTS for at in SILENT_AT),
    *((an_identity, at) for at in list(SILENT_AT)[:3]),
    *((a_question_why, at) for at in list(SILENT_AT)[:2]),
]


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(("client", "silent_at"), CASES)
async def test_who_is_told_to_end_leaves_no_connection(
    client: Callable[[KafkaConnection], Awaitable[None]], silent_at: str
) -> None:
    async with a_silent_broker(*SILENT_AT[silent_at]) as broker:
        task = asyncio.ensure_future(client(KafkaConnection(broker.address)))
        await until(lambda: broker.n_unanswered > 0)
        task.cancel()
        await asyncio.wait([task])
        broker.go_on()

        await until(lambda: broker.n_open == 0)


@pytest.mark.usefixtures("no_collection")
async def test_a_connection_that_comes_after_the_end_is_closed() -> None:
    async with a_silent_broker(1, 1) as broker, asyncio.TaskGroup() as tasks:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await start(admin)
        tasks.create_task(admin._client.ready(1))
        await until(lambda: broker.n_unanswered > 0)

        await stop(admin)
        broker.go_on()

        await until(lambda: broker.n_open == 0)


@pytest.mark.usefixtures("no_collection")
async def test_an_end_that_is_cut_short_closes_connections_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_silent_broker(2, 1) as broker:
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.address)
        await start(consumer)
        assert await consumer._client.ready(1)
        await until(lambda: broker.n_open == 1)
        with monkeypatch.context() as patch:
            patch.setattr(consumer._coordinator, "close", asyncio.Event().wait)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stop(consumer), 0.01)

        await until(lambda: broker.n_open == 0)
        await consumer._coordinator.close()
