"""Which partitions of the topic are ours: taken, held through rebalances, given back.

A partition is taken beside the group's own work, for aiokafka sends no heartbeats while it waits
for a listener. A rebalance first takes all partitions from all members, though most come back to
the same one. So at first they are only held: what is finished is kept, and nothing after that. A
partition that comes back goes on where it was, with all that is in memory; one that goes elsewhere
is given back.

A topic that was deleted and made anew counts its records from 0 again. It has another id, so its
partitions are other logs, and are read from their oldest record.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from daemon.cancellation import own_cancellation
from daemon.errors import StaleOwnerError, TransportError
from daemon.kafka.connection import endure, persist
from daemon.kafka.reading import bounds
from daemon.kafka.topic_identity import topic_id_from
from daemon.outages import Outage
from daemon.sources.base import PartitionOwner
from daemon.sources.kafka.settings import KafkaSourceSettings

_IDENTIFY_S = 1.0  # so soon a topic made anew is found, and that the broker is away
_IDENTIFY_AT_MOST_S = 5.0  # a broker that does not answer by then is away

T = TypeVar("T")
OnRebalance = Callable[[set[TopicPartition]], Awaitable[None]]

_log = logging.getLogger("s2netd.kafka")


def sticky_assignor() -> type[StickyPartitionAssignor]:
    """An assignor of one member's own, which moves as few partitions as it can.

    aiokafka keeps what a member had in the class, for all consumers of the process alike, and
    never tells it the generation, so that a member that returns late would claim what it lost.
    """
    return type("OwnStickyAssignor", (StickyPartitionAssignor,), {})


class Assignment:
    """The partitions that the group has assigned to this member.

    Args:
        settings: What is read.
        owner: Asked for every partition.
        outage: Told when the broker is away.

    Attributes:
        ready: Those that may be read.
        next: Partition → the least offset that may come.
        paused: Those that are not read for a while.
        assignor: Shares the partitions out when this member leads the group.
        is_topic_gone: There is no such topic now.
        trouble: Why the broker does not answer; None if it does.
        took_part: Set once all that was assigned first is taken, or has failed.
        was_let_in: The start is over, so a broker that turns us away is waited for.
    """

    def __init__(
        self, settings: KafkaSourceSettings, owner: PartitionOwner, outage: Outage
    ) -> None:
        self.ready: set[TopicPartition] = set()
        self.next: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.assignor = sticky_assignor()
        self.is_topic_gone = False
        self.trouble: Exception | None = None
        self.took_part = asyncio.Event()
        self.was_let_in = False
        self._settings = settings
        self._owner = owner
        self._outage = outage
        self._taking: dict[TopicPartition, asyncio.Task[None]] = {}
        self._held: set[TopicPartition] = set()  # revoked, and perhaps coming back
        self._log_id = ""  # the topic's own id, where the broker tells it
        self._identify_at_s = 0.0
        self._failure: BaseException | None = None

    @property
    def is_taking(self) -> bool:
        """True while a partition is being taken, which says itself whether the broker is away."""
        return bool(self._taking)

    @property
    def mine(self) -> set[TopicPartition]:
        """Those that are ready, or held."""
        return self.ready | self._held

    def check(self) -> None:
        """Raise what has failed in a rebalance, as aiokafka would only log it."""
        if self._failure is not None:
            raise self._failure

    def renounce(self, partition: TopicPartition) -> None:
        """Another process has taken a partition."""
        self.ready.discard(partition)
        self._held.discard(partition)
        self.next.pop(partition, None)

    async def stop(self) -> None:
        """Take nothing more."""
        await self._stop_taking(set(self._taking))

    async def _assign(self, consumer: AIOKafkaConsumer, assigned: set[TopicPartition]) -> None:
        lost, self._held = self._held - assigned, set()
        for partition in lost:
            self.next.pop(partition, None)
            self.paused.discard(partition)
            await self._owner.give_back(name_of(partition))
        if assigned:
            consumer.pause(*assigned)  # nothing is fetched of one until it is taken
        identity = await self._identity(consumer)
        self._log_id = identity or self._log_id
        if not assigned:
            self.took_part.set()
            return
        # Asked once for all: as soon as one is taken, the group is known.
        known = asyncio.create_task(self._is_group_known(consumer))
        for partition in assigned:
            self._begin_taking(consumer, partition, known)

    def _begin_taking(
        self,
        consumer: AIOKafkaConsumer,
        partition: TopicPartition,
        known: "asyncio.Task[bool] | None" = None,
    ) -> None:
        work = self._take(consumer, partition, known)
        self._taking[partition] = asyncio.create_task(work, name=f"take {name_of(partition)}")

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
        connection, outage = self._settings.connection, self._outage
        if self.was_let_in:
            return await endure(connection, what, ask, outage)
        return await persist(connection, what, ask, outage=outage)

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
            return await consumer.committed(partition), *await bounds(consumer, partition)

        with self._failing_loudly(f"taking {name_of(partition)}"):
            is_known = known is None or await asyncio.shield(known)
            committed, oldest, newest = await self._patiently(name_of(partition), ask)
            start = oldest if is_known or self._settings.start == "earliest" else newest
            await self._begin(consumer, partition, start, oldest, committed)
        self._taking.pop(partition, None)
        if not self._taking:
            self.took_part.set()

    async def _begin(
        self,
        consumer: AIOKafkaConsumer,
        partition: TopicPartition,
        start: int,
        oldest: int,
        committed: int | None,
    ) -> None:
        try:
            first = await self._owner.take(
                name_of(partition),
                fallback=start if committed is None else committed,
                oldest=oldest,
                committed=committed,
                log_id=self._log_id,
            )
        except StaleOwnerError as error:  # another member was faster; the group knows why
            _log.warning("partition %s: %s; the group is asked anew", name_of(partition), error)
            consumer._coordinator.request_rejoin()  # noqa: SLF001 - there is no public way
            return
        consumer.seek(partition, max(first, oldest))
        self.next[partition] = max(first, oldest)
        self.ready.add(partition)
        if partition not in self.paused:
            consumer.resume(partition)

    async def _stop_taking(self, partitions: set[TopicPartition]) -> None:
        tasks = [self._taking.pop(each) for each in partitions if each in self._taking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def identify_if_due(self, consumer: AIOKafkaConsumer) -> None:
        """Look whether the topic is still the same one; if not, take its partitions anew."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._identify_at_s or self._taking:
            return
        self._identify_at_s = now_s + _IDENTIFY_S
        identity = await self._identity(consumer)
        if identity and self._log_id and identity != self._log_id:
            self._log_id = identity
            mine = set(self.next)
            self.ready -= mine
            for partition in mine & consumer.assignment():
                await self._owner.hold(name_of(partition))
                self._begin_taking(consumer, partition)

    async def _identity(self, consumer: AIOKafkaConsumer) -> str:
        """The topic's id; empty if it is not known, or if there is no such topic now."""
        try:
            async with asyncio.timeout(_IDENTIFY_AT_MOST_S):
                identity = await topic_id_from(consumer._client, self._settings.topic)  # noqa: SLF001
        except UnknownTopicOrPartitionError as error:
            self.is_topic_gone = bool(self._log_id)
            self.trouble = error
            return ""
        except (KafkaError, TimeoutError) as error:
            self.trouble = error
            return ""
        self.is_topic_gone, self.trouble = False, None
        return identity or ""

    async def _revoke(self, revoked: set[TopicPartition]) -> None:
        await self._stop_taking(revoked)
        self.ready -= revoked
        async with asyncio.TaskGroup() as group:
            for partition in revoked & set(self.next):
                self._held.add(partition)
                group.create_task(self._hold(partition))

    async def _hold(self, partition: TopicPartition) -> None:
        """Let the owner keep what is finished, for at most half a session time-out.

        The next owner does again what is not kept by then.
        """
        name = name_of(partition)
        with contextlib.suppress(TimeoutError), own_cancellation(f"holding {name}"):
            async with asyncio.timeout(self._settings.session_timeout_s / 2):
                await self._owner.hold(name)

    def listener(self, consumer: AIOKafkaConsumer) -> "_Listener":
        """A listener whose errors ``deliveries`` raises, as aiokafka would only log them."""
        what = f"group {self._settings.group_id}: a rebalance"

        async def assigned(partitions: set[TopicPartition]) -> None:
            self.assignor.on_generation_assignment(consumer._coordinator.generation)  # noqa: SLF001
            with self._failing_loudly(what):
                await self._assign(consumer, partitions)

        async def revoked(partitions: set[TopicPartition]) -> None:
            with self._failing_loudly(what):
                await self._revoke(partitions)

        return _Listener(assigned, revoked)

    @contextlib.contextmanager
    def _failing_loudly(self, what: str) -> Iterator[None]:
        try:
            with own_cancellation(what):
                yield
        except ExceptionGroup as errors:  # from the partitions that were to be held
            self._fail(errors.exceptions[0])
        except Exception as error:  # noqa: BLE001 - whatever it is, ``check`` raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self.took_part.set()

    def is_in_order(self, record: ConsumerRecord) -> bool:
        """False if the partition goes back, which it does when the topic was made anew.

        Raises:
            TransportError: It goes back, and the broker does not tell topics from one another.
        """
        partition = TopicPartition(record.topic, record.partition)
        least = self.next[partition]
        if record.offset >= least:
            self.next[partition] = record.offset + 1
            return True
        if not self._log_id:
            raise TransportError(
                f"topic {record.topic}: partition {record.partition} went back from offset "
                f"{least} to {record.offset}, so the topic was made anew; start again"
            )
        self.ready.discard(partition)  # until it is taken again, by its new name
        self._identify_at_s = 0.0
        return False


@dataclass(frozen=True, slots=True)
class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Hands rebalances over to the source."""

    assigned: OnRebalance
    revoked: OnRebalance

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self.assigned(assigned)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self.revoked(revoked)


def name_of(partition: TopicPartition) -> str:
    """The partition's name for the rest of the daemon."""
    return f"{partition.topic}/{partition.partition}"


def partition_of(name: str) -> TopicPartition:
    """The inverse of ``name_of``."""
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))
