"""Chunks from a Kafka topic, shared out among the members of a consumer group.

When a partition is assigned, reading begins at the lower one of two offsets: the group's committed
one, and the first one that the daemon's stored state asks for. Records are taken from the client
one at a time, so nothing is held here. A paused or revoked partition delivers nothing more, and
what waits is in the client's bounded buffer or in the broker.

A topic that was deleted and made anew counts its records from 0 again. At a start this shows as an
offset beyond the newest record, and the partition is read from its oldest record. While the daemon
runs it shows as an offset that goes back, and the daemon ends, so that the next start is clean.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
)

from daemon.cancellation import own_cancellation
from daemon.errors import ForeignCancellationError, TransportError
from daemon.kafka.connection import KafkaConnection, describe_topic, explained, persist
from daemon.sources.base import (
    Delivery,
    OnRevoked,
    Position,
    StartAt,
    first_offset,
    nothing_to_finish,
    nothing_to_read_again,
)
from daemon.wire.records import parse_chunk, readable_camera
from engine.errors import RefusedChunkError, S2netdError, StreamError

_POLL_MS = 200
_LEAVE_S = 5.0
_NO_PARTITION = TopicPartition("", -1)  # an empty list would mean all of them

_log = logging.getLogger("s2netd.kafka")


@dataclass(frozen=True, slots=True)
class KafkaSourceSettings:
    """What to read, and how.

    Attributes:
        connection: How to reach the broker.
        topic: The topic of the chunks; it must exist.
        group_id: Consumer group; its members share the partitions.
        group_instance_id: A member name that outlives the process, so that a restart within the
            session time-out moves no partitions. None: the member has no such name.
        start: Where to begin a partition of which neither the group nor the state knows anything.
        max_chunk_bytes: Larger records are refused.
        max_buffer_bytes: Most bytes that one fetch from a broker brings.
        commit_interval_s: Least time between two commits, in seconds.
        session_timeout_ms: A member without a heartbeat for so long loses its partitions.
        max_poll_interval_ms: So does a member without progress for so long.
    """

    connection: KafkaConnection
    topic: str
    group_id: str = "s2netd"
    group_instance_id: str | None = None
    start: Literal["earliest", "latest"] = "latest"
    max_chunk_bytes: int = 8 * 2**20
    max_buffer_bytes: int = 32 * 2**20
    commit_interval_s: float = 1.0
    session_timeout_ms: int = 30_000
    max_poll_interval_ms: int = 900_000


class KafkaChunkSource:
    """Reads one topic as a member of a group; its partitions are the topic's.

    Args:
        settings: What to read.
        start_at: As in ``daemon.sources.base``.
        on_revoked: As in ``daemon.sources.base``.
    """

    def __init__(
        self,
        settings: KafkaSourceSettings,
        start_at: StartAt = nothing_to_read_again,
        on_revoked: OnRevoked = nothing_to_finish,
    ) -> None:
        self._settings = settings
        self._start_at = start_at
        self._on_revoked = on_revoked
        self._consumer: AIOKafkaConsumer | None = None
        self._owned: dict[TopicPartition, int | None] = {}  # → next offset the group has committed
        self._ready: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}  # → least offset that may come
        self._paused: set[TopicPartition] = set()
        self._wanted: dict[TopicPartition, int] = {}  # → next offset to commit
        self._commit_at_s = 0.0
        self._failure: BaseException | None = None
        self._took_part = asyncio.Event()
        self._is_closed = False

    async def start(self) -> None:
        """See ``ChunkSource``."""
        settings = self._settings
        await describe_topic(settings.connection, settings.topic)
        what = f"group {settings.group_id}"
        # A member that was killed keeps its place until its session ends, and the others wait.
        patience_s = settings.session_timeout_ms / 1000
        self._consumer = await persist(settings.connection, what, self._connect, patience_s)
        # "latest" means this moment, so wait until it is settled where each partition begins.
        await self._took_part.wait()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        while not self._is_closed:
            async with explained(self._settings.connection, f"topic {self._settings.topic}"):
                await self._commit_if_due()
                records = await self._poll()
            for record in records:
                if self._is_wanted(record):
                    self._check_order(record)
                    yield self._delivery(record)

    async def commit(self, position: Position) -> None:
        """See ``ChunkSource``; a position in a partition that was revoked is left out."""
        partition = _topic_partition(position.partition)
        if partition not in self._owned:
            return
        committed = self._wanted.get(partition, self._owned[partition])
        if committed is None or position.offset + 1 > committed:
            self._wanted[partition] = position.offset + 1
        await self._commit_if_due()

    def pause(self, partition: str) -> None:
        """See ``ChunkSource``."""
        topic_partition = _topic_partition(partition)
        self._paused.add(topic_partition)
        if topic_partition in self._ready:
            self._open_consumer.pause(topic_partition)

    def resume(self, partition: str) -> None:
        """See ``ChunkSource``."""
        topic_partition = _topic_partition(partition)
        self._paused.discard(topic_partition)
        if topic_partition in self._ready:
            self._open_consumer.resume(topic_partition)

    async def close(self) -> None:
        """See ``ChunkSource``."""
        self._is_closed = True
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            async with explained(self._settings.connection, "last commit"):
                await self._commit_now(consumer)
        finally:
            self._owned.clear()
            nobody_there = contextlib.suppress(TimeoutError, ForeignCancellationError)
            with nobody_there, own_cancellation("leaving the group"):
                async with asyncio.timeout(_LEAVE_S):
                    await consumer.stop()

    @property
    def _open_consumer(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise TransportError(f"topic {self._settings.topic}: the source is not started")
        return self._consumer

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
            partition_assignment_strategy=(StickyPartitionAssignor,),
            max_partition_fetch_bytes=settings.max_chunk_bytes,
            fetch_max_bytes=settings.max_buffer_bytes,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.session_timeout_ms // 10,
            max_poll_interval_ms=settings.max_poll_interval_ms,
        )
        consumer.subscribe([settings.topic], listener=self._listener(consumer))
        try:
            await consumer.start()
        except (KafkaError, asyncio.CancelledError):
            await consumer.stop()
            raise
        return consumer

    async def _poll(self) -> list[ConsumerRecord]:
        if self._failure is not None:
            raise self._failure
        wanted = self._ready - self._paused or {_NO_PARTITION}
        try:
            batches = await self._open_consumer.getmany(
                *wanted, timeout_ms=_POLL_MS, max_records=1
            )
        except ConsumerStoppedError:  # closed meanwhile
            return []
        return [record for records in batches.values() for record in records]

    def _is_wanted(self, record: ConsumerRecord) -> bool:
        """True if the partition was neither paused nor revoked while the record was on its way."""
        partition = TopicPartition(record.topic, record.partition)
        if partition in self._ready and partition in self._paused:
            self._open_consumer.seek(partition, record.offset)
        return partition in self._ready - self._paused and not self._is_closed

    def _check_order(self, record: ConsumerRecord) -> None:
        partition = TopicPartition(record.topic, record.partition)
        least = self._next[partition]
        if record.offset < least:
            raise TransportError(
                f"topic {record.topic}: partition {record.partition} went back from offset "
                f"{least} to {record.offset}, so the topic was made anew; start again"
            )
        self._next[partition] = record.offset + 1

    def _delivery(self, record: ConsumerRecord) -> Delivery:
        partition = TopicPartition(record.topic, record.partition)
        position = Position(_name(partition), record.offset)
        try:
            self._check_size(record)
            chunk = parse_chunk(
                record.key,
                record.headers,
                record.value,
                timestamp_us=record.timestamp * 1000,
                offset=record.offset,
                default_camera=position.partition,
            )
        except StreamError as error:
            camera = readable_camera(record.key, position.partition)
            return Delivery(position, camera, None, error, record.value or b"")
        return Delivery(position, chunk.camera, chunk)

    def _check_size(self, record: ConsumerRecord) -> None:
        size, most = len(record.value or b""), self._settings.max_chunk_bytes
        if size > most:
            raise RefusedChunkError(
                f"the record at offset {record.offset} has {size} bytes, max_chunk_bytes is {most}"
            )

    async def _commit_if_due(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._wanted and now_s >= self._commit_at_s:
            self._commit_at_s = now_s + self._settings.commit_interval_s
            async with explained(self._settings.connection, f"group {self._settings.group_id}"):
                await self._commit_now(self._open_consumer)

    async def _commit_now(self, consumer: AIOKafkaConsumer) -> None:
        offsets = {tp: offset for tp, offset in self._wanted.items() if tp in self._owned}
        self._wanted.clear()
        if not offsets:
            return
        try:
            # The client itself would try again for ever.
            async with asyncio.timeout(self._settings.connection.connect_timeout_s):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return  # the partitions moved on; their new owner reads these records again
        self._owned.update((tp, offset) for tp, offset in offsets.items() if tp in self._owned)

    async def _assign(self, consumer: AIOKafkaConsumer, assigned: set[TopicPartition]) -> None:
        committed = {partition: await consumer.committed(partition) for partition in assigned}
        oldest = await consumer.beginning_offsets(assigned)
        newest = await consumer.end_offsets(assigned)
        start = oldest if self._settings.start == "earliest" else newest
        for partition in assigned:
            known = (committed[partition], self._start_at(_name(partition)))
            first = first_offset(*known)
            self._owned[partition] = committed[partition]
            if first is None:
                # This is committed too, for "latest" must mean the same place after a crash.
                first = self._wanted[partition] = start[partition]
            elif _is_beyond(partition, known, newest[partition]):
                # The committed offset is of an earlier topic; in this one nothing is committed.
                self._owned[partition] = None
                first = self._wanted[partition] = oldest[partition]
            self._begin(consumer, partition, max(first, oldest[partition]))

    def _begin(self, consumer: AIOKafkaConsumer, partition: TopicPartition, first: int) -> None:
        consumer.seek(partition, first)
        self._next[partition] = first
        if partition in self._paused:
            consumer.pause(partition)
        self._ready.add(partition)

    async def _revoke(self, consumer: AIOKafkaConsumer, revoked: set[TopicPartition]) -> None:
        self._ready -= revoked
        async with asyncio.TaskGroup() as group:
            for partition in revoked & set(self._owned):
                group.create_task(self._finish(partition))
        await self._commit_now(consumer)
        for partition in revoked:
            self._owned.pop(partition, None)
            self._wanted.pop(partition, None)

    async def _finish(self, partition: TopicPartition) -> None:
        """Let the daemon finish a partition, for at most half a session time-out.

        The next owner reads again what is not finished by then.
        """
        name = _name(partition)
        with contextlib.suppress(TimeoutError), own_cancellation(f"finishing {name}"):
            async with asyncio.timeout(self._settings.session_timeout_ms / 2000):
                await self._on_revoked(name)

    def _listener(self, consumer: AIOKafkaConsumer) -> "_Listener":
        """A listener whose errors ``deliveries`` raises, as aiokafka would only log them."""

        async def assigned(partitions: set[TopicPartition]) -> None:
            with self._failing_loudly():
                await self._assign(consumer, partitions)
            self._took_part.set()

        async def revoked(partitions: set[TopicPartition]) -> None:
            with self._failing_loudly():
                await self._revoke(consumer, partitions)

        return _Listener(assigned, revoked)

    @contextlib.contextmanager
    def _failing_loudly(self) -> Iterator[None]:
        try:
            with own_cancellation(f"group {self._settings.group_id}: a rebalance"):
                yield
        except (KafkaError, S2netdError, TimeoutError) as error:
            self._failure = error
        except BaseExceptionGroup as errors:  # from the partitions that were to be finished
            self._failure = errors.exceptions[0]


OnRebalance = Callable[[set[TopicPartition]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Hands rebalances over to the source."""

    assigned: OnRebalance
    revoked: OnRebalance

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self.assigned(assigned)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self.revoked(revoked)


def _is_beyond(
    partition: TopicPartition, known: tuple[int | None, int | None], newest: int
) -> bool:
    """True if the committed or stored offset lies beyond the partition's newest record.

    Then the topic was made anew, and those offsets are of an earlier one.
    """
    last = max((offset for offset in known if offset is not None), default=newest)
    if last > newest:
        _log.warning(
            "topic %s, partition %d: read up to offset %d, but it ends at %d, so the topic was "
            "made anew; it is read from its oldest record",
            partition.topic,
            partition.partition,
            last,
            newest,
        )
    return last > newest


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _topic_partition(name: str) -> TopicPartition:
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))
