"""A topic's own id, which tells it from a topic of the same name that was made after it.

A broker gives each topic a random id when it is created. aiokafka 0.14 asks for metadata in a
version that does not have it yet, so the one request that does is spelled out here: Metadata,
version 10, of brokers since Kafka 2.8. Asking never creates a topic.

Source: Kafka's MetadataRequest.json and MetadataResponse.json; KIP-516 (topic identifiers).
"""

import base64
from io import BytesIO

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, NodeNotReadyError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from typing_extensions import override

from daemon.kafka.clients import TidyClient
from daemon.kafka.connection import KafkaConnection, persist

_METADATA = 3
_VERSION = 10
_NO_ID = bytes(16)


async def topic_id(connection: KafkaConnection, topic: str) -> str | None:
    """Ask for a topic's id over a connection of its own.

    Waits for the broker and the topic up to the connection's deadline.

    Returns:
        The id as Kafka's tools print it, 22 characters of base64; another one for each topic ever
        created. None: the broker is older than Kafka 2.8 and has none.

    Raises:
        ConfigError: The broker refuses the connection.
        TransportError: There is no broker, or no such topic, at the deadline.
    """
    return await persist(connection, f"topic {topic}", lambda: _ask(connection, topic))


async def topic_id_from(client: AIOKafkaClient, topic: str) -> str | None:
    """Ask for a topic's id over a client that is connected, such as a consumer's; one request.

    Brokers hear of a topic that was made anew one after the other, so for a moment one may still
    answer with the id of the topic before.

    Returns:
        See ``topic_id``.

    Raises:
        UnknownTopicOrPartitionError: There is no such topic (now).
        KafkaError: The broker cannot be reached, or answers with another error.
    """
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker is known yet")
    try:
        answer = await client.send(node, _MetadataRequest(topic))
    except (NotImplementedError, IncompatibleBrokerVersion):  # what aiokafka makes of old brokers
        return None
    ((code, _name, identity, *_rest),) = answer.topics
    if code:
        raise for_code(code)(topic)
    return None if identity == _NO_ID else _text(identity)


async def _ask(connection: KafkaConnection, topic: str) -> str | None:
    client = TidyClient(**connection.options())
    try:
        await client.bootstrap()
        return await topic_id_from(client, topic)
    finally:
        await client.close()


def _text(identity: bytes) -> str:
    return base64.urlsafe_b64encode(identity).rstrip(b"=").decode()


class _Uuid(AbstractType):  # type: ignore[misc] # aiokafka is untyped
    """16 bytes as they are."""

    @classmethod
    @override
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    @override
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _MetadataResponseV10(Response):  # type: ignore[misc]
    API_KEY = _METADATA
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestV10(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = _METADATA
    API_VERSION = _VERSION
    RESPONSE_TYPE = _MetadataResponseV10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString()), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestV10]):  # type: ignore[misc]
    API_KEY = _METADATA

    def __init__(self, topic: str) -> None:
        self._topic = topic

    @override
    def build(self, request_struct_class: type[_MetadataRequestV10]) -> _MetadataRequestV10:
        no_tags: dict[int, bytes] = {}
        asked = (_NO_ID, self._topic, no_tags)  # by name, for the id is what is asked for
        return request_struct_class([asked], False, False, False, no_tags)  # noqa: FBT003
