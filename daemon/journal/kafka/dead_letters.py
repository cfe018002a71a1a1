"""The topic of dead letters, read: those since a time, or the one at an offset."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from daemon.errors import ConfigError, MalformedRecordError
from daemon.journal.kafka.dead_records import StoredLetter, parse_dead
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.journal.kafka.topics import own_topics
from daemon.kafka.connection import explained
from daemon.kafka.reading import a_reader, bounds, records_between
from daemon.kafka.topic_admin import look
from daemon.kafka.topic_check import SeenTopic
from engine.errors import S2netdError


class NoSuchLetterError(S2netdError):
    """There is no dead letter at this offset."""


class DeadLetters:
    """Reads the topic of dead letters; nothing that it does changes what a daemon knows.

    Args:
        settings: Where the journal lies.
    """

    def __init__(self, settings: KafkaJournalSettings) -> None:
        self._settings = settings
        self._partition = TopicPartition(settings.dead_topic, 0)

    async def since(self, at_us: int | None) -> AsyncIterator[StoredLetter]:
        """Every letter that was written at a time (Unix microseconds) or later, oldest first.

        Records of the topic that are no letters of this version are left out.

        Raises:
            ConfigError: There is no such topic, or the broker refuses the connection.
            TransportError: The broker cannot be reached.
        """
        async with self._open() as consumer:
            first, end = await bounds(consumer, self._partition)
            if at_us is not None:
                found = await consumer.offsets_for_times({self._partition: at_us // 1000})
                at = found[self._partition]
                first = end if at is None else max(first, at.offset)
            async for record in self._between(consumer, first, end):
                letter = _letter(record)
                if letter is not None:
                    yield letter

    async def at(self, offset: int) -> StoredLetter:
        """The letter at an offset.

        Raises:
            NoSuchLetterError: There is none; tells which offsets there are.
            ConfigError, TransportError: As of ``since``.
        """
        async with self._open() as consumer:
            first, end = await bounds(consumer, self._partition)
            if first <= offset < end:
                # A transaction's end takes an offset too, so what comes next may be another one.
                async for record in self._between(consumer, offset, end):
                    letter = _letter(record) if record.offset == offset else None
                    if letter is not None:
                        return letter
                    break
        held = f"it holds offsets {first} to {end - 1}" if first < end else "it is empty"
        raise NoSuchLetterError(
            f"topic {self._settings.dead_topic}: no dead letter at offset {offset}; {held}, and "
            "`s2netd dlq list` names those that are letters"
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[AIOKafkaConsumer]:
        connection, topic = self._settings.connection, self._settings.dead_topic
        (wanted,) = (each for each in own_topics(self._settings, 1) if each.name == topic)
        seen = await look(connection, [wanted])
        if not isinstance(seen.topics[topic], SeenTopic):
            raise ConfigError(
                f"topic {topic} is not there, or we may not look at it; `s2netd topics check` "
                "says what to do"
            )
        async with (
            explained(connection, f"topic {topic}"),
            a_reader(connection, self._partition) as consumer,
        ):
            yield consumer

    def _between(
        self, consumer: AIOKafkaConsumer, first: int, end: int
    ) -> AsyncIterator[ConsumerRecord]:
        return records_between(self._settings.connection, consumer, self._partition, first, end)


def _letter(record: ConsumerRecord) -> StoredLetter | None:
    try:
        return parse_dead(
            record.key,
            record.headers,
            record.value,
            offset=record.offset,
            at_us=record.timestamp * 1000,
        )
    except MalformedRecordError:
        return None
