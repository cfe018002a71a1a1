"""Which step of a partition was the last, by what its group's offset and its newest step say."""

import pytest
from aiokafka import ConsumerRecord
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.errors import MalformedRecordError, TransportError
from daemon.journal.kafka.committed import (
    STEP_KEY,
    Committed,
    last_step,
    parse_step,
    step_record,
)

NUMBERS = st.integers(1, 2**40)
TEXTS = st.text(max_size=20)


def committed(number: int, next_offset: int | None = 7) -> Committed:
    return Committed(number, next_offset, "log", "host/model")


@given(NUMBERS, st.integers(0, 2**62), TEXTS.filter(lambda text: ":" not in text), TEXTS)
def test_a_step_says_what_it_was(number: int, offset: int, log_id: str, served_by: str) -> None:
    taken = Committed(number, offset, log_id, served_by)
    record = step_record(taken)

    assert record.key == STEP_KEY
    assert record.value  # or compaction would forget it
    assert taken == parse_step(read(dict(record.headers), record.value))


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({}, b"s2netd:1:log:by"),
        ({"vs_next_offset": b"x"}, b"s2netd:1:log:by"),
        ({"vs_next_offset": b"\xff"}, b"s2netd:1:log:by"),
        ({"vs_next_offset": b"7"}, b"s2netd:0:log:by"),
        ({"vs_next_offset": b"7"}, b"foreign"),
        ({"vs_next_offset": b"7"}, b"\xff"),
        ({"vs_next_offset": b"7"}, None),
        ({"vs_next_offset": None}, b"s2netd:1:log:by"),
    ],
)
def test_what_no_step_has_said_is_refused(headers: dict[str, bytes], value: bytes | None) -> None:
    with pytest.raises(MalformedRecordError):
        parse_step(read(headers, value))


@given(NUMBERS, st.booleans())
def test_a_step_that_says_so_was_taken_whatever_became_of_its_offset(
    number: int,
    is_settled: bool,  # noqa: FBT001 - as hypothesis gives it
) -> None:
    told, before = committed(number + 1, 8), committed(number)

    assert told == last_step(before, told, is_settled=is_settled)
    assert told == last_step(told, told, is_settled=is_settled)


@given(NUMBERS)
def test_a_step_that_does_not_say_so_was_not(number: int) -> None:
    assert committed(number) == last_step(committed(number), committed(number), is_settled=False)


def test_the_very_first_step_may_hang() -> None:
    nothing, told = Committed(), committed(1)

    assert told == last_step(nothing, told, is_settled=False)
    assert nothing == last_step(nothing, None, is_settled=False)


@given(NUMBERS, st.none() | st.integers(0, 100))
@example(1, 5)
def test_an_operator_may_move_the_offset(number: int, offset: int | None) -> None:
    """It has no number then, and what the newest step says is of another time."""
    moved = Committed(0, offset)

    assert moved == last_step(moved, committed(number), is_settled=True)
    if number > 1:
        assert moved == last_step(moved, committed(number), is_settled=False)


@given(st.integers(2, 2**40), st.data())
def test_steps_of_a_release_that_said_nothing_are_known_by_the_offset_alone(
    number: int, data: st.DataObject
) -> None:
    told = data.draw(st.none() | st.integers(1, number - 1).map(committed))

    assert committed(number) == last_step(committed(number), told, is_settled=True)
    with pytest.raises(TransportError, match=rf"at step {number}, .* kafka-transactions\.sh"):
        last_step(committed(number), told, is_settled=False)


def read(headers: dict[str, bytes], value: bytes | None) -> ConsumerRecord:
    return ConsumerRecord(
        *("states", 0, 3, 0, 0, STEP_KEY, value, None, 0, len(value or b"")),
        tuple(headers.items()),
    )
