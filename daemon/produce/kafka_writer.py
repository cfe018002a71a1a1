"""Writes chunks as records of a Kafka topic, which ``daemon.sources.kafka`` reads."""

from dataclasses import dataclass

from daemon.errors import RefusedRecordError
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.producer import DurableProducer
from daemon.outages import Outage
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import Record, chunk_record
from engine.types import VideoChunk

# What Kafka adds to a record that travels alone (record format v2): 61 bytes for its batch, and
# lengths and deltas of at most 5 bytes each, of which every header has two.
_BATCH_BYTES = 100
_HEADER_BYTES = 10
# What a record takes beside its payload: twenty headers, of which names are the longest.
_MOST_BESIDE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class KafkaWriterSettings:
    """Where chunks go.

    Attributes:
        connection: How to reach the broker.
        topic: The topic of the chunks; it must exist.
        site: Written into every chunk's headers.
    """

    connection: KafkaConnection
    topic: str
    site: str = "default"


class KafkaChunkWriter:
    """Writes each chunk as one record, keyed by camera.

    Args:
        settings: Where chunks go.
        outage: With it a broker that is away is waited for, and told to it; None: up to the
            connection's deadline.
    """

    def __init__(self, settings: KafkaWriterSettings, outage: Outage | None = None) -> None:
        self._settings = settings
        self._producer = DurableProducer(settings.connection, settings.topic, outage)

    @property
    def most_bytes(self) -> int | None:
        """See ``ChunkWriter``."""
        most = self._producer.max_message_bytes
        return None if most is None else max(most - _MOST_BESIDE_BYTES, 0)

    async def start(self) -> None:
        """See ``ChunkWriter``."""
        await self._producer.start()

    async def write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        """See ``ChunkWriter``.

        Raises:
            RefusedRecordError: The topic takes no record of this size.
            TransportError: The broker was lost and did not come back.
        """
        record = chunk_record(chunk, facts, site=self._settings.site)
        self._check_size(record)
        await self._producer.send([record])

    async def close(self) -> None:
        """See ``ChunkWriter``."""
        await self._producer.close()

    def _check_size(self, record: Record) -> None:
        size, most = record_bytes(record), self._producer.max_message_bytes
        if most is not None and size > most:
            raise RefusedRecordError(
                f"a chunk makes a record of {size} bytes, topic {self._settings.topic} takes "
                f"{most}: let the camera send key frames more often or fewer bits a second, "
                "or raise the topic's max.message.bytes (kafka-configs.sh --alter --entity-type "
                "topics)"
            )


def record_bytes(record: Record) -> int:
    """The most bytes that the record can take in the topic."""
    headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in record.headers)
    return len(record.key) + len(record.value) + headers + _BATCH_BYTES
