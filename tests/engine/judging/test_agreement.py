from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from engine.judging.agreement import Agreement, agreement
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


def test_events_of_two_videos_never_match() -> None:
    assert Agreement(1, 1, 0, 0.0) == agreement([([at(0, 9)], []), ([], [at(0, 9)])])


def test_proposals_are_compared_like_events() -> None:
    here = [Proposal(3, Span(0, 10), 0.9)]

    assert Agreement(1, 1, 1, 1.0) == agreement([(here, [Proposal(3, Span(0, 10), 0.4)])])


def test_the_line_says_when_nothing_is_proved() -> None:
    assert "agree proves nothing" in agreement([([], [])]).text
    assert "6 match: F1 0.667, mean tIoU 0.900" in Agreement(10, 8, 6, 0.9).text
