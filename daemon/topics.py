"""`s2netd topics`: a configuration → the topics it names, created or compared with what is there.

The rules are in `daemon.kafka.topics`; here they are joined with a configuration and a broker.
"""

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from daemon.compose import journal_settings, options_of
from daemon.config import Config, load
from daemon.errors import EXIT_CONFIG, ConfigError
from daemon.journal.kafka.topics import own_topics
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.topic_admin import CreationDeniedError, create, look
from daemon.kafka.topic_check import SeenTopic, Tools, differences
from daemon.kafka.topics import WantedTopic, chunks_topic, events_topic
from daemon.kafka_sections import KafkaSinkConfig, KafkaSourceConfig
from daemon.library_lines import silence_kafka_client

Clusters = dict[KafkaConnection, list[WantedTopic]]
Say = Callable[[str], None]

DEFAULT_PARTITIONS = 4
DEFAULT_CHUNK_RETENTION_HOURS = 24
DEFAULT_EVENT_RETENTION_DAYS = 7


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """What the command line says; see `s2netd topics create --help`."""

    config: Path
    n_partitions: int = DEFAULT_PARTITIONS
    chunk_retention_hours: int = DEFAULT_CHUNK_RETENTION_HOURS
    event_retention_days: int = DEFAULT_EVENT_RETENTION_DAYS
    replication_factor: int = -1

    def command(self, verb: str) -> str:
        """The command line that does this with the same options."""
        options = {
            "--partitions": (self.n_partitions, DEFAULT_PARTITIONS),
            "--chunk-retention-hours": (self.chunk_retention_hours, DEFAULT_CHUNK_RETENTION_HOURS),
            "--event-retention-days": (self.event_retention_days, DEFAULT_EVENT_RETENTION_DAYS),
        }
        given = [
            word
            for option, (value, default) in options.items()
            if value != default
            for word in (option, str(value))
        ]
        return shlex.join(["s2netd", "topics", verb, "--config", str(self.config), *given])


def wanted_topics(config: Config, options: TopicOptions) -> Clusters:
    """The topics that a configuration needs, by how their cluster is reached.

    These are the chunks, the events, and those of a journal in Kafka, as far as there are any.

    Raises:
        ConfigError: It names one for two purposes, or one that cannot be.
    """
    clusters: Clusters = {}
    source, sink = config.source, config.sink
    if isinstance(source, KafkaSourceConfig):
        chunks = chunks_topic(
            source.topic,
            n_partitions=options.n_partitions,
            retention_hours=options.chunk_retention_hours,
            max_chunk_bytes=source.max_chunk_bytes,
        )
        clusters.setdefault(options_of(source)["connection"], []).append(chunks)
    if isinstance(sink, KafkaSinkConfig):
        events = events_topic(
            sink.topic,
            n_partitions=options.n_partitions,
            retention_days=options.event_retention_days,
        )
        clusters.setdefault(options_of(sink)["connection"], []).append(events)
    journal = journal_settings(config)
    if journal is not None:
        clusters.setdefault(journal.connection, []).extend(
            own_topics(journal, options.n_partitions)
        )
    for topics in clusters.values():
        _refuse_two_purposes(topics, options.config)
    return clusters


def _refuse_two_purposes(topics: list[WantedTopic], where: Path) -> None:
    names: dict[str, str] = {}
    for topic in topics:
        other = names.setdefault(topic.name, topic.role)
        if other != topic.role:
            raise ConfigError(
                f"{where}: {topic.name} is to be the topic of {other} and of {topic.role}; they "
                "need a topic each"
            )


def run_create(options: TopicOptions, say: Say) -> int:
    """Create what is missing, say a line about each topic, and return the exit code.

    Raises:
        ConfigError: The configuration is wrong, or the broker refuses the connection.
        TransportError: The broker cannot be reached.
    """
    return _each_cluster(options, say, _create_in)


def run_check(options: TopicOptions, say: Say) -> int:
    """Compare what is there, say a line about each topic and finding, and return the exit code.

    Raises:
        ConfigError: The configuration is wrong, or the broker refuses the connection.
        TransportError: The broker cannot be reached.
    """
    return _each_cluster(options, say, _check_in)


def _each_cluster(options: TopicOptions, say: Say, do: Callable[..., Awaitable[bool]]) -> int:
    silence_kafka_client()
    clusters = wanted_topics(load(options.config), options)
    if not clusters:
        raise ConfigError(
            f"{options.config}: neither source nor sink is of kind kafka, so there are no topics"
        )

    async def run() -> bool:
        return all([await do(*cluster, options, say) for cluster in clusters.items()])

    return 0 if asyncio.run(run()) else EXIT_CONFIG


async def _create_in(
    connection: KafkaConnection, wanted: list[WantedTopic], options: TopicOptions, say: Say
) -> bool:
    tools, is_fine = tools_of(connection, options), True
    for each in wanted:
        topic = await _beside(connection, each)
        try:
            is_new = await create(connection, topic, options.replication_factor)
        except CreationDeniedError as error:
            say(f"{error}; run: {tools.allow(topic.name, 'Create')}")
            is_fine = False
        else:
            say(f"{topic.subject}: {_created(topic) if is_new else _left(options)}")
    return is_fine


async def _beside(connection: KafkaConnection, wanted: WantedTopic) -> WantedTopic:
    """The topic, with at least as many partitions as the one has that it must lie beside."""
    if wanted.beside is None:
        return wanted
    (other,) = others_beside([wanted])
    seen = (await look(connection, [other])).topics[other.name]
    return (
        replace(wanted, n_partitions=seen.n_partitions) if isinstance(seen, SeenTopic) else wanted
    )


def others_beside(wanted: list[WantedTopic]) -> list[WantedTopic]:
    """The topics that some of these must lie beside, as far as they are not among them."""
    names = {topic.beside for topic in wanted if topic.beside} - {topic.name for topic in wanted}
    return [WantedTopic("chunks", name, 1, ()) for name in sorted(names)]


def _created(topic: WantedTopic) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in topic.config.items())
    return f"created with {topic.n_partitions} partition(s), {settings}"


def _left(options: TopicOptions) -> str:
    return f"is there, and left as it is; {options.command('check')} compares it"


async def _check_in(
    connection: KafkaConnection, wanted: list[WantedTopic], options: TopicOptions, say: Say
) -> bool:
    seen = await look(connection, [*wanted, *others_beside(wanted)])
    found = differences(wanted, seen, tools_of(connection, options))
    wrong = {finding.subject for finding in found if finding.is_wrong}
    for topic in wanted:
        if topic.subject not in wrong:
            say(f"{topic.subject}: ok")
    for finding in found:
        say(finding.line())
    return not wrong


def tools_of(connection: KafkaConnection, options: TopicOptions) -> Tools:
    """How commands are written that mend a cluster's topics."""
    return Tools(
        connection.bootstrap_servers,
        create=options.command("create"),
        has_login=connection.protocol != "PLAINTEXT",
        user=connection.sasl_username,
    )
