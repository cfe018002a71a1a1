"""Reads the feature log and the events' topic of a journal in Kafka, as a bystander.

It joins no group and commits nothing, so a daemon that runs on the same topics sees nothing of it.
"""

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from daemon.compose import journal_settings
from daemon.config import Config
from daemon.errors import ConfigError, MalformedRecordError
from daemon.journal.kafka.records import parse_features
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.connection import describe_topic, explained
from daemon.kafka.reading import a_reader, records_between
from daemon.replay.period import LoggedRows, Period
from daemon.wire.records import parse_event
from engine.types import ActionEvent

OnRead = Callable[[int, int], None]
"""Told how many records of how many were read."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What the command line says; see `s2netd replay --help` and `s2netd features export --help`.

    Attributes:
        config: The daemon's configuration.
        period: What of the log is wanted.
        cameras: Whose; none: all.
        out: Folder for what is made of it.
        model: Keys of the configuration's model section, with what they are to be instead.
    """

    config: Path
    period: Period
    cameras: tuple[str, ...]
    out: Path
    model: dict[str, object]


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
        connection = self._settings.connection
        seen = await describe_topic(connection, topic)
        partitions = [TopicPartition(topic, number) for number in seen.partitions]
        keys = {camera.encode() for camera in cameras}
        async with (
            explained(connection, f"topic {topic}"),
            a_reader(connection, *partitions) as consumer,
        ):
            firsts = await _firsts(consumer, partitions, period)
            ends = await consumer.end_offsets(partitions)
            total = sum(max(ends[one] - firsts[one], 0) for one in partitions)
            n_before = 0
            for one in partitions:
                part = (one, firsts[one], ends[one])
                async for record in records_between(connection, consumer, *part):
                    on_read(n_before + record.offset - firsts[one], total)
                    if not keys or record.key in keys:
                        yield record
                n_before += max(ends[one] - firsts[one], 0)
            on_read(total, total)


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
