"""What only a broker can do to a daemon: limits, rebalances, deleted records, restarts."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.partitioner import murmur2

from daemon.errors import RefusedRecordError, StaleOwnerError, TransportError
from daemon.journal.projections.topic import TopicProjection, TopicSettings
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.producer import DurableProducer
from daemon.kafka.topic_identity import topic_id
from daemon.produce.kafka_writer import KafkaChunkWriter, KafkaWriterSettings, record_bytes
from daemon.sources.base import Delivery
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.sources.kafka.source import KafkaChunkSource
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import chunk_record, event_record, parse_event
from engine.errors import RefusedChunkError
from tests.support.kafka import MakeTopic, OwnBroker, put_record
from tests.support.owner import Owner
from tests.support.records import a_chunk, an_event

pytestmark = pytest.mark.kafka


class Topic:
    """A topic, and what tests do with it."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.connection = KafkaConnection(bootstrap)
        self.name = name
        self._open: list[KafkaChunkSource] = []

    async def put(self, *chunks: Any) -> None:
        writer = KafkaChunkWriter(KafkaWriterSettings(self.connection, self.name))
        await writer.start()
        try:
            for chunk in chunks:
                await writer.write(chunk, ChunkFacts())
        finally:
            await writer.close()

    async def source(self, owner: Owner | None = None, **settings: Any) -> KafkaChunkSource:
        options = {"group_id": self.name, "start": "earliest"} | settings
        source = KafkaChunkSource(KafkaSourceSettings(self.connection, self.name, **options))
        self._open.append(source)
        await source.start(owner or Owner())
        return source

    async def close(self) -> None:
        for source in self._open:
            await source.close()

    async def commit_as_before(self, offset: int) -> None:
        """What the group had committed in a longer topic of the same name."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.connection.bootstrap_servers,
            group_id=self.name,
            enable_auto_commit=False,
        )
        partition = TopicPartition(self.name, 0)
        await consumer.start()
        try:
            consumer.assign([partition])
            await consumer.commit({partition: offset})
        finally:
            await consumer.stop()

    async def committed(self, partition: int = 0) -> int | None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.connection.bootstrap_servers,
            group_id=self.name,
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            return await consumer.committed(TopicPartition(self.name, partition))
        finally:
            await consumer.stop()


@pytest.fixture
async def topic(kafka_bootstrap: str, make_topic: MakeTopic) -> AsyncIterator[Topic]:
    topic = Topic(kafka_bootstrap, await make_topic(1))
    yield topic
    await topic.close()


@pytest.fixture
async def two_partitions(kafka_bootstrap: str, make_topic: MakeTopic) -> AsyncIterator[Topic]:
    topic = Topic(kafka_bootstrap, await make_topic(2))
    yield topic
    await topic.close()


async def take(stream: AsyncIterator[Delivery], n: int) -> list[Delivery]:
    async with asyncio.timeout(240):
        return [await anext(stream) for _ in range(n)]


def sequences(deliveries: list[Delivery]) -> list[int]:
    return [delivery.chunk.sequence for delivery in deliveries if delivery.chunk]


async def test_a_chunk_too_large_for_the_topic_is_refused_with_both_numbers(
    kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    name = await make_topic(1, **{"max.message.bytes": "50000"})
    topic = Topic(kafka_bootstrap, name)

    with pytest.raises(RefusedRecordError, match=r"record of 50\d\d\d bytes.* takes 50000: let"):
        await topic.put(a_chunk(payload=bytes(50_000)))


async def test_what_the_broker_alone_knows_to_be_too_large_is_refused_and_not_tried_for_ever(
    kafka_bootstrap: str, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer without the right DescribeConfigs does not hear of the topic's limit."""

    async def untold(*_arguments: object) -> None:
        return None

    monkeypatch.setattr("daemon.kafka.connection._max_message_bytes", untold)
    topic = Topic(kafka_bootstrap, await make_topic(1, **{"max.message.bytes": "50000"}))

    with pytest.raises(RefusedRecordError, match="takes no record of this size"):
        await topic.put(a_chunk(payload=bytes(60_000)))
    await topic.put(a_chunk(payload=bytes(40_000)))


async def test_records_that_go_together_are_not_refused_for_each_others_size(
    kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    name = await make_topic(1, **{"max.message.bytes": "50000"})
    topic = Topic(kafka_bootstrap, name)
    writer = KafkaChunkWriter(KafkaWriterSettings(topic.connection, name))
    await writer.start()
    try:
        chunks = [a_chunk(camera=f"cam-{n}", payload=bytes(20_000)) for n in range(8)]
        await asyncio.gather(*(writer.write(chunk, ChunkFacts()) for chunk in chunks))
    finally:
        await writer.close()


async def test_a_chunk_just_within_the_topics_limit_is_taken(
    kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    name = await make_topic(1, **{"max.message.bytes": "3000000"})
    empty = record_bytes(chunk_record(a_chunk(payload=b""), ChunkFacts(), site="default"))
    chunk = a_chunk(payload=os.urandom(3_000_000 - empty))
    topic = Topic(kafka_bootstrap, name)

    await topic.put(chunk)

    source = await topic.source()
    assert chunk == (await take(source.deliveries(), 1))[0].chunk
    await topic.close()


async def test_a_record_larger_than_allowed_is_refused_and_the_next_arrives(
    topic: Topic,
) -> None:
    await put_record(topic.connection, topic.name, b"door", bytes(3_000_000))
    await topic.put(a_chunk("door", 1))
    source = await topic.source(max_chunk_bytes=1_000_000)

    refused, good = await take(source.deliveries(), 2)

    assert isinstance(refused.error, RefusedChunkError)
    assert "3000000 bytes, max_chunk_bytes is 1000000" in str(refused.error)
    assert a_chunk("door", 1) == good.chunk


async def test_a_foreign_producers_records_are_chunks(topic: Topic) -> None:
    await put_record(topic.connection, topic.name, b"gate", b"raw video")
    await put_record(topic.connection, topic.name, None, b"more")
    source = await topic.source()

    first, second = await take(source.deliveries(), 2)

    assert first.chunk is not None
    assert ("gate", b"raw video", 0) == (
        first.chunk.camera,
        first.chunk.payload,
        first.chunk.anchor_us,
    )
    assert first.chunk.start_us > 1_600_000_000_000_000
    assert f"{topic.name}/0" == second.camera


async def test_latest_begins_at_the_moment_of_start(topic: Topic) -> None:
    await topic.put(a_chunk("door", 0))
    source = await topic.source(start="latest")
    await topic.put(a_chunk("door", 1))

    assert [1] == sequences(await take(source.deliveries(), 1))


async def test_latest_is_not_asked_of_partitions_that_come_later(topic: Topic) -> None:
    """Else what is written to a new partition before it is found would be lost."""
    await topic.put(a_chunk("door", 0))
    await topic.commit_as_before(1)
    owner = Owner()
    source = await topic.source(owner, start="latest")
    admin = AIOKafkaAdminClient(bootstrap_servers=topic.connection.bootstrap_servers)
    await admin.start()
    await admin.create_partitions({topic.name: NewPartitions(2)})
    await admin.close()
    await put_record(topic.connection, topic.name, b"yard", b"early", partition=1)

    (delivery,) = await take(source.deliveries(), 1)

    assert (f"{topic.name}/1", 0) == (delivery.position.partition, delivery.position.offset)
    assert 0 == owner.taken[f"{topic.name}/1"][0]


async def test_what_the_broker_deleted_is_skipped_and_nothing_else(topic: Topic) -> None:
    await topic.put(*(a_chunk("door", n) for n in range(6)))
    admin = AIOKafkaAdminClient(bootstrap_servers=topic.connection.bootstrap_servers)
    await admin.start()
    partition = TopicPartition(topic.name, 0)
    await admin.delete_records({partition: RecordsToDelete(before_offset=3)})
    await admin.close()

    source = await topic.source(Owner({f"{topic.name}/0": 1}), start="latest")

    assert [3, 4, 5] == sequences(await take(source.deliveries(), 3))


async def test_a_topic_is_told_by_its_id(topic: Topic) -> None:
    owner = Owner()
    await topic.source(owner)

    wanted = await topic_id(topic.connection, topic.name)
    assert {f"{topic.name}/0": (0, wanted)} == owner.taken


async def test_a_topic_made_anew_while_it_is_read_is_taken_anew(topic: Topic) -> None:
    await topic.put(*(a_chunk("door", n) for n in range(3)))
    owner = Owner()
    source = await topic.source(owner)
    stream = source.deliveries()
    await take(stream, 3)
    _, before = owner.taken[f"{topic.name}/0"]
    admin = AIOKafkaAdminClient(bootstrap_servers=topic.connection.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([topic.name])
    while not await _is_created(admin, topic.name):
        await asyncio.sleep(0.1)
    await admin.close()
    await topic.put(*(a_chunk("door", n) for n in (7, 8)))

    assert [7, 8] == sequences(await take(stream, 2))
    fallback, after = owner.taken[f"{topic.name}/0"]
    assert (0, True) == (fallback, after not in ("", before))
    assert ["take", "hold", "take"] == [what for what, _ in owner.calls]


async def _is_created(admin: AIOKafkaAdminClient, name: str) -> bool:
    """False while the deleted topic of that name is still there."""
    answer = await admin.create_topics([NewTopic(name, 1, 1)])
    return answer.topic_errors[0][1] == 0


async def test_a_partition_that_goes_back_and_has_no_id_ends_deliveries(topic: Topic) -> None:
    await topic.put(*(a_chunk("door", n) for n in range(3)))
    source = await topic.source()
    stream = source.deliveries()
    await take(stream, 3)
    source._ours._log_id = ""  # as of a broker that tells no ids
    source._open_consumer.seek(TopicPartition(topic.name, 0), 50)  # where no record is

    with pytest.raises(TransportError, match=rf"topic {topic.name}.* went back from offset 3"):
        await take(stream, 1)


async def test_what_was_reached_is_committed_in_its_interval_or_at_close(topic: Topic) -> None:
    await topic.put(*(a_chunk("door", n) for n in range(3)))
    source = await topic.source(commit_interval_s=3600)
    await take(source.deliveries(), 1)
    source._commit_at_s = asyncio.get_running_loop().time() + 3600  # one was due at once
    source.reached(f"{topic.name}/0", 2)

    assert await topic.committed() is None
    await source.close()
    assert await topic.committed() == 2


async def test_what_others_commit_is_not_committed_here(topic: Topic) -> None:
    await topic.put(a_chunk("door", 0))
    source = await topic.source(commit_interval_s=None)
    await take(source.deliveries(), 1)

    source.reached(f"{topic.name}/0", 1)

    await source.close()
    assert await topic.committed() is None


async def test_a_rebalance_holds_all_and_gives_back_what_goes(two_partitions: Topic) -> None:
    await two_partitions.put(*(a_chunk(c, n) for n in range(3) for c in ("door", "yard")))
    owner, other = Owner(), Owner()
    first = await two_partitions.source(owner)
    stream = first.deliveries()
    await take(stream, 6)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(anext(stream))
        joining = tasks.create_task(two_partitions.source(other))
        async with asyncio.timeout(240):
            while not owner.taken.keys().isdisjoint(other.taken) or not other.taken:
                await asyncio.sleep(0.05)
            await joining
            while owner.calls[-1][0] != "take":
                await asyncio.sleep(0.05)
        waiting.cancel()

    ((gone, _),) = other.taken.items()
    ((kept, _),) = owner.taken.items()
    assert {f"{two_partitions.name}/{n}" for n in (0, 1)} == {gone, kept}
    calls = owner.calls[2:]  # after the first two takes
    assert {("hold", gone), ("hold", kept)} == set(calls[:2])
    assert [("give back", gone), ("take", kept)] == calls[2:]


async def test_a_member_that_joins_moves_no_more_than_it_must(
    kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = Topic(kafka_bootstrap, await make_topic(6))
    owners = [Owner() for _ in range(3)]
    had: list[set[str]] = []
    async with asyncio.timeout(240), asyncio.TaskGroup() as tasks:
        for n_members, owner in enumerate(owners, 1):
            source = await topic.source(owner, commit_interval_s=None)
            tasks.create_task(read_until_closed(source))
            while not is_settled(owners[:n_members], 6):
                await asyncio.sleep(0.05)
            had.append(set(owners[0].taken))
        ends = [set(owner.taken) for owner in owners]
        await topic.close()

    assert had[0] > had[1] > had[2]
    assert [2, 2, 2] == [len(end) for end in ends]


async def read_until_closed(source: KafkaChunkSource) -> None:
    async for _ in source.deliveries():
        pass


def is_settled(owners: list[Owner], n_partitions: int) -> bool:
    """True if the partitions are shared out as evenly as they can be."""
    taken = [set(owner.taken) for owner in owners]
    share = n_partitions // len(owners)
    return all(len(each) == share for each in taken) and len(set.union(*taken)) == n_partitions


async def test_a_member_that_stops_leaves_its_partitions_at_once(two_partitions: Topic) -> None:
    """Long before its session would end."""
    owner, other = Owner(), Owner()
    first = await two_partitions.source(owner, group_instance_id="a", session_timeout_s=45)
    second = asyncio.create_task(
        two_partitions.source(other, group_instance_id="b", session_timeout_s=45)
    )
    stream = first.deliveries()
    reading = asyncio.create_task(anext(stream))
    await second
    began_s = asyncio.get_running_loop().time()
    reading.cancel()
    await asyncio.wait([reading])

    await first.close()

    async with asyncio.timeout(240):
        while len(other.taken) < 2:
            other.changed.clear()
            await other.changed.wait()
    assert asyncio.get_running_loop().time() - began_s < 45


async def test_a_failure_while_partitions_are_taken_ends_the_start(topic: Topic) -> None:
    class Broken(Owner):
        async def take(self, partition: str, **_told: Any) -> int:
            raise TransportError(f"{partition} cannot be taken")

    with pytest.raises(TransportError, match="cannot be taken"):
        await topic.source(Broken())


async def test_a_bug_while_partitions_are_taken_ends_the_start_too(topic: Topic) -> None:
    """aiokafka would log it, and the start would wait for ever."""

    class Buggy(Owner):
        async def take(self, partition: str, **_told: Any) -> int:
            raise ZeroDivisionError(partition)

    with pytest.raises(ZeroDivisionError):
        await topic.source(Buggy())


async def test_a_partition_that_another_was_faster_to_take_is_asked_for_again(
    topic: Topic,
) -> None:
    class Second(Owner):
        async def take(self, partition: str, **told: Any) -> int:
            begin = await super().take(partition, **told)
            if len(self.calls) == 1:
                raise StaleOwnerError(f"partition {partition} has another owner")
            return begin

    await topic.put(a_chunk("door", 0))
    owner = Second()
    source = await topic.source(owner)

    assert [0] == sequences(await take(source.deliveries(), 1))
    assert ["take", "take"] == [what for what, _ in owner.calls]


async def test_a_partition_that_is_not_held_in_time_holds_up_no_other(
    two_partitions: Topic,
) -> None:
    class Slow(Owner):
        async def hold(self, partition: str) -> None:
            if partition.endswith("/0"):
                await asyncio.Event().wait()
            await super().hold(partition)

    owner = Slow()
    source = await two_partitions.source(owner, session_timeout_s=6)
    partitions = {TopicPartition(two_partitions.name, n) for n in (0, 1)}
    async with asyncio.timeout(240):
        await source._ours._revoke(partitions)

    assert [("hold", f"{two_partitions.name}/1")] == owner.calls[2:]


async def test_a_failure_while_partitions_are_held_ends_deliveries(topic: Topic) -> None:
    class Broken(Owner):
        async def hold(self, partition: str) -> None:
            raise TransportError(f"{partition}: the journal is gone")

    await topic.put(a_chunk("door", 0))
    source = await topic.source(Broken())
    stream = source.deliveries()
    await take(stream, 1)
    async with asyncio.TaskGroup() as tasks:
        joining = tasks.create_task(topic.source())
        with pytest.raises(TransportError, match="the journal is gone"):
            await take(stream, 1)
        await joining


async def test_what_is_cancelled_while_partitions_are_held_ends_deliveries(topic: Topic) -> None:
    class CancelledUnderUs(Owner):
        async def hold(self, partition: str) -> None:
            del partition
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    await topic.put(a_chunk("door", 0))
    source = await topic.source(CancelledUnderUs())
    stream = source.deliveries()
    await take(stream, 1)
    async with asyncio.TaskGroup() as tasks:
        joining = tasks.create_task(topic.source())
        with pytest.raises(TransportError, match=f"holding {topic.name}/0: was cancelled"):
            await take(stream, 1)
        await joining


@pytest.mark.parametrize(
    ("key", "hashed"),  # of Kafka's own test, UtilsTest.testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
    ],
)
async def test_a_camera_goes_to_the_partition_java_clients_would_choose(
    kafka_bootstrap: str, make_topic: MakeTopic, key: bytes, hashed: int
) -> None:
    topic = Topic(kafka_bootstrap, await make_topic(7))
    await topic.put(a_chunk(key.decode(), 0))
    source = await topic.source()

    (delivery,) = await take(source.deliveries(), 1)
    await topic.close()

    assert hashed & 0xFFFFFFFF == murmur2(key) & 0xFFFFFFFF
    assert f"{topic.name}/{(hashed & 0x7FFFFFFF) % 7}" == delivery.position.partition


async def until(is_true: Callable[[], bool]) -> None:
    """For what nothing outside can wait for; the test's own time-out ends it."""
    while not is_true():
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_broker_that_hangs_is_asked_again_by_a_new_producer(
    own_broker: OwnBroker,
) -> None:
    connection = KafkaConnection(own_broker.start(), connect_timeout_s=20)
    own_broker.run("topic", "events", "1")
    sink = TopicProjection(TopicSettings(connection, "events"))
    await sink.start(None, [])
    await sink.show([an_event("e1")])
    before = sink._producer._producer

    own_broker.signal(signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(sink.show([an_event("e1", 1), an_event("e1", 2)]))
        await until(lambda: sink._producer._producer is not before)
        assert not publishing.done()
        own_broker.signal(signal.SIGCONT)
    await sink.close()

    seen = await read_events(connection.bootstrap_servers)
    assert {an_event("e1", revision) for revision in range(3)} == set(seen)
    assert an_event("e1", 2) == seen[-1]


@pytest.mark.slow
async def test_many_senders_whose_broker_hangs_are_all_answered(own_broker: OwnBroker) -> None:
    connection = KafkaConnection(own_broker.start(), connect_timeout_s=30)
    own_broker.run("topic", "events", "1")
    sink = TopicProjection(TopicSettings(connection, "events"))
    await sink.start(None, [])
    before = sink._producer._producer

    own_broker.signal(signal.SIGSTOP)
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        publishing = []
        for n in range(6):
            events = [an_event(f"e{n}", revision) for revision in range(2)]
            publishing.append(tasks.create_task(sink.show(events)))
            await asyncio.sleep(0.1)  # each waits for the same sender, none for the same time
        await until(lambda: sink._producer._producer is not before)
        await asyncio.sleep(3)  # it hangs for longer than giving a producer up may take
        own_broker.signal(signal.SIGCONT)
        done, _ = await asyncio.wait(publishing)
    await sink.close()

    assert [] == [task for task in done if task.cancelled()]
    wanted = {an_event(f"e{n}", revision) for n in range(6) for revision in range(2)}
    assert wanted == set(await read_events(connection.bootstrap_servers))


@pytest.mark.slow
async def test_a_broker_that_is_gone_is_given_up_at_the_deadline(own_broker: OwnBroker) -> None:
    """By `produce`; a daemon gives its outages along, and waits."""
    connection = KafkaConnection(own_broker.start(), connect_timeout_s=2)
    own_broker.run("topic", "events", "1")
    producer = DurableProducer(connection, "events")
    await producer.start()
    own_broker.run("stop")

    with pytest.raises(TransportError, match=r"topic events.*gave up after 2 s"):
        await producer.send([event_record(an_event("e1"), site="default")])
    await producer.close()


@pytest.mark.slow
async def test_source_and_topic_outlive_a_restart_of_the_broker(
    own_broker: OwnBroker,
) -> None:
    address = own_broker.start()
    for name in ("events", "chunks"):
        own_broker.run("topic", name, "1")
    chunks = Topic(address, "chunks")
    source = await chunks.source()
    sink = TopicProjection(TopicSettings(chunks.connection, "events"))
    await sink.start(None, [])
    await sink.show([an_event("e1")])
    await chunks.put(a_chunk("door", 0))
    stream = source.deliveries()
    before = await take(stream, 1)

    await asyncio.to_thread(own_broker.run, "stop")
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(sink.show([an_event("e2")]))
        assert address == await asyncio.to_thread(own_broker.start)
    await chunks.put(a_chunk("door", 1))
    after = await take(stream, 1)
    await chunks.close()
    await sink.close()

    assert publishing.done()
    assert [0, 1] == sequences(before + after)
    assert {an_event("e1"), an_event("e2")} == set(await read_events(address))


@pytest.mark.slow
async def test_a_source_is_blind_while_its_broker_hangs(own_broker: OwnBroker) -> None:
    """So that nobody's silence is counted who could not be heard."""
    address = own_broker.start()
    own_broker.run("topic", "chunks", "1")
    chunks = Topic(address, "chunks")
    source = await chunks.source()
    await chunks.put(a_chunk("door", 0))
    stream = source.deliveries()
    (first,) = await take(stream, 1)
    partition = first.position.partition
    coming = asyncio.create_task(take(stream, 1))
    await until(lambda: source.is_caught_up(partition))
    assert not source.is_blind(partition)

    own_broker.signal(signal.SIGSTOP)
    await until(lambda: source.is_blind(partition))
    assert not source.is_caught_up(partition)
    own_broker.signal(signal.SIGCONT)
    await until(lambda: not source.is_blind(partition))

    source.pause(partition)
    assert not source.is_blind(partition)  # nobody asks, and that is no fault of anybody's
    source.resume(partition)
    await chunks.put(a_chunk("door", 1))
    await coming
    await chunks.close()


async def read_events(address: str) -> list[Any]:
    partition = TopicPartition("events", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    end = (await consumer.end_offsets([partition]))[partition]
    records = [await consumer.getone(partition) for _ in range(end)]
    await consumer.stop()
    return [parse_event(record.value) for record in records]
