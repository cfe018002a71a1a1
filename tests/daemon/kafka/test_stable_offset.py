"""A group's offset is only told once the transaction that may change it has ended."""

import asyncio
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CoordinatorLoadInProgressError
from aiokafka.structs import OffsetAndMetadata

from daemon.kafka.stable_offset import GroupOffset, stable_offset
from tests.support.kafka import MakeTopic
from tests.support.processes import PATIENCE_S

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("is_committed", [True, False])
async def test_an_offset_waits_for_the_transaction_that_may_change_it(
    kafka_bootstrap: str, make_topic: MakeTopic, *, is_committed: bool
) -> None:
    group, partition = f"group-{uuid.uuid4()}", TopicPartition(await make_topic(1), 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=group)
    await admin.start()
    await producer.start()
    try:
        other = f"group-{uuid.uuid4()}"
        async with producer.transaction():
            await producer.send_offsets_to_transaction(
                {partition: OffsetAndMetadata(7, "seven")}, group
            )
        assert GroupOffset(7, "seven") == await stable_offset(admin, group, partition)
        assert GroupOffset(None) == await stable_offset(admin, other, partition)

        await producer.begin_transaction()
        await producer.send_offsets_to_transaction(
            {partition: OffsetAndMetadata(8, "eight")}, group
        )
        as_it_is = await stable_offset(admin, group, partition, patience_s=0.2)
        assert GroupOffset(7, "seven", is_settled=False) == as_it_is
        asking = asyncio.create_task(stable_offset(admin, group, partition, patience_s=PATIENCE_S))
        done, _ = await asyncio.wait({asking}, timeout=1)
        assert not done
        await (producer.commit_transaction() if is_committed else producer.abort_transaction())
        offset, metadata = (8, "eight") if is_committed else (7, "seven")
        assert GroupOffset(offset, metadata) == await asking
    finally:
        await producer.stop()
        await admin.close()


class LoadingAdmin:
    """A broker whose coordinator is still loading, as it is after each restart."""

    async def find_coordinator(self, _group: str) -> int:
        return 1

    async def _send_request(self, _question: Any, _node: int) -> Any:
        class Answer:
            error_code = 14
            topics: tuple[()] = ()

        return Answer()


async def test_a_coordinator_that_cannot_tell_is_no_group_without_an_offset() -> None:
    with pytest.raises(CoordinatorLoadInProgressError):
        await stable_offset(LoadingAdmin(), "group", TopicPartition("topic", 0))
