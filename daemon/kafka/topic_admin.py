"""Looks at topics and brokers, and creates topics, over aiokafka's admin client.

Looking never creates. A request for metadata that names a missing topic makes many brokers create
it with their own settings, so the settings are asked for first, then metadata of what is there.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    BrokerNotAvailableError,
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from daemon.errors import ConfigError
from daemon.kafka.clients import admin_of
from daemon.kafka.connection import KafkaConnection, persist
from daemon.kafka.topic_check import BROKER_LIMITS, Seen, SeenTopic, Unseen
from daemon.kafka.topics import WantedTopic
from daemon.outages import Outage

_CREATE_MS = 10_000
_BROKER_ANSWER_S = 5.0
_LOOK_S = 0.05
_ITS_OWN = 1  # where a setting of a topic comes from: from the topic

_MISSING = UnknownTopicOrPartitionError.errno
_DENIED = (TopicAuthorizationFailedError.errno, ClusterAuthorizationFailedError.errno)
_REFUSED = (
    InvalidConfigurationError.errno,
    InvalidPartitionsError.errno,
    InvalidReplicationFactorError.errno,
    InvalidTopicError.errno,
    PolicyViolationError.errno,
)


class CreationDeniedError(ConfigError):
    """The broker does not let us create this topic."""


async def look(connection: KafkaConnection, wanted: Sequence[WantedTopic]) -> Seen:
    """Look at the topics, and at the limits of the brokers.

    Raises:
        ConfigError: The broker refuses the connection.
        TransportError: There is no broker at the connection's deadline.
    """
    what = ", ".join(topic.subject for topic in wanted)
    return await persist(connection, what, lambda: _look(connection, wanted))


async def create(
    connection: KafkaConnection,
    wanted: WantedTopic,
    replication_factor: int,
    *,
    is_only_tried: bool = False,
    outage: Outage | None = None,
) -> bool:
    """Create a topic unless it is there.

    Args:
        connection: How to reach the broker.
        wanted: The topic.
        replication_factor: On how many brokers each partition lies; -1: the broker decides.
        is_only_tried: The broker says what would be, and creates nothing.
        outage: As of ``persist``.

    Returns:
        True if it was created, False if it was there.

    Raises:
        CreationDeniedError: The broker does not let us.
        ConfigError: The broker refuses the connection, or such a topic, in words of its own.
        TransportError: There is no broker at the connection's deadline.
    """

    async def attempt() -> bool:
        return await _create(connection, wanted, replication_factor, is_only_tried=is_only_tried)

    return await persist(connection, wanted.subject, attempt, outage=outage)


async def is_there(
    connection: KafkaConnection, wanted: WantedTopic, *, outage: Outage | None = None
) -> bool:
    """True if we see the topic; this needs fewer rights than ``look``.

    Only for topics that we may not create: where we may, asking could make the broker create it.

    Raises:
        ConfigError: The broker refuses the connection.
        TransportError: There is no broker at the connection's deadline.
    """

    async def attempt() -> bool:
        async with admin_of(connection) as admin:
            described = (await admin.describe_topics([wanted.name]))[0]
        return not described["error_code"]

    return await persist(connection, wanted.subject, attempt, outage=outage)


async def _look(connection: KafkaConnection, wanted: Sequence[WantedTopic]) -> Seen:
    async with admin_of(connection) as admin:
        topics = {topic.name: await _topic(admin, topic) for topic in wanted}
        cluster = await admin.describe_cluster()
        numbers = [broker["node_id"] for broker in cluster["brokers"]]
        return Seen(topics, {number: await _limits(admin, number) for number in numbers})


async def _topic(admin: Any, wanted: WantedTopic) -> SeenTopic | Unseen:
    code, entries = await _settings(
        admin, ConfigResourceType.TOPIC, wanted.name, tuple(wanted.config)
    )
    if code:
        return _unseen(code, wanted)
    described = (await admin.describe_topics([wanted.name]))[0]
    if described["error_code"]:
        return _unseen(described["error_code"], wanted)
    partitions = described["partitions"]
    return SeenTopic(
        n_partitions=len(partitions),
        replication_factor=max(len(each["replicas"]) for each in partitions),
        config={name: value for name, value, *_rest in entries},
        inherited=frozenset(
            name for name, _value, _read_only, source, *_rest in entries if source != _ITS_OWN
        ),
    )


def _unseen(code: int, wanted: WantedTopic) -> Unseen:
    if code == _MISSING:
        return Unseen.MISSING
    if code in _DENIED:
        return Unseen.DENIED
    raise for_code(code)(wanted.name)


async def _limits(admin: Any, number: int) -> dict[str, int]:
    """A broker's limits; none if it may not tell them, or is away."""
    try:
        async with asyncio.timeout(_BROKER_ANSWER_S):
            _code, entries = await _settings(
                admin, ConfigResourceType.BROKER, str(number), BROKER_LIMITS
            )
    except (KafkaError, TimeoutError):
        return {}
    return {name: int(value) for name, value, *_rest in entries if value is not None}


async def _settings(
    admin: Any, kind: ConfigResourceType, name: str, settings: Sequence[str]
) -> tuple[int, list[Any]]:
    """An error's code, or 0 and the settings: name, value, whether it is fixed, source of each."""
    wanted = ConfigResource(kind, name, dict.fromkeys(settings))
    responses = await admin.describe_configs([wanted])
    code, _message, _kind, _name, entries = responses[0].resources[0]
    return code, entries


async def _create(
    connection: KafkaConnection,
    wanted: WantedTopic,
    replication_factor: int,
    *,
    is_only_tried: bool,
) -> bool:
    async with admin_of(connection) as admin:
        if (await admin.describe_cluster())["controller_id"] < 0:
            raise BrokerNotAvailableError("the cluster has no controller now")
        # aiokafka takes a factor of -1 only beside an assignment; an empty one means none.
        topic = NewTopic(
            wanted.name,
            wanted.n_partitions,
            replication_factor,
            _no_assignment(replication_factor),
            wanted.config,
        )
        answer = await admin.create_topics(
            [topic], timeout_ms=_CREATE_MS, validate_only=is_only_tried
        )
        _name, code, message = answer.topic_errors[0]
        if code == 0 and not is_only_tried:
            await _until_seen(admin, wanted)
    if code in _DENIED:
        raise CreationDeniedError(f"{wanted.subject}: the broker does not let us create it")
    if code in _REFUSED:
        raise ConfigError(f"{wanted.subject}: the broker refuses it: {message}")
    if code not in (0, TopicAlreadyExistsError.errno):
        raise for_code(code)(message)
    return bool(code == 0)


async def _until_seen(admin: Any, wanted: WantedTopic) -> None:
    """Wait until a broker knows of the topic; it hears from the controller a moment later.

    Whoever may not see it, or finds no broker any more, goes on: the topic is made.
    """
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_CREATE_MS / 1000):
            while await _topic(admin, wanted) is Unseen.MISSING:  # noqa: ASYNC110 - it is remote
                await asyncio.sleep(_LOOK_S)


def _no_assignment(replication_factor: int) -> dict[int, list[int]] | None:
    return {} if replication_factor == -1 else None
