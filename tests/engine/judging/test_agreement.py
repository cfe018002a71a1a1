from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.judging.agreement import Agreement, agreement, matched_tious
from engine.tiou import tiou
from engine.types import Proposal, Span
from tests.support.strategies import spans


@dataclass(frozen=True)
class Happening:
    """What has a class and a span can be compared, whatever else it is."""

    class_index: int
    span: Span


def at(start: int, end: int, class_index: int = 0) -> Happening:
    return Happening(class_index, Span(start, end))


events = st.lists(
    st.builds(Happening, st.integers(0, 2), spans(max_us=40)), max_size=7
)  # short spans: ties are common


@given(events, events)
def test_the_sides_may_be_exchanged(first: list[Happening], second: list[Happening]) -> None:
    assert matched_tious(first, second) == matched_tious(second, first)


@given(events, events, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(
    first: list[Happening], second: list[Happening], random: object
) -> None:
    shuffled = list(first)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert matched_tious(first, second) == matched_tious(shuffled, second)


@given(events)
def test_equal_events_agree_wholly(some: list[Happening]) -> None:
    seen = agreement([(some, list(some))])

    assert (1.0, 1.0) == (seen.f1, seen.mean_tiou)
    assert len(some) == seen.n_reference == seen.n_candidate == seen.n_matched


@given(st.lists(st.tuples(events, events), max_size=3))
def test_every_number_is_in_its_range(
    videos: list[tuple[list[Happening], list[Happening]]],
) -> None:
    seen = agreement(videos)

    assert 0 <= seen.f1 <= 1
    assert seen.n_matched <= min(seen.n_reference, seen.n_candidate)
    assert seen.mean_tiou == 0 or 0.5 <= seen.mean_tiou <= 1
    assert seen.proves_nothing == (not any(one or other for one, other in videos))


@given(events, events)
def test_no_pair_is_left_that_could_still_be_matched(
    first: list[Happening], second: list[Happening]
) -> None:
    n_possible = sum(
        any(
            one.class_index == other.class_index and tiou(one.span, other.span) >= 0.5
            for other in second
        )
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
    first: list[Happening], second: list[Happening], wanted: list[float]
) -> None:
    assert wanted == pytest.approx(matched_tious(first, second))


def test_a_chain_of_equal_overlaps_is_taken_from_its_beginning() -> None:
    first, second = [at(0, 12), at(6, 18)], [at(3, 15), at(9, 21)]  # neighbours overlap by 0.6

    assert [0.6, 0.6] == matched_tious(first, second)
    assert [0.6, 0.6] == matched_tious(first[::-1], second[::-1])


def test_events_of_two_videos_never_match() -> None:
    assert Agreement(1, 1, 0, 0.0) == agreement([([at(0, 9)], []), ([], [at(0, 9)])])


def test_proposals_are_compared_like_events() -> None:
    here = [Proposal(3, Span(0, 10), 0.9)]

    assert Agreement(1, 1, 1, 1.0) == agreement([(here, [Proposal(3, Span(0, 10), 0.4)])])


def test_the_line_says_when_nothing_is_proved() -> None:
    assert "agree proves nothing" in agreement([([], [])]).text
    assert "6 match: F1 0.667, mean tIoU 0.900" in Agreement(10, 8, 6, 0.9).text
