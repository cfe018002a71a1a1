"""The next offset never passes an unfinished delivery and never falls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from daemon.stream.ledger import Ledger


def test_a_delivery_alone_is_safe_once_finished() -> None:
    ledger = Ledger(0, 0)
    ledger.begin(5)
    assert (0, 1) == (ledger.next_offset, ledger.n_in_flight)

    ledger.finish(5)

    assert (6, 0) == (ledger.next_offset, ledger.n_in_flight)


def test_an_unfinished_delivery_holds_back_those_after_it() -> None:
    ledger = Ledger(5, 5)
    for offset in (5, 7, 12):
        ledger.begin(offset)

    seen = []
    for offset in (7, 12, 5):
        ledger.finish(offset)
        seen.append((ledger.next_offset, ledger.n_in_flight))

    assert [(5, 3), (5, 3), (13, 0)] == seen


def test_what_is_handed_out_tells_where_to_read_on() -> None:
    ledger = Ledger(5, 3)
    assert 3 == ledger.next_to_read
    ledger.begin(7)

    assert 8 == ledger.next_to_read


def test_rereading_moves_nothing_until_it_passes_what_was_safe() -> None:
    ledger = Ledger(next_offset=7, next_to_read=5)
    seen = []
    for offset in (5, 6, 7):
        ledger.begin(offset)
        ledger.finish(offset)
        seen.append(ledger.next_offset)

    assert [7, 7, 8] == seen


@pytest.mark.parametrize("again", [4, 5])
def test_offsets_that_do_not_rise_are_a_mistake(again: int) -> None:
    ledger = Ledger(0, 0)
    ledger.begin(5)
    ledger.finish(5)

    with pytest.raises(ValueError, match="after offset 5"):
        ledger.begin(again)


@pytest.mark.parametrize("offset", [5, 6])
def test_what_is_not_in_flight_cannot_be_finished(offset: int) -> None:
    ledger = Ledger(0, 0)
    for begun in (4, 5):
        ledger.begin(begun)
    ledger.finish(5)  # waits for the one before

    with pytest.raises(ValueError, match=f"{offset} was not handed out, or is finished already"):
        ledger.finish(offset)


@given(st.permutations(range(8)))
def test_every_order_of_finishing_ends_with_all_of_it_safe(order: list[int]) -> None:
    ledger = Ledger(0, 0)
    for offset in range(8):
        ledger.begin(offset)

    seen = []
    for offset in order:
        ledger.finish(offset)
        seen.append(ledger.next_offset)

    assert 8 == seen[-1]
    assert sorted(seen) == seen


class LedgerMachine(RuleBasedStateMachine):
    """Against a model that keeps every offset ever handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(20, 10)
        self.unfinished: set[int] = set()
        self.begun: set[int] = set()

    @rule(gap=st.integers(0, 3))
    def hand_out(self, gap: int) -> None:
        offset = self.ledger.next_to_read + gap
        self.ledger.begin(offset)
        self.begun.add(offset)
        self.unfinished.add(offset)
        self.check()

    @precondition(lambda self: self.unfinished)
    @rule(choice=st.randoms(use_true_random=False))
    def finish_any(self, choice: object) -> None:
        offset = choice.choice(sorted(self.unfinished))  # type: ignore[attr-defined]
        self.unfinished.discard(offset)
        self.ledger.finish(offset)
        self.check()

    def check(self) -> None:
        held_back_by = min(self.unfinished, default=self.ledger.next_to_read)
        safe = max((o + 1 for o in self.begun if o < held_back_by), default=0)
        assert max(20, safe) == self.ledger.next_offset
        assert sum(o >= held_back_by for o in self.begun) == self.ledger.n_in_flight


TestLedgerMachine = LedgerMachine.TestCase
