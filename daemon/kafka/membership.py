"""Membership of a consumer group under a name of one's own: chosen, watched over, given up.

Kafka keeps the partitions of a member with a name (``group.instance.id``) until its session ends,
so that a restart moves nothing. Three things are left to the member, and aiokafka 0.14 does none:

- that no two members share a name (``claim_member_name``);
- to notice if two do (``NameWatch``): aiokafka's heartbeats and commits do not carry the name, so
  the broker tells the older member only that it does not know it; aiokafka joins again under the
  name, which throws the newer member out, and so on for ever;
- to leave at once when it stops for good (``leave_group``): aiokafka lets the session run out.

Source: KIP-345 (static membership); Kafka's HeartbeatRequest.json.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import socket
import sys
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaError,
    NodeNotReadyError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, LeaveGroupRequest
from aiokafka.protocol.types import Int16, Int32, Schema, String
from typing_extensions import override

from daemon.cancellation import own_cancellation
from daemon.errors import ConfigError, ForeignCancellationError

_MACHINE_ID = Path("/etc/machine-id")
_DIGEST_CHARS = 32
_LEAVE_S = 2.0

_HEARTBEAT = 12
_UNKNOWN_MEMBER = UnknownMemberIdError.errno
_STILL_MEMBER = (0, RebalanceInProgressError.errno)
_FENCED = 82  # FENCED_INSTANCE_ID, which aiokafka does not know and calls UnknownError
_NO_MEMBER = (_UNKNOWN_MEMBER, IllegalGenerationError.errno, _FENCED)

_log = logging.getLogger("s2netd.kafka")


class MemberName:
    """A member's name, this process's alone until it is closed or the process ends.

    Attributes:
        name: What to give as ``group_instance_id``.
    """

    def __init__(self, name: str, held: socket.socket | None) -> None:
        self.name = name
        self._held = held

    def close(self) -> None:
        """Give the name up, once the group has been left; safe to repeat."""
        if self._held is not None:
            self._held.close()


def claim_member_name(group_id: str, place: str) -> MemberName:
    """Claim a name for a member of a group that no other daemon has, and that a restart has again.

    The name is a digest of the machine's id, its host name, the group and the place, and a number:
    the first one that no running daemon of the same digest has. It is held by a socket in Linux's
    abstract namespace, which the kernel frees when the process ends, however it ends. A program
    that this process forks holds the name too, until it ends or executes another.

    Abstract sockets are seen within one network namespace: containers on one machine must differ
    in host name or place, as they do unless they are told not to. Where there are no such sockets
    (another system, or a sandbox without them) the number is the process's id instead; then a
    restart gets another name, and the partitions of the old one wait for its session to end.

    Args:
        group_id: The consumer group.
        place: What else tells this daemon from others of the group on this machine and is the same
            after a restart, such as the resolved path of its state or configuration.
    """
    told = f"{_machine_id()}\0{socket.gethostname()}\0{group_id}\0{place}"
    digest = hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST_CHARS]
    for slot in count():
        name = f"s2netd-{digest}-{slot}"
        try:
            return MemberName(name, _hold(name))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                break
    return MemberName(f"s2netd-{digest}-p{os.getpid()}", None)


def _machine_id() -> str:
    try:
        return _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _hold(name: str) -> socket.socket:
    """Bind an abstract socket; nobody ever connects to it.

    Raises:
        OSError: It is bound already (EADDRINUSE), or there are no such sockets.
    """
    if sys.platform != "linux":
        raise OSError(errno.EAFNOSUPPORT, "no abstract sockets")
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0{name}")
    except OSError:
        held.close()
        raise
    return held


async def leave_group(consumer: AIOKafkaConsumer, timeout_s: float = _LEAVE_S) -> None:
    """Take a named member out of its group, so that its partitions move on at once.

    Commit first; then leave; then ``consumer.stop()``. After this the consumer takes no part in
    the group any more, and must not commit. The others learn of it with their next heartbeat, so
    that interval is what a take-over takes. Where there is nothing to leave nothing is done; and a
    member without a name leaves in ``stop``.

    Never fails: where the broker does not answer, one line is logged, and the partitions wait for
    the session to end.

    Args:
        consumer: Started; it may have been taken out of the group meanwhile.
        timeout_s: Most seconds to wait for an answer.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way
    name = getattr(coordinator, "_group_instance_id", None)
    if name is None or coordinator.generation <= 0:
        return
    group_id = coordinator.group_id
    try:
        with own_cancellation(f"leaving group {group_id}"):
            async with asyncio.timeout(timeout_s):
                code = await _leave(coordinator)
    except (KafkaError, TimeoutError, ForeignCancellationError) as error:
        why = repr(error)
    else:
        if code in (0, _UNKNOWN_MEMBER):  # left, now or before
            return
        why = repr(for_code(code)())
    _log.warning(
        "group %s: member %s could not leave (%s); its partitions wait until its session ends",
        group_id,
        name,
        why,
    )


async def _leave(coordinator: Any) -> int:
    """Leave, whatever the coordinator is doing, and keep it from joining again; give the code."""
    request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)

    async def refuse(_request: object) -> NoReturn:
        raise NodeNotReadyError("the group was left")

    coordinator._send_req = refuse  # noqa: SLF001
    # One that was cancelled before it began, or while it waits, hands that on.
    with contextlib.suppress(ForeignCancellationError), own_cancellation("the end of heartbeats"):
        await coordinator._stop_heartbeat_task()  # noqa: SLF001
    if coordinator.coordinator_id is None:
        raise GroupCoordinatorNotAvailableError
    # Not over the coordinator's own connection: a request to join may wait there for the others.
    answer = await coordinator._client.send(coordinator.coordinator_id, request)  # noqa: SLF001
    return int(answer.error_code)


async def is_member(consumer: AIOKafkaConsumer) -> bool:
    """True if the group's coordinator says now that the consumer is still a member.

    aiokafka's own heartbeat says no, too, where there was no answer.

    Raises:
        NameTakenError: Another member has its name.
        KafkaError: There is no answer, or it is about something else.
    """
    own = consumer._coordinator  # noqa: SLF001 - there is no public way
    request = HeartbeatRequest(own.group_id, own.generation, own.member_id)
    answer = await own._send_req(request)  # noqa: SLF001
    if answer.error_code in _STILL_MEMBER:
        return True
    if answer.error_code in _NO_MEMBER:
        return False
    raise for_code(answer.error_code)


def join_again_if_dropped(consumer: AIOKafkaConsumer) -> None:
    """Let a member join again whose heartbeats have ended with an error, such as a missing right.

    aiokafka would raise that error for ever, even when the right has long been given back.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way
    heartbeats = getattr(coordinator, "_heartbeat_task", None)
    if heartbeats is not None and heartbeats.done():
        coordinator.request_rejoin()


class NameTakenError(ConfigError):
    """Another member of the group uses the same name."""


class NameWatch:
    """Notices that a newer member uses a member's name, and keeps the member from robbing it back.

    Whenever the broker does not know the member any more, it is asked once more, with the name,
    whether somebody else has it. If so, ``NameTakenError`` is raised: out of ``commit``, or, if a
    heartbeat found out, out of the next ``getmany``; the member does not join again. If a
    rebalance finds out, ``getmany`` raises some KafkaError; therefore ``check`` after each.

    Args:
        consumer: Started. A member without a name is not watched.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way
        self._name: str | None = getattr(self._coordinator, "_group_instance_id", None)
        self._is_taken = False
        if self._name is not None:
            self._send = self._coordinator._send_req  # noqa: SLF001
            self._coordinator._send_req = self._send_and_look  # noqa: SLF001

    def check(self) -> None:
        """See whether the name was taken; call it after a KafkaError of the consumer's.

        Raises:
            NameTakenError: Another member has the name.
        """
        if self._is_taken:
            raise NameTakenError(
                f"group {self._coordinator.group_id}: another member uses group_instance_id "
                f"{self._name!r}; give each daemon its own, or leave the key out"
            )

    async def _send_and_look(self, request: Any) -> Any:
        """Send a request to the group's coordinator, and give its answer.

        Raises:
            NameTakenError: A heartbeat or a commit has found out.
            KafkaError: It could not be sent.
        """
        member_id = self._coordinator.member_id  # which the request carries
        answer = await self._send(request)
        codes = _codes(request, answer)
        if _FENCED in codes:  # a rebalance; aiokafka makes an error of it by itself
            self._is_taken = True
        elif (
            _UNKNOWN_MEMBER in codes
            and isinstance(request, _NAMELESS)
            # Else we have joined again meanwhile, so it would be ourselves who have the name.
            and self._coordinator.member_id == member_id
            and await self._is_fenced()
        ):
            # aiokafka would join again, or, at an error of Kafka's, send another heartbeat.
            self._is_taken = True
            self.check()
        return answer

    async def _is_fenced(self) -> bool:
        own = self._coordinator
        request = _NamedHeartbeat(own.group_id, own.generation, own.member_id, self._name)
        answer = await self._send(request)
        return bool(answer.error_code == _FENCED)


_NAMELESS = (HeartbeatRequest, OffsetCommitRequest)  # as aiokafka sends them


def _codes(request: Any, answer: Any) -> set[int]:
    """The error codes of an answer."""
    if isinstance(request, OffsetCommitRequest):
        return {code for _topic, partitions in answer.topics for _partition, code in partitions}
    return {getattr(answer, "error_code", 0)}


class _NamedHeartbeatResponse(Response):  # type: ignore[misc] # aiokafka is untyped
    API_KEY = _HEARTBEAT
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _NamedHeartbeatV3(RequestStruct):  # type: ignore[misc]
    API_KEY = _HEARTBEAT
    API_VERSION = 3
    RESPONSE_TYPE = _NamedHeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _NamedHeartbeat(Request[_NamedHeartbeatV3]):  # type: ignore[misc]
    """A heartbeat with the member's name; brokers take it as long as they have known names."""

    API_KEY = _HEARTBEAT

    def __init__(self, *values: object) -> None:
        self._values = values

    @override
    def build(self, request_struct_class: type[_NamedHeartbeatV3]) -> _NamedHeartbeatV3:
        return request_struct_class(*self._values)
