"""Reads records as a member of a consumer group, and makes deliveries of them.

Records are taken from the client one at a time, so nothing is held here. A paused or revoked
partition delivers nothing more, and what waits is in the client's bounded buffer or in the broker.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
)
from aiokafka.structs import OffsetAndMetadata

from daemon.errors import ForeignCancellationError, StaleOwnerError, TransportError
from daemon.kafka.clients import briefly, start, stop
from daemon.kafka.connection import RefusedError, describe_topic, explained, persist
from daemon.kafka.membership import NameWatch, is_member, join_again_if_dropped, leave_group
from daemon.kafka.reading import chunk_of
from daemon.outages import Kind, Outages
from daemon.sources.base import Delivery, PartitionOwner, Position
from daemon.sources.kafka.assignment import Assignment, name_of, partition_of
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.wire.records import readable_camera
from engine.errors import RefusedChunkError, StreamError

_POLL_MS = 200
_LEAVE_S = 5.0
_METADATA_MS = 5000  # so soon new partitions are found
# A partition that is taken or resumed is asked for with the next fetch, after this one.
_FETCH_WAIT_MS = 100
_HEARTBEAT_MS = 1000  # so soon the others hear of a member that leaves
_ANSWER_MS = 5000  # a partition that was looked at so recently is known
_NO_PARTITION = TopicPartition("", -1)  # an empty list would mean all of them

_log = logging.getLogger("s2netd.kafka")


class KafkaChunkSource:
    """Reads one topic as a member of a group; its partitions are the topic's.

    Args:
        settings: What to read.
        outages: Told when the broker is away.
    """

    def __init__(self, settings: KafkaSourceSettings, outages: Outages | None = None) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._assignment: Assignment | None = None
        self._reached: dict[TopicPartition, int] = {}  # → next offset to commit
        self._commit_at_s = 0.0
        self._names: NameWatch | None = None
        self._outage = (outages or Outages()).watch(Kind.BROKER, f"topic {settings.topic}")
        self._is_closed = False

    async def start(self, owner: PartitionOwner) -> None:
        """See ``ChunkSource``; a broker that is away is waited for."""
        settings, outage = self._settings, self._outage
        assignment = self._assignment = Assignment(settings, owner, outage)
        await describe_topic(settings.connection, settings.topic, outage=outage)
        what = f"group {settings.group_id}"
        # A member that was killed keeps its place until its session ends, and the others wait.
        self._consumer = await persist(
            settings.connection, what, self._connect, settings.session_timeout_s, outage=outage
        )
        # "latest" means this moment, so wait until it is settled where each partition begins.
        await assignment.took_part.wait()
        assignment.check()
        assignment.was_let_in = True

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        while not self._is_closed:
            for record in await self._look():
                if self._is_wanted(record) and self._ours.is_in_order(record):
                    yield self._delivery(record)

    async def _look(self) -> list[ConsumerRecord]:
        """New records; none while the broker is away, which is waited out.

        Raises:
            ConfigError: Another member has our name.
        """
        self._ours.check()
        try:
            async with explained(self._settings.connection, f"topic {self._settings.topic}"):
                await self._commit_if_due()
                await self._ours.identify_if_due(self._open_consumer)
                records = await self._poll()
        except ForeignCancellationError:
            raise
        except (TransportError, RefusedError) as error:
            self._outage.failed(error)
            if self._consumer is not None:  # else it was closed meanwhile
                join_again_if_dropped(self._consumer)
            await asyncio.sleep(_POLL_MS / 1000)
            return []
        self._ours.check()  # a rebalance may have come and gone with the poll
        self._take_note(records)
        return records

    def _take_note(self, records: list[ConsumerRecord]) -> None:
        """Is the broker away? The client itself would only ever say that there are no records."""
        if records or (self._ours.trouble is None and not self._ours.is_taking):
            self._outage.worked()
        elif self._ours.trouble is not None:
            where = self._settings.connection.bootstrap_servers
            self._outage.failed(f"Kafka at {where} does not answer: {self._ours.trouble!r}")

    def reached(self, partition: str, next_offset: int) -> None:
        """See ``ChunkSource``; it is committed, unless that is done in transactions."""
        if self._settings.commit_interval_s is not None:
            self._reached[partition_of(partition)] = next_offset

    def renounce(self, partition: str) -> None:
        """See ``ChunkSource``; the group is asked anew who has which partition."""
        self._ours.renounce(partition_of(partition))
        self._coordinator.request_rejoin()

    def is_caught_up(self, partition: str) -> bool:
        """See ``ChunkSource``."""
        topic_partition = partition_of(partition)
        newest, is_recent = self._last_answer(topic_partition)
        if newest is None or topic_partition not in self._ours.ready - self._ours.paused:
            return False
        return is_recent and self._ours.next[topic_partition] >= newest

    def is_blind(self, partition: str) -> bool:
        """See ``ChunkSource``; of a partition that is paused nobody asks."""
        topic_partition = partition_of(partition)
        is_asked = topic_partition in self._ours.ready - self._ours.paused
        return is_asked and not self._last_answer(topic_partition)[1]

    def _last_answer(self, topic_partition: TopicPartition) -> tuple[int | None, bool]:
        """How far the partition went when it was last looked at, and whether that is recent."""
        consumer = self._consumer
        if consumer is None:
            return None, False
        try:
            newest = consumer.highwater(topic_partition)
            asked_ms = consumer.last_poll_timestamp(topic_partition)
        except (AssertionError, IllegalStateError):  # not assigned any more
            return None, False
        if newest is None or asked_ms is None:
            return None, False
        is_recent = time.time() * 1000 - asked_ms < _ANSWER_MS  # aiokafka's clock is this one
        return int(newest), is_recent

    def n_behind(self, partition: str) -> int | None:
        """See ``ChunkSource``; the ends of producers' transactions are counted too."""
        topic_partition, consumer = partition_of(partition), self._consumer
        first = self._ours.next.get(topic_partition)
        if consumer is None or first is None:
            return None
        try:
            newest = consumer.highwater(topic_partition)
        except (AssertionError, IllegalStateError):  # not assigned any more
            return None
        return None if newest is None else max(int(newest) - first, 0)

    async def is_member(self) -> bool:
        """True if the group's coordinator says now that this member is still one of it.

        Raises:
            KafkaError: It gives no answer.
        """
        # A commit would say the same, but change something.
        return await is_member(self._open_consumer)

    async def commit(self, partition: str, next_offset: int, metadata: str) -> None:
        """Commit an offset as a member of the group.

        Raises:
            StaleOwnerError: The partition is another member's now.
            KafkaError: It failed.
        """
        offsets = {partition_of(partition): OffsetAndMetadata(next_offset, metadata)}
        try:
            # The client itself would try again for ever.
            async with asyncio.timeout(self._settings.connection.connect_timeout_s):
                await self._open_consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise StaleOwnerError(f"partition {partition}: {error}") from error

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        topic_partition = partition_of(partition)
        self._ours.paused.add(topic_partition)
        if topic_partition in self._ours.ready:
            self._open_consumer.pause(topic_partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        topic_partition = partition_of(partition)
        self._ours.paused.discard(topic_partition)
        if topic_partition in self._ours.ready:
            self._open_consumer.resume(topic_partition)

    async def close(self) -> None:
        """See ``ChunkSource``."""
        self._is_closed = True
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        await self._ours.stop()
        try:
            async with explained(self._settings.connection, "last commit"):
                await self._commit_now(consumer, _LEAVE_S)
        except (TransportError, RefusedError) as error:
            _log.warning("%s; others will read again what this daemon has read last", error)
        finally:
            await leave_group(consumer)
            async with briefly(_LEAVE_S):
                await stop(consumer)

    @property
    def _open_consumer(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise TransportError(f"topic {self._settings.topic}: the source is not started")
        return self._consumer

    @property
    def _coordinator(self) -> GroupCoordinator:
        return self._open_consumer._coordinator  # noqa: SLF001 - there is no public way

    @property
    def _ours(self) -> Assignment:
        if self._assignment is None:
            raise TransportError(f"topic {self._settings.topic}: the source is not started")
        return self._assignment

    async def _connect(self) -> AIOKafkaConsumer:
        settings = self._settings
        consumer = AIOKafkaConsumer(
            **settings.connection.options(),
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id,
            enable_auto_commit=False,
            # Matters only if the broker deleted what was to be read: go on with what is left.
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(self._ours.assignor,),
            max_partition_fetch_bytes=settings.max_chunk_bytes,
            fetch_max_bytes=settings.max_buffer_bytes,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=min(int(settings.session_timeout_s * 100), _HEARTBEAT_MS),
            metadata_max_age_ms=_METADATA_MS,
            max_poll_interval_ms=settings.max_poll_interval_ms,
        )
        consumer.subscribe([settings.topic], listener=self._ours.listener(consumer))
        self._consumer = consumer  # rebalances begin before ``start`` returns
        try:
            await start(consumer)
        except (KafkaError, asyncio.CancelledError):
            await stop(consumer)
            raise
        self._names = NameWatch(consumer)
        return consumer

    async def _poll(self) -> list[ConsumerRecord]:
        wanted = self._ours.ready - self._ours.paused
        if not wanted or self._ours.is_topic_gone:
            wanted = {_NO_PARTITION}
        try:
            batches = await self._open_consumer.getmany(
                *wanted, timeout_ms=_POLL_MS, max_records=1
            )
        except ConsumerStoppedError:  # closed meanwhile
            return []
        except KafkaError:
            if self._names is not None:
                self._names.check()
            raise
        return [record for records in batches.values() for record in records]

    def _is_wanted(self, record: ConsumerRecord) -> bool:
        """True if the partition was neither paused nor revoked while the record was on its way."""
        partition = TopicPartition(record.topic, record.partition)
        if partition in self._ours.ready and partition in self._ours.paused:
            self._open_consumer.seek(partition, record.offset)
        return partition in self._ours.ready - self._ours.paused and not self._is_closed

    def _delivery(self, record: ConsumerRecord) -> Delivery:
        partition = TopicPartition(record.topic, record.partition)
        position = Position(name_of(partition), record.offset)
        try:
            self._check_size(record)
            chunk = chunk_of(record, position.partition)
        except StreamError as error:
            camera = readable_camera(record.key, position.partition)
            value = record.value or b""
            return Delivery(position, camera, None, error, value, record.key, record.headers)
        return Delivery(position, chunk.camera, chunk, key=record.key, headers=record.headers)

    def _check_size(self, record: ConsumerRecord) -> None:
        size, most = len(record.value or b""), self._settings.max_chunk_bytes
        if size > most:
            raise RefusedChunkError(
                f"the record at offset {record.offset} has {size} bytes, max_chunk_bytes is {most}"
            )

    async def _commit_if_due(self) -> None:
        interval_s, now_s = self._settings.commit_interval_s, asyncio.get_running_loop().time()
        if interval_s is not None and self._reached and now_s >= self._commit_at_s:
            self._commit_at_s = now_s + interval_s
            async with explained(self._settings.connection, f"group {self._settings.group_id}"):
                patience_s = self._settings.connection.connect_timeout_s
                await self._commit_now(self._open_consumer, patience_s)

    async def _commit_now(self, consumer: AIOKafkaConsumer, patience_s: float) -> None:
        mine = self._ours.mine
        offsets = {tp: offset for tp, offset in self._reached.items() if tp in mine}
        self._reached.clear()
        if not offsets:
            return
        try:
            # The client itself would try again for ever.
            async with asyncio.timeout(patience_s):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return  # the partitions moved on; nothing depends on it
