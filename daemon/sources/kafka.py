"""Chunks from a Kafka topic, shared out among the members of a consumer group.

When a partition is assigned, its owner is asked where to begin; that may take a while, so it is
done beside the group's own work, whose heartbeats must not wait. Records are taken from the client
one at a time, so nothing is held here. A paused or revoked partition delivers nothing more, and
what waits is in the client's bounded buffer or in the broker.

A rebalance first takes all partitions from all members, though most come back to the same one. So
at first they are only held: what is finished is kept, and nothing after that. A partition that
comes back goes on where it was, with all that is in memory; one that goes elsewhere is given back.

A topic that was deleted and made anew counts its records from 0 again. It has another id, so its
partitions are other logs, and are read from their oldest record.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata

from daemon.cancellation import own_cancellation
from daemon.errors import ForeignCancellationError, StaleOwnerError, TransportError
from daemon.kafka.connection import KafkaConnection, describe_topic, explained, persist
from daemon.kafka.membership import NameWatch, leave_group
from daemon.kafka.outage import Outage
from daemon.kafka.topic_identity import topic_id_from
from daemon.sources.base import Delivery, PartitionOwner, Position
from daemon.wire.records import parse_chunk, readable_camera
from engine.errors import RefusedChunkError, S2netdError, StreamError

_POLL_MS = 200
_LEAVE_S = 5.0
_METADATA_MS = 5000  # so soon new partitions are found
_IDENTIFY_S = 1.0  # so soon a topic made anew is
_HEARTBEAT_MS = 1000  # so soon the others hear of a member that leaves
_ANSWER_MS = 5000  # a partition that was looked at so recently is known
_NO_PARTITION = TopicPartition("", -1)  # an empty list would mean all of them

T = TypeVar("T")

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
        start: Where to begin while the group knows nothing of the topic. Partitions that are
            added later are read from their oldest record.
        max_chunk_bytes: Larger records are refused.
        max_buffer_bytes: Most bytes that one fetch from a broker brings.
        commit_interval_s: Least time between two commits, in seconds; None: offsets are committed
            by somebody else.
        session_timeout_s: A member without a heartbeat for so long loses its partitions.
        max_poll_interval_ms: So does a member without progress for so long.
    """

    connection: KafkaConnection
    topic: str
    group_id: str
    group_instance_id: str | None = None
    start: Literal["earliest", "latest"] = "latest"
    max_chunk_bytes: int = 8 * 2**20
    max_buffer_bytes: int = 32 * 2**20
    commit_interval_s: float | None = 1.0
    session_timeout_s: float = 30.0
    max_poll_interval_ms: int = 900_000


class KafkaChunkSource:
    """Reads one topic as a member of a group; its partitions are the topic's.

    Args:
        settings: What to read.
    """

    def __init__(self, settings: KafkaSourceSettings) -> None:
        self._settings = settings
        self._owner: PartitionOwner | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._taking: dict[TopicPartition, asyncio.Task[None]] = {}
        self._held: set[TopicPartition] = set()  # revoked, and perhaps coming back
        self._ready: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}  # → least offset that may come
        self._paused: set[TopicPartition] = set()
        self._reached: dict[TopicPartition, int] = {}  # → next offset to commit
        self._commit_at_s = 0.0
        self._log_id = ""  # the topic's own id, where the broker tells it
        self._identify_at_s = 0.0
        self._is_topic_gone = False
        self._names: NameWatch | None = None
        self._outage = Outage(f"topic {settings.topic}", _log)
        self._failure: BaseException | None = None
        self._took_part = asyncio.Event()
        self._is_closed = False

    async def start(self, owner: PartitionOwner) -> None:
        """See ``ChunkSource``."""
        settings = self._settings
        self._owner = owner
        await describe_topic(settings.connection, settings.topic)
        what = f"group {settings.group_id}"
        # A member that was killed keeps its place until its session ends, and the others wait.
        self._consumer = await persist(
            settings.connection, what, self._connect, settings.session_timeout_s
        )
        # "latest" means this moment, so wait until it is settled where each partition begins.
        await self._took_part.wait()
        self._check_failure()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """See ``ChunkSource``."""
        while not self._is_closed:
            for record in await self._look():
                if self._is_wanted(record) and self._is_in_order(record):
                    yield self._delivery(record)

    async def _look(self) -> list[ConsumerRecord]:
        """New records; none while the broker is away, which is waited out.

        Raises:
            ConfigError: The broker turns us away, or another member has our name.
        """
        self._check_failure()
        try:
            async with explained(self._settings.connection, f"topic {self._settings.topic}"):
                await self._commit_if_due()
                await self._identify_if_due()
                records = await self._poll()
        except ForeignCancellationError:
            raise
        except TransportError as error:
            self._outage.failed(error)
            await asyncio.sleep(_POLL_MS / 1000)
            return []
        self._outage.worked()
        return records

    def reached(self, partition: str, next_offset: int) -> None:
        """See ``ChunkSource``; it is committed, unless that is done in transactions."""
        if self._settings.commit_interval_s is not None:
            self._reached[_topic_partition(partition)] = next_offset

    def renounce(self, partition: str) -> None:
        """See ``ChunkSource``; the group is asked anew who has which partition."""
        self._ready.discard(_topic_partition(partition))
        self._held.discard(_topic_partition(partition))
        self._coordinator.request_rejoin()

    def is_caught_up(self, partition: str) -> bool:
        """See ``ChunkSource``."""
        topic_partition, consumer = _topic_partition(partition), self._consumer
        if consumer is None or topic_partition not in self._ready - self._paused:
            return False
        try:
            newest = consumer.highwater(topic_partition)
            asked_ms = consumer.last_poll_timestamp(topic_partition)
        except (AssertionError, IllegalStateError):  # not assigned any more
            return False
        if newest is None or asked_ms is None:
            return False
        is_recent = time.time() * 1000 - asked_ms < _ANSWER_MS  # aiokafka's clock is this one
        return is_recent and self._next[topic_partition] >= int(newest)

    async def is_member(self) -> bool:
        """True if the group's coordinator says now that this member is still one of it.

        Raises:
            KafkaError: It gives no answer.
        """
        # There is no public way to ask; a commit would say the same, but change something.
        return bool(await self._coordinator._do_heartbeat())  # noqa: SLF001

    async def commit(self, partition: str, next_offset: int, metadata: str) -> None:
        """Commit an offset as a member of the group.

        Raises:
            StaleOwnerError: The partition is another member's now.
            KafkaError: It failed.
        """
        offsets = {_topic_partition(partition): OffsetAndMetadata(next_offset, metadata)}
        try:
            # The client itself would try again for ever.
            async with asyncio.timeout(self._settings.connection.connect_timeout_s):
                await self._open_consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise StaleOwnerError(f"partition {partition}: {error}") from error

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
        await self._stop_taking(set(self._taking))
        try:
            async with explained(self._settings.connection, "last commit"):
                await self._commit_now(consumer)
        finally:
            nobody_there = contextlib.suppress(TimeoutError, ForeignCancellationError)
            with nobody_there, own_cancellation("leaving the group"):
                await leave_group(consumer)
                async with asyncio.timeout(_LEAVE_S):
                    await consumer.stop()

    @property
    def _open_consumer(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise TransportError(f"topic {self._settings.topic}: the source is not started")
        return self._consumer

    @property
    def _coordinator(self) -> GroupCoordinator:
        return self._open_consumer._coordinator  # noqa: SLF001 - there is no public way

    @property
    def _open_owner(self) -> PartitionOwner:
        if self._owner is None:
            raise TransportError(f"topic {self._settings.topic}: the source is not started")
        return self._owner

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

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
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=min(int(settings.session_timeout_s * 100), _HEARTBEAT_MS),
            metadata_max_age_ms=_METADATA_MS,
            max_poll_interval_ms=settings.max_poll_interval_ms,
        )
        consumer.subscribe([settings.topic], listener=self._listener(consumer))
        self._consumer = consumer  # rebalances begin before ``start`` returns
        try:
            await consumer.start()
        except (KafkaError, asyncio.CancelledError):
            await consumer.stop()
            raise
        self._names = NameWatch(consumer)
        return consumer

    async def _poll(self) -> list[ConsumerRecord]:
        wanted = self._ready - self._paused
        if not wanted or self._is_topic_gone:
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
        if partition in self._ready and partition in self._paused:
            self._open_consumer.seek(partition, record.offset)
        return partition in self._ready - self._paused and not self._is_closed

    def _is_in_order(self, record: ConsumerRecord) -> bool:
        """False if the partition goes back, which it does when the topic was made anew.

        Raises:
            TransportError: It goes back, and the broker does not tell topics from one another.
        """
        partition = TopicPartition(record.topic, record.partition)
        least = self._next[partition]
        if record.offset >= least:
            self._next[partition] = record.offset + 1
            return True
        if not self._log_id:
            raise TransportError(
                f"topic {record.topic}: partition {record.partition} went back from offset "
                f"{least} to {record.offset}, so the topic was made anew; start again"
            )
        self._ready.discard(partition)  # until it is taken again, by its new name
        self._identify_at_s = 0.0
        return False

    async def _identify_if_due(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._identify_at_s or self._taking:
            return
        self._identify_at_s = now_s + _IDENTIFY_S
        identity = await self._identity(self._open_consumer)
        if identity and self._log_id and identity != self._log_id:
            self._log_id = identity
            consumer, mine = self._open_consumer, set(self._next)
            self._ready -= mine
            for partition in mine & consumer.assignment():
                await self._open_owner.hold(_name(partition))
                self._begin_taking(consumer, partition)

    async def _identity(self, consumer: AIOKafkaConsumer) -> str:
        """The topic's id; empty if it is not known, or if there is no such topic now."""
        try:
            identity = await topic_id_from(consumer._client, self._settings.topic)  # noqa: SLF001
        except UnknownTopicOrPartitionError:
            self._is_topic_gone = bool(self._log_id)
            return ""
        except KafkaError:
            return ""  # whatever it is, others will say so
        self._is_topic_gone = False
        return identity or ""

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
        interval_s, now_s = self._settings.commit_interval_s, asyncio.get_running_loop().time()
        if interval_s is not None and self._reached and now_s >= self._commit_at_s:
            self._commit_at_s = now_s + interval_s
            async with explained(self._settings.connection, f"group {self._settings.group_id}"):
                await self._commit_now(self._open_consumer)

    async def _commit_now(self, consumer: AIOKafkaConsumer) -> None:
        mine = self._ready | self._held
        offsets = {tp: offset for tp, offset in self._reached.items() if tp in mine}
        self._reached.clear()
        if not offsets:
            return
        try:
            # The client itself would try again for ever.
            async with asyncio.timeout(self._settings.connection.connect_timeout_s):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return  # the partitions moved on; nothing depends on it

    async def _assign(self, consumer: AIOKafkaConsumer, assigned: set[TopicPartition]) -> None:
        lost, self._held = self._held - assigned, set()
        for partition in lost:
            self._next.pop(partition, None)
            await self._open_owner.give_back(_name(partition))
        if assigned:
            consumer.pause(*assigned)  # nothing is fetched of one until it is taken
        identity = await self._identity(consumer)
        self._log_id = identity or self._log_id
        # Asked once for all: as soon as one is taken, the group is known.
        known = asyncio.create_task(self._is_group_known(consumer))
        for partition in assigned:
            self._begin_taking(consumer, partition, known)
        if not assigned:
            self._took_part.set()

    def _begin_taking(
        self,
        consumer: AIOKafkaConsumer,
        partition: TopicPartition,
        known: "asyncio.Task[bool] | None" = None,
    ) -> None:
        work = self._take(consumer, partition, known)
        self._taking[partition] = asyncio.create_task(work, name=f"take {_name(partition)}")

    async def _is_group_known(self, consumer: AIOKafkaConsumer) -> bool:
        """True if the group has read the topic before."""

        async def ask() -> bool:
            numbers = consumer.partitions_for_topic(self._settings.topic) or set()
            partitions = [TopicPartition(self._settings.topic, number) for number in numbers]
            committed = await asyncio.gather(*(consumer.committed(each) for each in partitions))
            return any(offset is not None for offset in committed)

        return await self._patiently("group", ask)

    async def _patiently(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer; a broker that is away is waited for."""
        while True:
            try:
                async with explained(self._settings.connection, what):
                    answer = await ask()
            except ForeignCancellationError:
                raise
            except TransportError as error:
                self._outage.failed(error)
                await asyncio.sleep(_POLL_MS / 1000)
            else:
                self._outage.worked()
                return answer

    async def _take(
        self,
        consumer: AIOKafkaConsumer,
        partition: TopicPartition,
        known: "asyncio.Task[bool] | None",
    ) -> None:
        """Ask the owner where to begin with a partition, and begin.

        Args:
            consumer: The consumer.
            partition: The partition.
            known: Whether the group has read the topic before; None: it has.
        """

        async def ask() -> tuple[int | None, int, int]:
            committed = await consumer.committed(partition)
            oldest = (await consumer.beginning_offsets([partition]))[partition]
            newest = (await consumer.end_offsets([partition]))[partition]
            return committed, oldest, newest

        with self._failing_loudly(f"taking {_name(partition)}"):
            is_known = known is None or await asyncio.shield(known)
            committed, oldest, newest = await self._patiently(_name(partition), ask)
            start = oldest if is_known or self._settings.start == "earliest" else newest
            first = await self._open_owner.take(
                _name(partition),
                fallback=start if committed is None else committed,
                oldest=oldest,
                log_id=self._log_id,
            )
            consumer.seek(partition, max(first, oldest))
            self._next[partition] = max(first, oldest)
            self._ready.add(partition)
            if partition not in self._paused:
                consumer.resume(partition)
        self._taking.pop(partition, None)
        if not self._taking:
            self._took_part.set()

    async def _stop_taking(self, partitions: set[TopicPartition]) -> None:
        tasks = [self._taking.pop(each) for each in partitions if each in self._taking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _revoke(self, consumer: AIOKafkaConsumer, revoked: set[TopicPartition]) -> None:
        await self._stop_taking(revoked)
        self._ready -= revoked
        async with asyncio.TaskGroup() as group:
            for partition in revoked & set(self._next):
                self._held.add(partition)
                group.create_task(self._hold(partition))
        await self._commit_now(consumer)
        for partition in revoked:
            self._paused.discard(partition)

    async def _hold(self, partition: TopicPartition) -> None:
        """Let the owner keep what is finished, for at most half a session time-out.

        The next owner does again what is not kept by then.
        """
        name = _name(partition)
        with contextlib.suppress(TimeoutError), own_cancellation(f"holding {name}"):
            async with asyncio.timeout(self._settings.session_timeout_s / 2):
                await self._open_owner.hold(name)

    def _listener(self, consumer: AIOKafkaConsumer) -> "_Listener":
        """A listener whose errors ``deliveries`` raises, as aiokafka would only log them."""
        what = f"group {self._settings.group_id}: a rebalance"

        async def assigned(partitions: set[TopicPartition]) -> None:
            with self._failing_loudly(what):
                await self._assign(consumer, partitions)

        async def revoked(partitions: set[TopicPartition]) -> None:
            with self._failing_loudly(what):
                await self._revoke(consumer, partitions)

        return _Listener(assigned, revoked)

    @contextlib.contextmanager
    def _failing_loudly(self, what: str) -> Iterator[None]:
        try:
            with own_cancellation(what):
                yield
        except (KafkaError, S2netdError, TimeoutError) as error:
            self._fail(error)
        except BaseExceptionGroup as errors:  # from the partitions that were to be held
            self._fail(errors.exceptions[0])

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._took_part.set()


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


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _topic_partition(name: str) -> TopicPartition:
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))
