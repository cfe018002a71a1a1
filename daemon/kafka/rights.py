"""Which rights we have on a broker, and how a missing one is told.

Brokers since Kafka 2.3 say what we may do to a topic, so a missing right shows at the start and
not with the first event.
"""

import shlex
from typing import Any

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

MISSING_RIGHTS = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
_OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8}  # their bits in a broker's answer
_NOT_TOLD = -(2**31)


class _Answer(Response):  # type: ignore[misc] # aiokafka is untyped
    """MetadataResponse version 8; aiokafka itself knows those up to 5."""

    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _Question(RequestStruct):  # type: ignore[misc] # aiokafka is untyped
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class TopicRights(Request[_Question]):  # type: ignore[misc] # aiokafka is untyped
    """Asks for a topic and our rights to it, and makes no broker create it."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_Question]) -> _Question:
        """See ``Request``."""
        return request_struct_class([self._topic], False, False, True)  # noqa: FBT003 - see SCHEMA


async def check_topic_right(admin: Any, topic: str, operation: str) -> None:
    """Make sure that we may do something to a topic that is there.

    Brokers that do not tell are believed.

    Args:
        admin: A started admin client of aiokafka.
        topic: The topic.
        operation: Read, Write or Describe.

    Raises:
        TopicAuthorizationFailedError: We may not.
    """
    try:
        answer = await admin._send_request(TopicRights(topic))  # noqa: SLF001 - no public way
    except NotImplementedError:  # an older broker
        return
    rights = answer.topics[0][-1]
    if rights != _NOT_TOLD and not rights & (1 << _OPERATIONS[operation]):
        raise TopicAuthorizationFailedError(topic)


def missing_right(
    error: KafkaError, operation: str, bootstrap_servers: str, user: str | None, *, has_login: bool
) -> str:
    """Which right is missing and the command that gives it, in one line.

    Args:
        error: One of ``MISSING_RIGHTS``.
        operation: What topics were wanted for: Read, Write or Describe.
        bootstrap_servers: The broker's address.
        user: Who we are to it; None: not known, as it is with certificates and tokens.
        has_login: Whether the broker's own tools need a file with a login.
    """
    kind, option, name = _resource(error)
    if kind == "group":
        operation = "Read"
    elif kind == "transactional id":
        operation = "Write"
    elif kind == "cluster":
        operation = "IdempotentWrite"
    words = [
        *("kafka-acls.sh", "--bootstrap-server", bootstrap_servers),
        *(("--command-config", "client.properties") if has_login else ()),
        *("--add", "--allow-principal", f"User:{user or 'NAME'}"),
        *("--operation", operation, *option),
    ]
    return (
        f"user {user or 'NAME'} lacks the right {operation} on {kind}{name and ' ' + name}; run: "
        f"{shlex.join(words)}"
    )


def _resource(error: KafkaError) -> tuple[str, tuple[str, ...], str]:
    """What a right is missing on, the words of kafka-acls.sh for it, and its name."""
    if isinstance(error, ClusterAuthorizationFailedError):
        return "cluster", ("--cluster",), ""
    name = _name(error)
    if isinstance(error, GroupAuthorizationFailedError):
        return "group", ("--group", name), name
    if isinstance(error, TransactionalIdAuthorizationFailed):
        return "transactional id", ("--transactional-id", name), name
    return "topic", ("--topic", name), name


def _name(error: KafkaError) -> str:
    """The resource's name; aiokafka gives a topic's as text, or several in a collection."""
    told = error.args[0] if error.args else "NAME"
    return told if isinstance(told, str) else ", ".join(sorted(map(str, told)))
