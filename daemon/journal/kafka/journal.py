"""A journal in Kafka: a step is one transaction, and the group's offset is part of it.

Each partition has a producer of its own, whose transactional id is made of the group, the topic
and the partition. Starting it puts the producer of any earlier owner out, and waits until that
one's last transaction is over; only then is anything read. One producer a process would not do:
a process that has lost a partition could still commit (aiokafka offers no fencing by the group's
generation, KIP-447).

After an error that leaves open what became of a step (a time-out, a lost connection) the producer
is thrown away and made anew, as Jepsen advises. Then the step's number beside the group's offset
tells whether it was taken; if not, the same step is committed again. It is never computed again.
Where a broker has left a transaction hanging, what can be read of it tells, and what hangs is
ended accordingly.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    ProducerFenced,
)

from daemon.errors import StaleOwnerError, TransportError
from daemon.journal.base import Past, Step
from daemon.journal.kafka.committed import Committed
from daemon.journal.kafka.group_offsets import GroupOffsets
from daemon.journal.kafka.hanging import find
from daemon.journal.kafka.past import Left, read_past
from daemon.journal.kafka.seat import FeatureOffsets, Seat
from daemon.journal.kafka.settings import GroupMember, KafkaJournalSettings
from daemon.journal.kafka.topics import make_topics, make_wide_enough
from daemon.kafka.clients import let_go, start
from daemon.kafka.connection import TopicFacts, describe_topic, endure, persist
from daemon.kafka.producer import abandon
from daemon.kafka.topics import RECORD_MARGIN_BYTES
from daemon.outages import Kind, Outages

_FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping)
_ATTEMPT_S = 10.0

T = TypeVar("T")

_log = logging.getLogger("s2netd.journal")


class KafkaJournal:
    """Keeps the steps of a consumer group's partitions.

    Args:
        settings: Where things go.
        member: The consumer that the partitions are assigned to.
        outages: Told when the broker is away.
        on_hanging: Told of each transaction that hung and is ended: of which partition it was, and
            which step was the last that was taken.
    """

    def __init__(
        self,
        settings: KafkaJournalSettings,
        member: GroupMember,
        outages: Outages | None = None,
        on_hanging: Callable[[str, int], None] = lambda _partition, _number: None,
    ) -> None:
        self._settings = settings
        self._on_hanging = on_hanging
        self._member = member
        self._seats: dict[int, Seat] = {}
        self._offsets = GroupOffsets(settings)
        self._outage = (outages or Outages()).watch(Kind.BROKER, "journal")
        self._n_partitions = 0  # of the journal's own topics
        self._most_dead_bytes = settings.max_record_bytes
        self._is_exact = settings.guarantee == "exactly-once"

    async def start(self) -> None:
        """See ``Journal``; a broker that is away is waited for, and missing topics are made."""
        settings = self._settings
        await self._facts(settings.events_topic, "Write")
        chunks = await self._facts(settings.chunks_topic)
        await make_topics(settings, len(chunks.partitions), self._outage)
        for topic in (settings.state_topic, settings.features_topic):
            seen = await self._facts(topic)
            self._n_partitions = min(
                self._n_partitions or len(seen.partitions), len(seen.partitions)
            )
        dead = await self._facts(settings.dead_topic)
        if dead.max_message_bytes is not None:
            # A letter that the topic does not take would keep its whole step out.
            room = dead.max_message_bytes - 2 * RECORD_MARGIN_BYTES
            self._most_dead_bytes = max(min(settings.max_record_bytes, room), 0)
        what = f"transactional id {self._id_of('start')}"
        await persist(
            settings.connection,
            what,
            self._try_transactions,
            operation="Write",
            outage=self._outage,
        )

    async def _facts(self, topic: str, operation: str = "Read") -> TopicFacts:
        connection = self._settings.connection
        return await describe_topic(connection, topic, operation, outage=self._outage)

    async def _try_transactions(self) -> None:
        """Let a missing right show at the start, and not only when a partition is taken."""
        await let_go(await self._new_producer("start"))

    async def take(self, partition: str) -> Past:
        """See ``Journal``; a broker that is away is waited for."""
        number = self._number(partition)
        return await self._endure(f"partition {partition}", lambda: self._take(number))

    async def commit(self, partition: str, step: Step) -> None:
        """See ``Journal``; a broker that is away is waited for."""
        seat = self._seats.get(self._number(partition))
        if seat is None:
            raise StaleOwnerError(f"partition {partition} was given back")
        what = f"partition {partition}, step {step.number}"
        await self._endure(what, lambda: self._try(seat, step))

    async def _endure(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await endure(
            self._settings.connection, what, attempt, self._outage, self._patience_s, "Write"
        )

    async def give_back(self, partition: str) -> None:
        """See ``Journal``."""
        seat = self._seats.pop(self._number(partition), None)
        if seat is not None and seat.producer is not None:
            await let_go(seat.producer)

    async def close(self) -> None:
        """See ``Journal``."""
        for seat in list(self._seats.values()):
            await self.give_back(seat.partition)
        await self._offsets.close()

    @property
    def _patience_s(self) -> float:
        """How long the broker may rightly take to end another owner's transaction."""
        return self._settings.transaction_timeout_ms / 1000

    def _number(self, partition: str) -> int:
        return int(partition.rpartition("/")[2])

    async def _take(self, number: int) -> Past:
        await self._give_up(self._seats.pop(number, None))
        if number >= self._n_partitions:
            await make_wide_enough(self._settings, number)
            self._n_partitions = number + 1
        seat = Seat(self._settings, number, FeatureOffsets(), self._most_dead_bytes)
        seat.producer = await self._new_producer(number)
        try:
            known, left = await self._find(seat, seat.producer)
        except _FENCED as error:
            await self._give_up(seat)
            raise StaleOwnerError(f"partition {number}: {error!r}") from error
        except BaseException:
            await self._give_up(seat)
            raise
        if left.n_damaged:
            _log.warning("partition %d: %d damaged records are left out", number, left.n_damaged)
        seat.offsets, seat.answered = FeatureOffsets.of(left), known
        self._seats[number] = seat
        return left.past(known)

    async def _try(self, seat: Seat, step: Step) -> None:
        """Commit a step, or find that it was committed.

        Raises:
            StaleOwnerError: Somebody else owns the partition.
            KafkaError, TimeoutError: It failed, or it is not known whether it did.
        """
        try:
            async with asyncio.timeout(_ATTEMPT_S + self._patience_s):
                producer = seat.producer
                if producer is None:
                    producer = seat.producer = await self._successor(seat)
                    if await self._is_taken(seat, producer, step):
                        return
                await self._transact(seat, producer, step)
                seat.answered = Committed.by(step)
        except _FENCED as error:
            await self._leave(seat)
            raise StaleOwnerError(f"partition {seat.number}: {error!r}") from error
        except StaleOwnerError:
            await self._leave(seat)
            raise
        except BaseException:
            await self._give_up(seat)
            raise

    async def _transact(self, seat: Seat, producer: AIOKafkaProducer, step: Step) -> None:
        if not self._is_exact:
            await seat.send(producer, step)
            metadata = Committed.by(step).metadata
            await self._member.commit(seat.partition, step.next_offset, metadata)
            return
        await producer.begin_transaction()
        await seat.send(producer, step)
        offset = seat.offset(Committed.by(step))
        await producer.send_offsets_to_transaction(offset, self._settings.group_id)
        await producer.commit_transaction()

    async def _find(self, seat: Seat, producer: AIOKafkaProducer) -> tuple[Committed, Left]:
        """The last step that was taken, and what else was left."""
        if not self._is_exact:
            known = await self._by_offset(seat)
            return known, await read_past(self._settings, seat.number)
        found = await find(seat, producer, self._offsets)
        if found.has_hung:
            self._on_hanging(seat.partition, found.known.number)
        return found.known, found.left

    async def _by_offset(self, seat: Seat) -> Committed:
        """What the group's offset alone says, where steps are no transactions.

        Raises:
            TransportError: A transaction of a time when they were hangs there.
        """
        offset = await self._offsets.of(seat.number)
        if not offset.is_settled:
            raise TransportError(
                f"a transaction hangs in the group's offset of partition {seat.number}; start one "
                "daemon with journal.guarantee: exactly-once, which ends it"
            )
        return Committed.of(offset)

    async def _successor(self, seat: Seat) -> AIOKafkaProducer:
        """A new producer of ours after an error, which puts the old one out.

        Raises:
            StaleOwnerError: This process slept through its session, say: it must not put out the
                producer of another owner, who may have come after it.
        """
        if not await self._member.is_member():
            raise StaleOwnerError(f"partition {seat.number}: this member has left the group")
        return await self._new_producer(seat.number)

    async def _is_taken(self, seat: Seat, producer: AIOKafkaProducer, step: Step) -> bool:
        """Was the step taken, of which an error left that open?

        Raises:
            StaleOwnerError: Somebody else has committed since.
        """
        if self._is_exact:
            known, _left = await self._find(seat, producer)
        else:
            known = await self._by_offset(seat)
        if known.number not in {step.number - 1, step.number}:
            raise StaleOwnerError(
                f"partition {seat.number}: step {known.number} was committed by somebody else, "
                f"ours is {step.number}"
            )
        seat.answered = known
        return known.number == step.number

    def _id_of(self, name: int | str) -> str:
        return f"{self._settings.group_id}/{self._settings.chunks_topic}/{name}"

    async def _new_producer(self, name: int | str) -> AIOKafkaProducer:
        settings = self._settings
        request_bytes = settings.max_record_bytes + 2**20
        exact = {
            "transactional_id": self._id_of(name),
            "transaction_timeout_ms": settings.transaction_timeout_ms,
        }
        producer = AIOKafkaProducer(
            **settings.connection.options(),
            acks="all",
            enable_idempotence=True,
            max_request_size=request_bytes,
            max_batch_size=request_bytes,
            request_timeout_ms=int(1000 * _ATTEMPT_S),
            **(exact if self._is_exact else {}),
        )
        try:
            await start(producer)
        except BaseException:
            await abandon(producer)
            raise
        return producer

    async def _leave(self, seat: Seat) -> None:
        """The partition is somebody else's: never try to have it back unasked."""
        if self._seats.get(seat.number) is seat:
            del self._seats[seat.number]
        await self._give_up(seat)

    async def _give_up(self, seat: Seat | None) -> None:
        if seat is not None and seat.producer is not None:
            producer, seat.producer = seat.producer, None
            await abandon(producer)
