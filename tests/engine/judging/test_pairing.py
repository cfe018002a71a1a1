"""One to one, greedily: the laws of the matcher, and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.judging.pairing import best_pairs, greedy
from engine.tiou import tiou
from engine.types import Span
from tests.support.strategies import spans

Place = tuple[int, Span]

places = st.lists(
    st.tuples(st.integers(0, 2), spans(max_us=40)), max_size=7
)  # short spans: ties are common
edges = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


def at(start: int, end: int, class_index: int = 0) -> Place:
    return class_index, Span(start, end)


def matched_tious(first: list[Place], second: list[Place]) -> list[float]:
    return [pair.tiou for pair in best_pairs(first, second, 0.5)]


@given(edges)
def test_pairs_are_made_in_turn_while_both_sides_are_free(tried: list[tuple[int, int]]) -> None:
    made, taken_first, taken_second = [], set(), set()
    for row, (one, other) in enumerate(tried):
        if one not in taken_first and other not in taken_second:
            made.append(row)
            taken_first.add(one)
            taken_second.add(other)
    columns = np.array(tried, np.int64).reshape(-1, 2).T

    assert made == greedy(columns[0], columns[1]).tolist()
    assert made == greedy(columns[1], columns[0]).tolist()


@given(edges, st.integers(0, 30))
def test_a_pair_that_is_tried_later_changes_none_before(
    tried: list[tuple[int, int]], n_first: int
) -> None:
    first, second = np.array(tried, np.int64).reshape(-1, 2).T
    before = greedy(first[:n_first], second[:n_first])

    assert before.tolist() == [row for row in greedy(first, second).tolist() if row < n_first]


@given(places, places)
def test_each_is_paired_at_most_once_within_its_class_and_best_first(
    first: list[Place], second: list[Place]
) -> None:
    pairs = best_pairs(first, second, 0.3)

    assert (
        len(pairs) == len({pair.first for pair in pairs}) == len({pair.second for pair in pairs})
    )
    assert pairs == sorted(pairs, key=lambda pair: -pair.tiou)
    for pair in pairs:
        (one_class, one), (other_class, other) = first[pair.first], second[pair.second]
        assert one_class == other_class
        assert pair.tiou == tiou(one, other) >= 0.3


@given(places, places)
def test_the_sides_may_be_exchanged(first: list[Place], second: list[Place]) -> None:
    assert matched_tious(first, second) == matched_tious(second, first)


@given(places, places, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(
    first: list[Place], second: list[Place], random: object
) -> None:
    shuffled = list(first)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert matched_tious(first, second) == matched_tious(shuffled, second)


@given(places, places)
def test_what_names_a_class_does_not_matter(first: list[Place], second: list[Place]) -> None:
    def named(many: list[Place]) -> list[tuple[str, Span]]:
        return [(f"class {class_index}", span) for class_index, span in many]

    assert best_pairs(first, second, 0.5) == best_pairs(named(first), named(second), 0.5)


@given(places, places)
def test_no_pair_is_left_that_could_still_be_matched(
    first: list[Place], second: list[Place]
) -> None:
    n_possible = sum(
        any(one[0] == other[0] and tiou(one[1], other[1]) >= 0.5 for other in second)
        for one in first
    )
    n_matched = len(matched_tious(first, second))

    assert n_matched <= n_possible
    assert (n_matched == 0) == (n_possible == 0)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([at(0, 10)], [at(0, 5)], [0.5]),  # at the limit is within it
        ([at(0, 10)], [at(0, 4)], []),
        ([at(0, 10)], [at(0, 10, class_index=1)], []),
        ([at(0, 10)], [at(0, 10), at(0, 10)], [1.0]),  # one to one
        ([at(0, 10), at(2, 12)], [at(2, 12)], [1.0]),  # the best overlap first
        ([at(0, 10), at(20, 30)], [at(20, 30), at(0, 8)], [1.0, 0.8]),
    ],
)
def test_pairs_are_of_one_class_and_overlap_by_half(
    first: list[Place], second: list[Place], wanted: list[float]
) -> None:
    assert wanted == pytest.approx(matched_tious(first, second))


def test_a_chain_of_equal_overlaps_is_taken_from_its_beginning() -> None:
    first, second = [at(0, 12), at(6, 18)], [at(3, 15), at(9, 21)]  # neighbours overlap by 0.6

    assert [0.6, 0.6] == matched_tious(first, second)
    assert [0.6, 0.6] == matched_tious(first[::-1], second[::-1])
