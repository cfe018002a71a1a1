"""A group's offset once no transaction that may change it is under way (KIP-447).

aiokafka asks for offsets as of now. A transaction that a broker has just committed, or is about
to, may not show there yet, although its producer has been put out; who takes that for "not
committed" does the same work a second time. Since Kafka 2.5 a broker can be asked to say so
instead. aiokafka also takes an error of the whole answer (a coordinator that is still loading)
for "no offset".
"""

import asyncio
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

_UNSTABLE = 88
_ASK_AGAIN_S = 0.05


class _Answer(Response):  # type: ignore[misc] # aiokafka is untyped
    """OffsetFetchResponse version 7; aiokafka itself knows those up to 3."""

    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc] # aiokafka is untyped
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _OffsetOf(Request[OffsetFetchRequest_v3 | _Question]):  # type: ignore[misc] # as above
    """Asks for a group's offset of one partition; brokers before Kafka 2.5 tell it as of now."""

    API_KEY = 9

    def __init__(self, group_id: str, partition: TopicPartition) -> None:
        self._group_id = group_id
        self._partition = partition

    def build(
        self, request_struct_class: type[OffsetFetchRequest_v3 | _Question]
    ) -> OffsetFetchRequest_v3 | _Question:
        """See ``Request``."""
        topic, number = self._partition
        if request_struct_class is OffsetFetchRequest_v3:
            return request_struct_class(self._group_id, [(topic, [number])])
        topics: list[tuple[str, list[int], dict[int, bytes]]] = [(topic, [number], {})]
        return request_struct_class(self._group_id, topics, True, {})  # noqa: FBT003 - see SCHEMA


async def stable_offset(
    admin: Any, group_id: str, partition: TopicPartition
) -> tuple[int, str] | None:
    """A group's offset of a partition and what stands beside it, once that is settled.

    Wait no longer than you can: a transaction may stay open until its time-out.

    Args:
        admin: A started admin client of aiokafka.
        group_id: The group.
        partition: The partition.

    Returns:
        None if the group has committed nothing there.

    Raises:
        KafkaError: The broker says why it cannot tell.
    """
    coordinator = await admin.find_coordinator(group_id)
    question = _OffsetOf(group_id, partition)
    while True:
        answer = await admin._send_request(question, coordinator)  # noqa: SLF001 - no public way
        if answer.error_code:
            raise for_code(answer.error_code)(f"offset of group {group_id}")
        ((_topic, (found, *_), *_),) = answer.topics
        number, offset, metadata, code = _parts(found)
        if code == _UNSTABLE:
            await asyncio.sleep(_ASK_AGAIN_S)
            continue
        if code:
            raise for_code(code)(f"offset of group {group_id} in partition {number}")
        return None if offset < 0 else (offset, metadata or "")


def _parts(found: tuple[Any, ...]) -> tuple[int, int, str | None, int]:
    """Partition, offset, metadata and error code, of whichever version the answer is."""
    if len(found) == len(("partition", "offset", "metadata", "error_code")):
        number, offset, metadata, code = found
    else:
        number, offset, _epoch, metadata, code, _tags = found
    return number, offset, metadata, code
