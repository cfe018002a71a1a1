"""One fold of revisions into events: its laws, and the delays that are read from it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.judging.histories import History, histories
from engine.types import ActionEvent, Phase, Reason, Span
from tests.support.records import an_event

S = 1_000_000
ENDS = (Phase.UPDATED, Phase.CLOSED, Phase.RETRACTED)


def a_life(event_id: str, scores: list[float], last: Phase) -> list[ActionEvent]:
    phases = [Phase.OPENED, *[Phase.UPDATED] * (len(scores) - 2), last][: len(scores)]
    return [
        an_event(event_id, revision, phase=phase, score=score)
        for revision, (phase, score) in enumerate(zip(phases, scores, strict=True))
    ]


@st.composite
def streams(draw: st.DrawFn) -> list[ActionEvent]:
    """Lives of several events, interleaved, each in its order."""
    scores = st.lists(st.floats(0, 1), min_size=1, max_size=5)
    waiting = [
        a_life(f"e{number}", own, draw(st.sampled_from(ENDS)))
        for number, own in enumerate(draw(st.lists(scores, max_size=4)))
    ]
    stream = []
    while waiting := [life for life in waiting if life]:
        stream.append(draw(st.sampled_from(waiting)).pop(0))
    return stream


@given(streams())
def test_every_revision_is_in_the_history_of_its_event(stream: list[ActionEvent]) -> None:
    folded = histories(stream)

    assert list(dict.fromkeys(one.event_id for one in stream)) == [
        event.first.event_id for event in folded
    ]
    for event in folded:
        own = [one for one in stream if one.event_id == event.first.event_id]
        assert History(tuple(own)) == event
        assert max(one.score for one in own) == event.top_score


@given(streams(), st.integers(0, 20))
def test_what_is_known_so_far_is_the_beginning_of_what_is_known_later(
    stream: list[ActionEvent], n_first: int
) -> None:
    whole = histories(stream)

    for event, later in zip(histories(stream[:n_first]), whole, strict=False):
        assert event.revisions == later.revisions[: len(event.revisions)]
        assert event.first == later.first
        assert event.closed in (None, later.closed)
        assert event.top_score <= later.top_score


@given(streams(), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_a_history(
    stream: list[ActionEvent], random: object
) -> None:
    again = [*stream, *stream]
    random.shuffle(again)  # type: ignore[attr-defined]

    assert set(histories(stream)) == set(histories(again))


@pytest.mark.parametrize(
    ("last", "state", "is_kept"),
    [
        (Phase.OPENED, "open", True),
        (Phase.UPDATED, "open", True),
        (Phase.CLOSED, "closed", True),
        (Phase.RETRACTED, "retracted", False),
    ],
)
def test_how_an_event_stands(last: Phase, state: str, is_kept: bool) -> None:  # noqa: FBT001
    event = History((an_event(), an_event(revision=1, phase=last)))

    assert (state, is_kept) == (event.state, event.is_kept)


def test_an_event_is_one_life_however_often_it_was_revised() -> None:
    first = a_life("x", [0.5, 0.9, 0.5], Phase.CLOSED)
    second = a_life("y", [0.5, 0.5], Phase.RETRACTED)

    one, other = histories([*first[:2], second[0], first[2], second[1]])

    assert (first[0], first[2], first[2], 0.9) == (one.first, one.closed, one.last, one.top_score)
    assert (None, second[1]) == (other.closed, other.last)
    assert [True, False] == [one.is_kept, other.is_kept]


def test_what_comes_after_the_closing_does_not_change_what_was_closed() -> None:
    opened, closed = a_life("x", [0.5, 0.5], Phase.CLOSED)
    again = replace(closed, revision=2, score=0.7)

    (event,) = histories([opened, closed, again])

    assert (closed, again) == (event.closed, event.last)


def test_delays_are_counted_from_the_action_to_the_decision() -> None:
    opened = an_event(decided_us=13 * S)
    closed = an_event(revision=1, span=Span(9 * S, 19 * S), decided_us=25 * S)
    event = History((opened, closed))

    action = Span(10 * S, 20 * S)
    assert (3 * S, 5 * S) == (event.opening_delay_us(action), event.final_delay_us(action))
    assert 6 * S == event.wait_us  # from the end that the event itself has


@pytest.mark.parametrize("reason", Reason)
def test_where_the_footage_stops_the_last_word_has_no_delay(reason: Reason) -> None:
    event = History((an_event(), an_event(revision=1, reason=reason, decided_us=25 * S)))

    wanted = None if reason in (Reason.END, Reason.GAP) else 5 * S
    assert wanted == event.final_delay_us(Span(10 * S, 20 * S))
