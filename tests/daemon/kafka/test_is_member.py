"""A broker that gives no answer says nothing about who is a member of a group."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NodeNotReadyError,
)

from daemon.kafka.membership import is_member


def a_consumer(answer: int | KafkaError) -> Any:
    """A consumer whose coordinator answers heartbeats so."""

    async def send(_request: object) -> Any:
        if isinstance(answer, KafkaError):
            raise answer
        return SimpleNamespace(error_code=answer)

    own = SimpleNamespace(group_id="g", generation=1, member_id="m", _send_req=send)
    return SimpleNamespace(_coordinator=own)


@pytest.mark.parametrize(("code", "expected"), [(0, True), (27, True), (22, False), (25, False)])
async def test_the_coordinator_says_who_is_a_member(code: int, *, expected: bool) -> None:
    assert expected == await is_member(a_consumer(code))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NodeNotReadyError(), NodeNotReadyError),
        (15, GroupCoordinatorNotAvailableError),
        (30, GroupAuthorizationFailedError),
    ],
)
async def test_no_answer_is_no_no(answer: int | KafkaError, error: type[KafkaError]) -> None:
    with pytest.raises(error):
        await is_member(a_consumer(answer))
