"""A group's offset once no transaction that may change it is under way (KIP-447).

aiokafka asks for offsets as of now. A transaction that a broker has just committed, or is about
to, may not show there yet, although its producer has been put out; who takes that for "not
committed" does the same work a second time. Since Kafka 2.5 a broker can be asked to say so
instead. aiokafka also takes an error of the whole answer (a coordinator that is still loading)
for "no offset".

A broker that dies while it completes a transaction may forget to tell the group's coordinator:
the transaction hangs, and the offset stays unsettled until the same producer ends another one.
"""

import asyncio
from dataclasses import dataclass
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
_SETTLE_S = 0.5


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

    def __init__(self, group_id: str, partition: TopicPartition, *, must_be_settled: bool) -> None:
        self._group_id = group_id
        self._partition = partition
        self._must_be_settled = must_be_settled

    def build(
        self, request_struct_class: type[OffsetFetchRequest_v3 | _Question]
    ) -> OffsetFetchRequest_v3 | _Question:
        """See ``Request``."""
        topic, number = self._partition
        if request_struct_class is OffsetFetchRequest_v3:
            return request_struct_class(self._group_id, [(topic, [number])])
        topics: list[tuple[str, list[int], dict[int, bytes]]] = [(topic, [number], {})]
        return request_struct_class(self._group_id, topics, self._must_be_settled, {})


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """A group's offset of a partition.

    Attributes:
        offset: The offset; None: the group has committed none.
        metadata: What stands beside it.
        is_settled: False: a transaction may replace it, which is under way or hangs.
    """

    offset: int | None
    metadata: str = ""
    is_settled: bool = True


async def stable_offset(
    admin: Any, group_id: str, partition: TopicPartition, *, patience_s: float = _SETTLE_S
) -> GroupOffset:
    """A group's offset of a partition once that is settled, or as it is after some patience.

    Args:
        admin: A started admin client of aiokafka.
        group_id: The group.
        partition: The partition.
        patience_s: Seconds to wait for a transaction that may change it.

    Raises:
        KafkaError: The broker says why it cannot tell.
    """
    coordinator = await admin.find_coordinator(group_id)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + patience_s
    is_settled = True
    while True:
        question = _OffsetOf(group_id, partition, must_be_settled=is_settled)
        answer = await admin._send_request(question, coordinator)  # noqa: SLF001 - no public way
        if answer.error_code:
            raise for_code(answer.error_code)(f"offset of group {group_id}")
        ((_topic, (found, *_), *_),) = answer.topics
        number, offset, metadata, code = _parts(found)
        if code == _UNSTABLE:
            is_settled = loop.time() < until_s
            await asyncio.sleep(_ASK_AGAIN_S)
            continue
        if code:
            raise for_code(code)(f"offset of group {group_id} in partition {number}")
        return GroupOffset(None if offset < 0 else offset, metadata or "", is_settled)


def _parts(found: tuple[Any, ...]) -> tuple[int, int, str | None, int]:
    """Partition, offset, metadata and error code, of whichever version the answer is."""
    if len(found) == len(("partition", "offset", "metadata", "error_code")):
        number, offset, metadata, code = found
    else:
        number, offset, _epoch, metadata, code, _tags = found
    return number, offset, metadata, code
