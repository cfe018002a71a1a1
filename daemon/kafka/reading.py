"""Reads parts of topics as a bystander, which joins no group and commits nothing.

Unless it asks for them, it sees no record of a transaction that was not committed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from daemon.kafka.clients import start, stop
from daemon.kafka.connection import KafkaConnection
from daemon.wire.records import parse_chunk
from engine.types import VideoChunk

# All that is wanted is there already, so a broker that has nothing to give is asked elsewhere at
# once: aiokafka asks it for one thing at a time, and this is what the next one would wait for.
_POLL_MS = 20
_FETCH_BYTES = 16 * 2**20


@asynccontextmanager
async def a_reader(
    connection: KafkaConnection,
    *partitions: TopicPartition,
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of these partitions, which is stopped in the end.

    Raises:
        KafkaError: The broker cannot be reached, or refuses.
    """
    consumer = AIOKafkaConsumer(
        **connection.options(),
        isolation_level=isolation_level,
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,  # a larger record comes all the same, alone
        fetch_max_wait_ms=_POLL_MS,
    )
    try:
        await start(consumer)
        consumer.assign(list(partitions))
        yield consumer
    finally:
        await stop(consumer)


async def bounds(consumer: AIOKafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
    """The offset of a partition's oldest record, and the one after its newest."""
    first = (await consumer.beginning_offsets([partition]))[partition]
    end = (await consumer.end_offsets([partition]))[partition]
    return first, end


async def written_ends(
    connection: KafkaConnection, *partitions: TopicPartition
) -> dict[TopicPartition, int]:
    """Where partitions end, whatever of it can be read already."""
    async with a_reader(connection, *partitions, isolation_level="read_uncommitted") as consumer:
        return dict(await consumer.end_offsets(list(partitions)))


async def records_between(
    connection: KafkaConnection,
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    first: int,
    end: int,
) -> AsyncIterator[ConsumerRecord]:
    """The records of a partition from ``first`` up to ``end``, which is not among them.

    Args:
        connection: How long to wait for a broker that gives none.
        consumer: A reader of the partition, and perhaps of others.
        partition: The partition.
        first: The first offset that is wanted.
        end: One more than the last.

    Raises:
        TimeoutError: For as long as the connection is patient, there was none.
    """
    consumer.pause(*consumer.assignment())
    consumer.resume(partition)
    consumer.seek(partition, first)
    loop = asyncio.get_running_loop()
    position, since_s = first, loop.time()
    while position < end:
        batches = await consumer.getmany(partition, timeout_ms=_POLL_MS)
        for record in batches.get(partition, ()):
            if record.offset < end:
                yield record
        # The ends of transactions take offsets too, of which no record comes.
        seen = await consumer.position(partition)
        if seen > position:
            position, since_s = seen, loop.time()
        elif loop.time() - since_s >= connection.connect_timeout_s:
            raise TimeoutError(f"{partition}: no record after offset {position}")


def chunk_of(record: ConsumerRecord, partition: str) -> VideoChunk:
    """A record of a chunks' topic as a chunk; one without a key is of the camera ``partition``.

    Raises:
        StreamError: It is none; see ``parse_chunk``.
    """
    return parse_chunk(
        record.key,
        record.headers,
        record.value,
        timestamp_us=record.timestamp * 1000,
        offset=record.offset,
        default_camera=partition,
    )
