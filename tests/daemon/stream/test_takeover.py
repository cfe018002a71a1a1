"""Where the work on a partition goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.journal.base import Past
from daemon.stream.takeover import Takeover, is_other_model, take_over

OFFSETS = st.integers(0, 2**62)


@given(OFFSETS, OFFSETS, OFFSETS)
def test_without_a_past_it_begins_where_the_source_says(
    fallback: int, oldest: int, committed: int
) -> None:
    begins = take_over(Past(), fallback=fallback, oldest=oldest, committed=committed, log_id="a")

    assert Takeover(fallback, fallback, 0) == begins


@given(OFFSETS, OFFSETS, OFFSETS, st.none() | OFFSETS)
def test_a_log_made_anew_is_read_from_its_oldest(
    known: int, fallback: int, oldest: int, committed: int | None
) -> None:
    begins = take_over(
        Past(7, known, "before"), fallback=fallback, oldest=oldest, committed=committed, log_id="a"
    )

    assert Takeover(oldest, oldest, 0, is_log_new=True) == begins
    assert begins.is_past_over


@given(OFFSETS, OFFSETS, st.none() | OFFSETS, st.sampled_from(["", "a"]))
def test_nothing_that_is_done_is_done_again(
    known: int, fallback: int, committed: int | None, log_id: str
) -> None:
    past = Past(7, known, "a")
    begins = take_over(past, fallback=fallback, oldest=0, committed=committed, log_id=log_id)

    assert begins.next_offset == begins.known_offset == max(known, committed or 0)
    assert begins.is_behind == begins.is_past_over == (begins.next_offset > known)


@pytest.mark.parametrize(
    ("before", "now", "is_other"),
    [
        ("s2net@1 on a", "s2net@2 on b", False),
        ("s2net@1 on a", "co2@1 on a", False),
        ("s2net@1 on a", "co2@1 on b", True),
    ],
)
def test_another_model_of_another_host_is_told(before: str, now: str, *, is_other: bool) -> None:
    assert is_other == is_other_model(before, now)
