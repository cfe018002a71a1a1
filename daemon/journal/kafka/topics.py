"""The journal's own topics: what they should be, and how they come to be.

A daemon makes them itself if it may, as they are nobody else's business; `s2netd topics create`
makes them too, for brokers where daemons may not.
"""

from aiokafka.admin import NewPartitions

from daemon.errors import ConfigError
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.clients import admin_of
from daemon.kafka.connection import KafkaConnection, describe_topic
from daemon.kafka.topic_admin import CreationDeniedError, create, is_there
from daemon.kafka.topics import (
    WantedTopic,
    dead_topic,
    features_topic,
    latest_topic,
    state_topic,
    status_topic,
)
from daemon.outages import Outage

FEATURE_RETENTION_HOURS = 24
DEAD_RETENTION_DAYS = 7
LATEST_RETENTION_DAYS = 7


def own_topics(settings: KafkaJournalSettings, n_partitions: int) -> list[WantedTopic]:
    """What the journal's own topics should be, for chunks in so many partitions.

    Raises:
        ConfigError: Kafka allows no such names.
    """
    beside = settings.chunks_topic
    return [
        state_topic(settings.state_topic, n_partitions=n_partitions, beside=beside),
        features_topic(
            settings.features_topic,
            n_partitions=n_partitions,
            retention_hours=FEATURE_RETENTION_HOURS,
            beside=beside,
        ),
        latest_topic(
            settings.latest_topic, n_partitions=n_partitions, retention_days=LATEST_RETENTION_DAYS
        ),
        status_topic(settings.status_topic, n_partitions=n_partitions),
        dead_topic(
            settings.dead_topic,
            n_partitions=1,
            retention_days=DEAD_RETENTION_DAYS,
            max_record_bytes=settings.max_record_bytes,
        ),
    ]


async def make_topics(
    settings: KafkaJournalSettings, n_partitions: int, outage: Outage | None = None
) -> None:
    """Make those of the journal's topics that are missing.

    With ``outage`` a broker that is away is waited for.

    Raises:
        ConfigError: One is missing and the broker does not let us make it.
        TransportError: There is no broker at the connection's deadline; not with ``outage``.
    """
    for topic in own_topics(settings, n_partitions):
        try:
            await create(settings.connection, topic, -1, outage=outage)
        except CreationDeniedError as error:
            # Brokers ask for the right before they look whether there is such a topic.
            if await is_there(settings.connection, topic, outage=outage):
                continue
            raise ConfigError(
                f"{error}; run `s2netd topics create` as a user who may, or allow Create on "
                f"topics with the prefix {settings.prefix}."
            ) from error


async def make_wide_enough(settings: KafkaJournalSettings, number: int) -> None:
    """Give the state and the features a partition with this number, as the chunks have one."""
    for topic in (settings.state_topic, settings.features_topic):
        seen = await describe_topic(settings.connection, topic)
        if number >= len(seen.partitions):
            await _widen(settings.connection, topic, number + 1)


async def _widen(connection: KafkaConnection, topic: str, n_partitions: int) -> None:
    async with admin_of(connection) as admin:
        await admin.create_partitions({topic: NewPartitions(n_partitions)})
