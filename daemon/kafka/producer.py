"""A Kafka producer that outlives its broker: records durable and in order, or an error.

After an error that leaves open whether a record was written (a time-out, a lost connection), the
producer is thrown away and a new one sends everything again. A late request of the old producer
can then not slip in between (Jepsen's advice; see KIP-890). So records may be repeated, and
readers must put up with that; within the last attempt of a call they are never reordered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from daemon.errors import RefusedRecordError
from daemon.kafka.clients import briefly, let_go, start, stop
from daemon.kafka.connection import KafkaConnection, describe_topic, persist
from daemon.outages import Outage
from daemon.wire.records import Record

_LONGEST_ATTEMPT_S = 10.0
_ATTEMPTS = 3  # so many fit into the deadline, even if each of them times out
_MIN_REQUEST_BYTES = 1_048_576
_MOST_REQUEST_BYTES = 100 * 2**20  # a broker's own limit; for topics that do not tell theirs
_DEFAULT_BATCH_BYTES = 16_384  # aiokafka's own; a larger record travels alone
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

T = TypeVar("T")


class DurableProducer:
    """Sends to one topic with acks=all and idempotence.

    The partition is chosen by aiokafka's default, murmur2 of the key, which is Java's too.

    Args:
        connection: How to reach the broker.
        topic: Where to send; it must exist.
        outage: With it a broker that is away is waited for, and told to it; None: up to the
            connection's deadline.
    """

    def __init__(
        self, connection: KafkaConnection, topic: str, outage: Outage | None = None
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._outage = outage
        self._producer: AIOKafkaProducer | None = None
        self._changing = asyncio.Lock()  # held while one producer is replaced by another
        self._request_bytes = _MIN_REQUEST_BYTES
        self._batch_bytes = _DEFAULT_BATCH_BYTES
        self.max_message_bytes: int | None = None

    async def start(self) -> None:
        """Check the topic and connect.

        Raises:
            ConfigError: The broker refuses the connection.
            TransportError: There is no broker, or no such topic, at the deadline.
        """
        facts = await describe_topic(self._connection, self._topic, "Write", outage=self._outage)
        self.max_message_bytes = facts.max_message_bytes
        # The broker's own limit decides what is too large, not the client's default.
        most = facts.max_message_bytes
        self._request_bytes = max(_MIN_REQUEST_BYTES, most or _MOST_REQUEST_BYTES)
        # It holds for a batch, and so no record may be refused for those that travel with it.
        self._batch_bytes = most or _DEFAULT_BATCH_BYTES
        await self._persist(self._ready, in_mid_work=False)

    async def send(self, records: Sequence[Record]) -> None:
        """Return once every record is written, in this order for each key.

        Raises:
            ConfigError: The broker refuses the connection.
            RefusedRecordError: The broker takes no record of such a size, now or later.
            TransportError: Not all were written at the deadline.
        """
        if not records:
            return
        refusal = await self._persist(lambda: self._send_once(records), in_mid_work=True)
        if refusal is not None:
            raise RefusedRecordError(
                f"topic {self._topic}: the broker takes no record of this size: {refusal!r}; "
                "make it smaller, or raise the topic's max.message.bytes"
            )

    async def close(self) -> None:
        """Disconnect; what ``send`` returned for is written already. Safe to repeat."""
        if self._producer is not None:
            await self._give_up(self._producer)

    async def _persist(self, attempt: Callable[[], Awaitable[T]], *, in_mid_work: bool) -> T:
        what = f"topic {self._topic}"
        return await persist(
            self._connection,
            what,
            attempt,
            operation="Write",
            in_mid_work=in_mid_work,
            outage=self._outage,
        )

    async def _send_once(self, records: Sequence[Record]) -> KafkaError | None:
        """Send; gives an error that would come again, and raises all others."""
        producer = await self._ready()
        try:
            # Left alone, an idempotent aiokafka producer would try again for ever.
            async with asyncio.timeout(self._attempt_s):
                waiting = [
                    await producer.send(self._topic, r.value, key=r.key, headers=r.headers)
                    for r in records
                ]
                results = await asyncio.gather(*waiting, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        except _TOO_LARGE as error:
            await self._give_up(producer)
            return error
        except (KafkaError, TimeoutError, asyncio.CancelledError):
            await self._give_up(producer)
            raise
        return None

    async def _give_up(self, producer: AIOKafkaProducer) -> None:
        """Abandon the producer, once; a new one is made only when that is done."""
        async with self._changing:
            if self._producer is producer:
                self._producer = None
                await abandon(producer)

    async def _ready(self) -> AIOKafkaProducer:
        async with self._changing:
            if self._producer is None:
                self._producer = await self._connect()
            return self._producer

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._connection.options(),
            acks="all",
            enable_idempotence=True,
            max_request_size=self._request_bytes,
            max_batch_size=self._batch_bytes,
            request_timeout_ms=int(1000 * self._attempt_s),
        )
        try:
            await start(producer)
        except (KafkaError, asyncio.CancelledError):
            await stop(producer)
            raise
        return producer

    @property
    def _attempt_s(self) -> float:
        return min(self._connection.connect_timeout_s / _ATTEMPTS, _LONGEST_ATTEMPT_S)


async def abandon(producer: AIOKafkaProducer) -> None:
    """Stop a producer without sending what it still holds; whoever waits for that tries again.

    There is no public way: ``stop`` alone would first send everything, for ever if need be.
    """
    async with briefly():
        await asyncio.gather(producer._sender.close(), producer.client.close())  # noqa: SLF001
    producer._message_accumulator.fail_all(KafkaConnectionError("abandoned"))  # noqa: SLF001
    await let_go(producer)
