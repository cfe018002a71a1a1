"""A topic of chunks, one of events and a journal's own, and daemons in this process over them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import NewTopic

from daemon.journal.kafka.journal import KafkaJournal
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.connection import KafkaConnection, describe_topic
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.sources.kafka.source import KafkaChunkSource
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import Record, chunk_record
from engine.types import VideoChunk
from tests.support.daemons import TestDaemon
from tests.support.kafka import administering, create_topics
from tests.support.processes import PATIENCE_S


@dataclass(frozen=True)
class Stage:
    """Names, and what tests do with them.

    Attributes:
        bootstrap: Address of the broker.
        n_partitions: Of the chunks.
        max_chunk_bytes: Larger records are refused.
        name: Part of every name.
    """

    bootstrap: str
    n_partitions: int = 2
    max_chunk_bytes: int = 8 * 2**20
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def journal(self) -> KafkaJournalSettings:
        return KafkaJournalSettings(
            connection=KafkaConnection(self.bootstrap),
            group_id=f"group-{self.name}",
            chunks_topic=f"chunks-{self.name}",
            events_topic=f"events-{self.name}",
            prefix=f"own-{self.name}",
            max_record_bytes=self.max_chunk_bytes,
        )

    def config(self, folder: Path) -> Path:
        """A configuration with these names, for commands."""
        kafka = {"kind": "kafka", "bootstrap_servers": self.bootstrap}
        path = folder / "edge.yaml"
        plain = {
            "source": {
                **kafka,
                "topic": self.journal.chunks_topic,
                "group_id": self.journal.group_id,
                "max_chunk_bytes": self.max_chunk_bytes,
            },
            "sink": {**kafka, "topic": self.journal.events_topic},
            "journal": {"prefix": self.journal.prefix},
        }
        path.write_text(yaml.safe_dump(plain))
        return path

    async def open(self) -> None:
        """Make the topics of chunks and events."""
        most = {"max.message.bytes": "8388608"}
        names = (self.journal.chunks_topic, self.journal.events_topic)
        async with administering(self.bootstrap) as admin:
            topics = [NewTopic(name, self.n_partitions, 1, topic_configs=most) for name in names]
            await create_topics(admin, *topics)

    async def put(self, *chunks: VideoChunk) -> None:
        await self.put_records([chunk_record(each, ChunkFacts(), site="s") for each in chunks])

    async def put_records(self, records: Sequence[Record]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=2**26)
        await producer.start()
        try:
            for each in records:
                await producer.send_and_wait(
                    self.journal.chunks_topic, each.value, each.key, headers=each.headers
                )
        finally:
            await producer.stop()

    @asynccontextmanager
    async def daemon(self, **options: Any) -> AsyncIterator[TestDaemon]:
        """A daemon that serves until the block ends."""
        settings = self.journal
        source = KafkaChunkSource(
            KafkaSourceSettings(
                settings.connection,
                settings.chunks_topic,
                group_id=settings.group_id,
                start="earliest",
                max_chunk_bytes=self.max_chunk_bytes,
                commit_interval_s=None,
            )
        )
        journal = KafkaJournal(settings, source)
        await journal.start()
        daemon = TestDaemon(source, journal, **options)
        serving = asyncio.create_task(daemon.serve())
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield daemon
                daemon.app.stop()
                await serving
        finally:
            await source.close()
            await journal.close()

    async def records(self, topic: str) -> list[ConsumerRecord]:
        """Every committed record of a topic, those of a key in order."""
        seen = await describe_topic(self.journal.connection, topic)
        partitions = [TopicPartition(topic, number) for number in seen.partitions]
        # A transaction that was committed a moment ago may not be marked so yet: wait for that.
        async with self._reader("read_uncommitted") as consumer:
            ends = await consumer.end_offsets(partitions)
        records: list[ConsumerRecord] = []
        async with self._reader("read_committed") as consumer:
            consumer.assign(partitions)
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    records += batch
        return records

    @asynccontextmanager
    async def _reader(self, isolation_level: str) -> AsyncIterator[AIOKafkaConsumer]:
        # With a group: without one, aiokafka 0.14 cannot stop a consumer that never had to wait.
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=f"reader-{uuid.uuid4()}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=isolation_level,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0.02)


def newest(records: Sequence[ConsumerRecord]) -> dict[bytes, ConsumerRecord]:
    """What compaction leaves: the newest record of each key, if it has a value."""
    kept = {record.key: record for record in records}
    return {key: record for key, record in kept.items() if record.value is not None}


def foreign(key: bytes | None, value: bytes, *headers: tuple[str, bytes]) -> Record:
    """A record as any program might write it."""
    return replace(Record(b"", list(headers), value), key=key)  # type: ignore[arg-type] # no key
