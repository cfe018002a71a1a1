"""Reads the feature log and the events' topic of a journal in Kafka, as a bystander.

It joins no group and commits nothing, so a daemon that runs on the same topics sees nothing of it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from daemon.compose import journal_settings
from daemon.config import Config
from daemon.errors import ConfigError, MalformedRecordError
from daemon.journal.kafka.records import parse_features
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.connection import describe_topic, explained
from daemon.replay.period import LoggedRows, Period
from daemon.wire.records import parse_event
from engine.types import ActionEvent

_POLL_MS = 500
_FETCH_BYTES = 16 * 2**20

OnRead = Callable[[int, int], None]
"""Told how many records of how many were read."""


class FeatureLog:
    """What a journal in Kafka has kept.

    Args:
        config: A daemon's configuration.

    Raises:
        ConfigError: Its journal is not in Kafka.
    """

    def __init__(self, config: Config) -> None:
        settings = journal_settings(config)
        if settings is None:
            raise ConfigError(
                "the configuration's journal is a local file, which keeps only what a restart "
                "needs: a feature log is kept by a journal in Kafka (journal.kind: kafka)"
            )
        self._settings: KafkaJournalSettings = settings

    @property
    def topic(self) -> str:
        """The topic of the features."""
        return self._settings.features_topic

    async def features(
        self, period: Period, cameras: Collection[str], on_read: OnRead
    ) -> AsyncIterator[LoggedRows]:
        """Rows and end markers, of each camera in order.

        Args:
            period: Rows that were logged before it may be left out; those after it are not.
            cameras: Only these; none: all.
            on_read: See ``OnRead``.

        Raises:
            ConfigError, TransportError: The broker refuses, cannot be reached, or has no log.
        """
        async for record in self._records(self.topic, period, cameras, on_read):
            try:
                rows = parse_features(record.key, record.headers, record.value or b"")
            except MalformedRecordError:
                continue  # the daemon that restarts from it leaves it out too
            yield LoggedRows(rows, record.timestamp * 1000)

    async def events(self, period: Period, cameras: Collection[str]) -> list[ActionEvent]:
        """Revisions that were published, in any order of cameras.

        Raises:
            ConfigError, TransportError: As of ``features``.
        """
        found = []
        topic = self._settings.events_topic
        async for record in self._records(topic, period, cameras, lambda _n, _of: None):
            try:
                found.append(parse_event(record.value or b""))
            except MalformedRecordError:
                continue
        return found

    async def _records(
        self, topic: str, period: Period, cameras: Collection[str], on_read: OnRead
    ) -> AsyncIterator[ConsumerRecord]:
        seen = await describe_topic(self._settings.connection, topic)
        keys = {camera.encode() for camera in cameras}
        async with self._consumer(topic) as consumer:
            partitions = [TopicPartition(topic, number) for number in seen.partitions]
            consumer.assign(partitions)
            firsts = await _firsts(consumer, partitions, period)
            ends = await consumer.end_offsets(partitions)
            total = sum(max(ends[one] - firsts[one], 0) for one in partitions)
            n_before = 0
            for one in partitions:
                async for record in self._partition(consumer, one, firsts[one], ends[one]):
                    on_read(n_before + record.offset - firsts[one], total)
                    if not keys or record.key in keys:
                        yield record
                n_before += max(ends[one] - firsts[one], 0)
            on_read(total, total)

    async def _partition(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, first: int, end: int
    ) -> AsyncIterator[ConsumerRecord]:
        """The records of a partition from ``first`` up to ``end``, which is not among them.

        Raises:
            TimeoutError: For a while there was none.
        """
        consumer.pause(*consumer.assignment())
        consumer.resume(partition)
        consumer.seek(partition, first)
        loop = asyncio.get_running_loop()
        patience_s = self._settings.connection.connect_timeout_s
        position, deadline_s = first, loop.time() + patience_s
        while position < end:
            batches = await consumer.getmany(partition, timeout_ms=_POLL_MS)
            for record in batches.get(partition, ()):
                if record.offset < end:
                    yield record
            seen = await consumer.position(partition)
            if seen > position:
                position, deadline_s = seen, loop.time() + patience_s
            elif loop.time() >= deadline_s:
                raise TimeoutError

    @asynccontextmanager
    async def _consumer(self, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
        connection = self._settings.connection
        async with explained(connection, f"topic {topic}"):
            consumer = AIOKafkaConsumer(
                **connection.options(),
                isolation_level="read_committed",
                enable_auto_commit=False,
                max_partition_fetch_bytes=_FETCH_BYTES,
                fetch_max_wait_ms=_POLL_MS,
            )
            try:
                await consumer.start()
                yield consumer
            finally:
                await consumer.stop()


async def _firsts(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], period: Period
) -> dict[TopicPartition, int]:
    """Where to begin to read: what was logged before the period is not needed."""
    firsts: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    if period.since_us is None:
        return firsts
    since_ms = max(period.since_us // 1000, 0)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    ends = await consumer.end_offsets(partitions)
    return {
        one: ends[one] if found[one] is None else max(firsts[one], found[one].offset)
        for one in partitions
    }
