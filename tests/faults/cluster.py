"""One real broker, its topics, and what looks on: the reader of events, the group's offsets."""

import asyncio
import contextlib
import functools
import json
import logging
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from daemon.cancellation import own_cancellation
from daemon.errors import ForeignCancellationError
from tests.faults.checker import Effect, Mark
from tests.faults.proxy import Proxy, free_port
from tests.support.kafka import OwnBroker, administering

CHUNK_PARTITIONS, EVENT_PARTITIONS = 4, 2
LOOK_S = 0.1  # how often the committed offsets are looked at
_ASK_S = 5.0  # a question that has not been answered by then is asked anew
_PAUSE_S = 0.2
# What a client says of a broker that is gone; the last is a future that aiokafka itself cancelled.
_LOST = (KafkaError, TimeoutError, OSError, ForeignCancellationError)

T = TypeVar("T")


async def gets_there(
    look: Callable[[], Awaitable[tuple[bool, int]]], patience_s: float, every_s: float = 0.05
) -> bool:
    """Wait for as long as it gets on, however slow a machine is; False: it is stuck.

    Args:
        look: Tells whether it is there, and how far it is, which grows on the way.
        patience_s: How long it may stand still.
        every_s: How long to wait between looks.
    """
    far, end_s = -1, 0.0
    while True:
        is_there, now = await look()
        if is_there:
            return True
        if now > far:
            far, end_s = now, time.monotonic() + patience_s
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(every_s)


def calm_clients() -> None:
    """Keep this process's own clients from asking for a lost broker without a pause.

    An idempotent aiokafka 0.14 producer asks for metadata again as soon as it is refused, some
    thousand times a second, and logs each time. That would take the daemons' share of the CPU.
    """
    ask = AIOKafkaClient._metadata_update

    @functools.wraps(ask)
    async def ask_calmly(*args: Any, **kwargs: Any) -> bool:
        is_told: bool = await ask(*args, **kwargs)
        if not is_told:
            await asyncio.sleep(_PAUSE_S)
        return is_told

    AIOKafkaClient._metadata_update = ask_calmly
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class Cluster:
    """The broker.

    Attributes:
        broker: To be stopped, hung and killed.
        bootstrap: Its address, which it keeps.
        network: Leads to it too, and can be cut.
    """

    broker: OwnBroker
    bootstrap: str
    network: Proxy

    async def ask(self, question: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Put a question to the broker."""
        async with administering(self.bootstrap) as admin:
            return await question(admin)

    async def make_topic(self, name: str, partitions: int, **config: str) -> None:
        topic = NewTopic(name, partitions, 1, topic_configs=config)
        await self.ask(lambda admin: admin.create_topics([topic]))

    async def topics(self) -> set[str]:
        return set(await self.ask(lambda admin: admin.list_topics()))

    async def delete_topic(self, name: str) -> None:
        await self.ask(lambda admin: admin.delete_topics([name]))

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """Partition → the group's committed offset, where it has one."""
        offsets = await self.ask(lambda admin: admin.list_consumer_group_offsets(group))
        return _of_topic(offsets, topic)

    async def records(self, topic: str, *, committed_only: bool = False) -> list[ConsumerRecord]:
        """Everything that a topic holds now."""
        async with self._reader(topic, committed_only=committed_only) as consumer:
            partitions = list(consumer.assignment())
            ends = await consumer.end_offsets(partitions)
            found: list[ConsumerRecord] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += batch
            return sorted(found, key=lambda record: (record.partition, record.offset))

    async def ends(self, topic: str) -> dict[int, int]:
        """Partition → one past its last record, committed or not."""
        async with self._reader(topic, committed_only=False) as consumer:
            found = await consumer.end_offsets(list(consumer.assignment()))
        return {partition.partition: end for partition, end in found.items()}

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete what lies before an offset of each partition, as retention does."""
        wanted = {TopicPartition(topic, p): RecordsToDelete(o) for p, o in before.items()}
        await self.ask(lambda admin: admin.delete_records(wanted))

    async def add_partitions(self, topic: str, partitions: int) -> None:
        wanted = {topic: NewPartitions(partitions)}
        await self.ask(lambda admin: admin.create_partitions(wanted))

    async def move_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commit as an operator does, which works once the group has no members."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            wanted = {TopicPartition(topic, p): o for p, o in offsets.items()}
            consumer.assign(list(wanted))
            async with asyncio.timeout(90):
                while True:
                    with contextlib.suppress(KafkaError):
                        await consumer.commit(wanted)
                        return
                    await asyncio.sleep(0.5)
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def _reader(
        self, topic: str, *, committed_only: bool
    ) -> AsyncIterator[AIOKafkaConsumer]:
        # With a group: without one, aiokafka 0.14 cannot stop a consumer that never had to wait.
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=f"reader-{uuid.uuid4()}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if committed_only else "read_uncommitted",
            metadata_max_age_ms=5000,
        )
        try:
            await consumer.start()
            partitions = await _partitions_of(consumer, topic)
            consumer.assign([TopicPartition(topic, number) for number in partitions])
            yield consumer
        finally:
            await consumer.stop()

    async def close(self) -> None:
        """Stop the broker, even if it hangs or is gone."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            self.broker.signal(signal.SIGCONT)
        await asyncio.to_thread(self.broker.run, "stop")


@asynccontextmanager
async def a_cluster(home: Path, **settings: str) -> AsyncIterator[Cluster]:
    """A broker of our own, with more settings, as long as the block runs."""
    shown, inner = free_port(), free_port()
    broker = OwnBroker(home, proxied=f"{inner}:{shown}", **settings)
    async with Proxy(shown, inner).running() as network:
        cluster = Cluster(broker, await asyncio.to_thread(broker.start), network)
        try:
            yield cluster
        finally:
            network.heal()
            await cluster.close()


async def _partitions_of(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(KafkaError):  # a busy broker may miss a question
                # The consumer itself would hear of the topic when its metadata are old.
                everything = await consumer._client.fetch_all_metadata()
                if found := everything.partitions_for_topic(topic):
                    return set(found)
            await asyncio.sleep(0.05)


class Observer:
    """Looks on: takes every event record as an effect, and notes each change of an offset.

    Attributes:
        effects: What the reader was given, in its order; nothing is deduplicated.
        committed: Partition of the chunks → the group's committed offset.
    """

    def __init__(self, cluster: Cluster, group: str, chunks: str, events: str) -> None:
        self.effects: list[Effect] = []
        self.committed: dict[int, list[Mark]] = defaultdict(list)
        self._cluster = cluster
        self._group = group
        self._chunks = chunks
        self._events = events
        self._next: dict[int, int] = {}

    @asynccontextmanager
    async def looking_on(self) -> AsyncIterator["Observer"]:
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._look())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError

    def forget_offsets(self) -> None:
        """The topic of the chunks was made anew: what was committed before tells nothing."""
        self.committed.clear()

    async def read_to_the_end(self, patience_s: float) -> bool:
        """Wait until the reader has been given everything; False: it is held up for longer."""
        ends = await self._cluster.ends(self._events)

        async def look() -> tuple[bool, int]:
            is_there = all(self._next.get(number, 0) >= end for number, end in ends.items())
            return is_there, sum(self._next.values())

        return await gets_there(look, patience_s)

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(*_LOST), own_cancellation("reading events"):
                async with self._cluster._reader(self._events, committed_only=True) as consumer:
                    for partition in consumer.assignment():
                        consumer.seek(partition, self._next.get(partition.partition, 0))
                    while True:
                        await self._read_once(consumer)
            await asyncio.sleep(LOOK_S)

    async def _read_once(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(timeout_ms=200)
        now_s = asyncio.get_running_loop().time()
        for partition, records in batches.items():
            self.effects += [_effect(record, now_s) for record in records]
            if records:
                self._next[partition.partition] = records[-1].offset + 1
        for partition in consumer.assignment():  # beyond what is no record, as a commit's mark
            self._next[partition.partition] = await consumer.position(partition)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(*_LOST), own_cancellation("looking at offsets"):
                async with self._asking() as admin:
                    while True:
                        await self._look_once(admin)
                        await asyncio.sleep(LOOK_S)
            await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._cluster.bootstrap)
        try:
            async with asyncio.timeout(_ASK_S):
                await admin.start()
            yield admin
        finally:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(_ASK_S):
                    await admin.close()

    async def _look_once(self, admin: AIOKafkaAdminClient) -> None:
        async with asyncio.timeout(_ASK_S):
            offsets = await admin.list_consumer_group_offsets(self._group)
        now_s = asyncio.get_running_loop().time()
        for partition, offset in _of_topic(offsets, self._chunks).items():
            marks = self.committed[partition]
            if not marks or marks[-1].offset != offset:
                marks.append(Mark(now_s, offset))


def _of_topic(offsets: dict[TopicPartition, Any], topic: str) -> dict[int, int]:
    return {
        partition.partition: found.offset
        for partition, found in offsets.items()
        if partition.topic == topic and found.offset >= 0
    }


def _effect(record: ConsumerRecord, seen_s: float) -> Effect:
    try:
        value = json.loads(record.value or b"")
    except ValueError:
        value = None
    return Effect(
        record.partition, record.offset, seen_s, value if isinstance(value, dict) else None
    )
