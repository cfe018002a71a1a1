"""A topic that is made anew under the same name has another id."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import UnknownTopicOrPartitionError

from daemon.errors import TransportError
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.topic_identity import topic_id, topic_id_from
from tests.support.kafka import MakeTopic

needs_broker = pytest.mark.kafka


@pytest.fixture
async def client(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(bootstrap_servers=kafka_bootstrap)
    await client.bootstrap()
    yield client
    await client.close()


@pytest.fixture
async def admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    yield admin
    await admin.close()


@needs_broker
async def test_a_topic_has_one_id_however_often_and_over_whatever_connection_it_is_asked_for(
    kafka_bootstrap: str, make_topic: MakeTopic, client: AIOKafkaClient
) -> None:
    topic, other = await make_topic(3), await make_topic(1)
    found = await topic_id(KafkaConnection(kafka_bootstrap), topic)

    assert found is not None
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", found)
    assert [found, found] == [await topic_id_from(client, topic) for _ in range(2)]
    assert found != await topic_id_from(client, other)


@needs_broker
async def test_a_topic_made_anew_under_its_name_has_another_id(
    make_topic: MakeTopic, client: AIOKafkaClient, admin: AIOKafkaAdminClient
) -> None:
    topic = await make_topic(1)
    before = await topic_id_from(client, topic)

    await admin.delete_topics([topic])
    await until(client, topic, is_there=False)
    with pytest.raises(UnknownTopicOrPartitionError, match=topic):
        await topic_id_from(client, topic)
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await until(client, topic, is_there=True)
    after = await topic_id_from(client, topic)

    assert None not in (before, after)
    assert before != after


async def until(client: AIOKafkaClient, topic: str, *, is_there: bool) -> None:
    """Wait until the broker has heard from its controller."""
    async with asyncio.timeout(30):
        while await knows(client, topic) != is_there:
            await asyncio.sleep(0.01)


async def knows(client: AIOKafkaClient, topic: str) -> bool:
    try:
        await topic_id_from(client, topic)
    except UnknownTopicOrPartitionError:
        return False
    return True


@needs_broker
async def test_a_topic_that_is_not_there_is_named_and_not_created(
    kafka_bootstrap: str, admin: AIOKafkaAdminClient
) -> None:
    connection = KafkaConnection(kafka_bootstrap, connect_timeout_s=0.1)
    with pytest.raises(TransportError, match="topic none-such: no such topic; create it"):
        await topic_id(connection, "none-such")

    assert "none-such" not in await admin.list_topics()


async def test_a_broker_without_ids_tells_none() -> None:
    class OldBroker:
        def get_random_node(self) -> int:
            return 1

        async def send(self, _node: int, request: Any) -> Any:
            return request.prepare({3: (0, 9)})  # what aiokafka's connection does first

    assert await topic_id_from(OldBroker(), "chunks") is None
