"""What became of a partition's last step, by what its group's offset and its newest step say."""

import pytest
from aiokafka import ConsumerRecord
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.errors import MalformedRecordError, TransportError
from daemon.journal.kafka.committed import (
    STEP_KEY,
    Committed,
    Verdict,
    judge,
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
def test_what_no_step_has_said_is_refused(
    headers: dict[str, bytes | None], value: bytes | None
) -> None:
    with pytest.raises(MalformedRecordError):
        parse_step(read(headers, value))


@given(NUMBERS)
def test_where_nothing_hangs_the_offset_tells(number: int) -> None:
    """So it does where the step that says something is of before an operator moved the offset."""
    for told in (committed(number), committed(max(number - 1, 1)), committed(number + 2), None):
        verdict = judge(committed(number), told, is_settled=True, is_whole=True)
        assert Verdict(committed(number)) == verdict


@given(NUMBERS)
def test_a_step_that_can_be_read_was_taken_whatever_became_of_its_offset(number: int) -> None:
    before, told = committed(number), committed(number + 1, 8)
    for is_settled in (True, False):
        verdict = judge(before, told, is_settled=is_settled, is_whole=True)
        assert Verdict(told, "commit") == verdict


@given(NUMBERS)
def test_features_of_a_step_that_was_taken_are_kept_and_no_others(number: int) -> None:
    last = committed(number)
    for features_of, ends in ((number, "commit"), (0, "commit"), (number + 1, "abort")):
        verdict = judge(last, last, is_settled=True, is_whole=True, features_of=features_of)
        assert Verdict(last, ends) == verdict


@given(NUMBERS)
def test_no_offset_is_set_by_what_a_step_of_another_log_says(number: int) -> None:
    last, other = committed(number), Committed(number + 1, 3, "another")

    assert Verdict(last) == judge(last, other, is_settled=True, is_whole=True)


@given(NUMBERS, st.integers(1, 5))
def test_offsets_of_several_steps_may_be_lost(number: int, n_lost: int) -> None:
    told = committed(number + n_lost)

    verdict = judge(committed(number), told, is_settled=False, is_whole=True)
    assert Verdict(told, "commit") == verdict


@given(st.integers(1, 2**40))
def test_a_step_of_ours_that_says_nothing_was_not_taken(number: int) -> None:
    """Those before may be of a release that said nothing; this one would have."""
    last = committed(number)

    verdict = judge(last, None, is_settled=False, is_whole=True, answered=last)
    assert Verdict(last, "abort") == verdict


@given(NUMBERS)
def test_a_step_whose_offset_is_set_was_taken_whatever_hides_its_states(number: int) -> None:
    verdict = judge(committed(number + 1), committed(number), is_settled=True, is_whole=False)

    assert Verdict(committed(number + 1), "commit") == verdict


@given(NUMBERS, st.booleans())
def test_a_step_of_which_nothing_can_be_read_was_not(
    number: int,
    is_whole: bool,  # noqa: FBT001 - as hypothesis gives it
) -> None:
    verdict = judge(committed(number), committed(number), is_settled=False, is_whole=is_whole)

    assert Verdict(committed(number), "abort") == verdict


@given(NUMBERS, st.booleans(), st.booleans())
def test_a_step_of_which_the_broker_has_answered_so_was_taken(
    number: int,
    is_settled: bool,  # noqa: FBT001 - as hypothesis gives it
    is_whole: bool,  # noqa: FBT001 - as hypothesis gives it
) -> None:
    before, answered = committed(number), committed(number + 1)
    facts = {"is_settled": is_settled, "is_whole": is_whole}

    verdict = judge(before, before, **facts, answered=answered)
    # Where nothing hangs, somebody has moved the offset.
    assert (Verdict(before) if is_settled and is_whole else Verdict(answered, "commit")) == verdict
    assert judge(before, before, **facts) == judge(before, before, **facts, answered=before)


def test_the_very_first_step_may_hang() -> None:
    nothing, told = Committed(), committed(1)

    assert Verdict(told, "commit") == judge(nothing, told, is_settled=False, is_whole=True)
    for is_whole in (True, False):
        verdict = judge(nothing, None, is_settled=False, is_whole=is_whole)
        assert Verdict(nothing, "abort") == verdict


@given(NUMBERS, st.none() | st.integers(0, 100))
@example(1, 5)
def test_an_operator_may_move_the_offset(number: int, offset: int | None) -> None:
    """It has no number then, and what the newest step says is of another time."""
    moved = Committed(0, offset)

    verdict = judge(moved, committed(number), is_settled=True, is_whole=True)
    assert Verdict(moved) == verdict
    if number > 1:
        verdict = judge(moved, committed(number), is_settled=False, is_whole=True)
        assert Verdict(moved, "abort") == verdict


@given(st.integers(2, 2**40), st.data())
def test_steps_of_a_release_that_said_nothing_are_known_by_the_offset_alone(
    number: int, data: st.DataObject
) -> None:
    told = data.draw(st.none() | st.integers(1, number - 1).map(committed))

    verdict = judge(committed(number), told, is_settled=True, is_whole=True)
    assert Verdict(committed(number)) == verdict
    with pytest.raises(TransportError, match=rf"at step {number}, .* kafka-transactions\.sh"):
        judge(committed(number), told, is_settled=False, is_whole=True)


def read(headers: dict[str, bytes | None], value: bytes | None) -> ConsumerRecord:
    return ConsumerRecord(
        *("states", 0, 3, 0, 0, STEP_KEY, value, None, 0, len(value or b"")),
        tuple(headers.items()),
    )
