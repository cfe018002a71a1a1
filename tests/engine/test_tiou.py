"""One tIoU: its laws, and that both of its forms give the same numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.tiou import Intervals, cover, covers, overlap_us, overlaps_us, tiou, tious
from engine.types import Span
from tests.support.strategies import spans


@given(spans(), spans())
def test_tiou_is_symmetric_bounded_and_exact_at_its_ends(first, second):
    value = tiou(first, second)

    assert value == tiou(second, first)
    assert 0 <= value <= 1
    assert (value == 1) == (first == second)
    assert (value == 0) == (overlap_us(first, second) == 0)


@given(spans(), spans(), st.integers(0, 10**9), st.integers(1, 1000))
def test_tiou_is_unchanged_by_shift_and_scale(first, second, shift, scale):
    def moved(span: Span) -> Span:
        return Span(span.start_us * scale + shift, span.end_us * scale + shift)

    assert tiou(first, second) == tiou(moved(first), moved(second))


def columns(many: list[Span]) -> Intervals:
    rows = np.array([(span.start_us, span.end_us) for span in many], np.int64).reshape(-1, 2)
    return Intervals(*rows.T)


@given(st.lists(st.tuples(spans(10**13), spans(10**13)) | st.tuples(spans(40), spans(40))))
def test_rows_have_the_numbers_of_their_spans_to_the_last_bit(pairs):
    first, second = columns([one for one, _ in pairs]), columns([two for _, two in pairs])

    assert [overlap_us(*pair) for pair in pairs] == overlaps_us(first, second).tolist()
    assert [tiou(*pair) for pair in pairs] == tious(first, second).tolist()
    assert [cover(*pair) for pair in pairs] == covers(first, second).tolist()


@given(st.lists(spans(40)), spans(40))
def test_one_span_may_be_held_against_many(many, one):
    rows = columns(many)

    assert [overlap_us(span, one) for span in many] == overlaps_us(rows, one).tolist()
    assert [tiou(span, one) for span in many] == tious(rows, one).tolist()
    assert [cover(span, one) for span in many] == covers(rows, one).tolist()


def test_what_is_empty_shares_nothing():
    empty = Intervals(np.array([5, 5]), np.array([5, 5]))

    assert [0, 0] == tious(empty, empty).tolist()
    assert [0, 0] == tious(empty, Span(0, 10)).tolist()
