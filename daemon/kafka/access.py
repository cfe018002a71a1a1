"""Topics as a daemon sees them, and which of its rights are missing, asked without using any."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.types import Array, Boolean, Schema, String

from daemon.kafka.clients import admin_of
from daemon.kafka.connection import KafkaConnection, persist
from daemon.kafka.rights import MISSING_RIGHTS, TopicRights, check_topic_right, missing_right
from daemon.kafka.topic_check import Seen, SeenTopic, Unseen

_READ = 1 << 3  # its bit in a broker's answer
_NOT_TOLD = -(2**31)
_OF_TRANSACTIONS = 1  # the kind of coordinator


class _Question(RequestStruct):  # type: ignore[misc] # aiokafka is untyped
    """DescribeGroupsRequest version 3; aiokafka 0.14 reads the answer to it as version 2."""

    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _GroupRights(Request[_Question]):  # type: ignore[misc] # aiokafka is untyped
    API_KEY = 15

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(self, request_struct_class: type[_Question]) -> _Question:
        return request_struct_class([self._group_id], True)  # noqa: FBT003 - see SCHEMA


async def with_denied(connection: KafkaConnection, seen: Seen) -> Seen:
    """What was seen, and those topics whose settings we may not see, without their settings.

    A daemon needs no right to see settings, so a topic that keeps them from us is fine with it.

    Raises:
        ConfigError: The broker refuses the connection.
        TransportError: There is no broker at the connection's deadline.
    """

    async def attempt() -> dict[str, SeenTopic | Unseen]:
        async with admin_of(connection) as admin:
            return {
                name: await _without_settings(admin, name) if topic is Unseen.DENIED else topic
                for name, topic in seen.topics.items()
            }

    return replace(seen, topics=await persist(connection, "topics", attempt))


async def _without_settings(admin: Any, name: str) -> SeenTopic | Unseen:
    try:
        answer = await admin._send_request(TopicRights(name))  # noqa: SLF001 - no public way
    except NotImplementedError:  # an older broker
        return Unseen.DENIED
    code, _name, _is_internal, partitions, _rights = answer.topics[0]
    if code == UnknownTopicOrPartitionError.errno:
        return Unseen.MISSING
    return Unseen.DENIED if code else SeenTopic(len(partitions))


async def missing_rights(
    connection: KafkaConnection,
    topics: Mapping[str, Sequence[str]],
    group_id: str | None,
    transactional_id: str | None,
) -> list[str]:
    """The rights that are missing, a line each with the command that gives it.

    Brokers that do not tell are believed. Of a transactional id only Describe is asked for, as
    whoever tries to write under it puts its owner out.

    Args:
        connection: How to reach the broker.
        topics: What is to be done with each topic: Read, Write or Describe.
        group_id: The consumer group to be a member of; None: none.
        transactional_id: To write under; None: none.

    Raises:
        ConfigError: The broker refuses the connection.
        TransportError: There is no broker at the connection's deadline.
    """

    async def attempt() -> list[str]:
        missing: list[str] = []

        @contextmanager
        def told(name: str, operation: str) -> Iterator[None]:
            try:
                yield
            except MISSING_RIGHTS as error:
                # aiokafka says of some what it was about to do, and not what they are of.
                missing.append(_line(connection, type(error)(name), operation))

        async with admin_of(connection) as admin:
            for topic, operations in topics.items():
                for operation in operations:
                    with told(topic, operation):
                        await check_topic_right(admin, topic, operation)
            if group_id is not None:
                with told(group_id, "Read"):
                    await _check_group(admin, group_id)
            if transactional_id is not None:
                with told(transactional_id, "Write"):
                    await admin.find_coordinator(transactional_id, _OF_TRANSACTIONS)
        return missing

    return await persist(connection, "our rights", attempt)


async def _check_group(admin: Any, group_id: str) -> None:
    coordinator = await admin.find_coordinator(group_id)
    try:
        answer = await admin._send_request(_GroupRights(group_id), coordinator)  # noqa: SLF001 - no public way
    except (IncompatibleBrokerVersion, NotImplementedError):  # an older broker
        return
    code, *_described, rights = answer.groups[0]
    if code:
        raise for_code(code)(group_id)
    if rights != _NOT_TOLD and not rights & _READ:
        raise GroupAuthorizationFailedError(group_id)


def _line(connection: KafkaConnection, error: KafkaError, operation: str) -> str:
    return missing_right(
        error,
        operation,
        connection.bootstrap_servers,
        connection.sasl_username,
        has_login=connection.protocol != "PLAINTEXT",
    )
