"""The committed offset never passes an unfinished delivery and never falls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from daemon.sources.base import Position
from daemon.stream.ledger import Ledger

PARTITIONS = ("chunks/0", "chunks/1")


def at(offset: int, partition: str = PARTITIONS[0]) -> Position:
    return Position(partition, offset)


def test_a_delivery_alone_is_safe_once_finished() -> None:
    ledger = Ledger()
    ledger.begin(at(5))

    assert at(5) == ledger.finish(at(5))


def test_an_unfinished_delivery_holds_back_those_after_it() -> None:
    ledger = Ledger()
    for offset in (5, 7, 12):
        ledger.begin(at(offset))

    assert ledger.finish(at(7)) is None
    assert ledger.finish(at(12)) is None
    assert at(12) == ledger.finish(at(5))


def test_partitions_do_not_wait_for_each_other() -> None:
    ledger = Ledger()
    ledger.begin(at(0, "chunks/0"))
    ledger.begin(at(9, "chunks/1"))

    assert at(9, "chunks/1") == ledger.finish(at(9, "chunks/1"))
    assert (1, 0) == (ledger.in_flight("chunks/0"), ledger.in_flight("chunks/1"))


def test_a_delivery_finished_after_its_partition_was_given_up_frees_nothing() -> None:
    ledger = Ledger()
    ledger.begin(at(5))
    ledger.forget(PARTITIONS[0])

    assert ledger.finish(at(5)) is None


def test_rereading_commits_nothing_until_it_passes_what_was_safe() -> None:
    ledger = Ledger()
    for offset in (5, 6):
        ledger.begin(at(offset))
        ledger.finish(at(offset))
    ledger.forget(PARTITIONS[0])
    for offset in (5, 6, 7):
        ledger.begin(at(offset))

    assert ledger.finish(at(5)) is None
    assert ledger.finish(at(6)) is None
    assert at(7) == ledger.finish(at(7))


@pytest.mark.parametrize("again", [4, 5])
def test_offsets_that_do_not_rise_are_a_mistake(again: int) -> None:
    ledger = Ledger()
    ledger.begin(at(5))
    ledger.finish(at(5))

    with pytest.raises(ValueError, match="after offset 5"):
        ledger.begin(at(again))


@given(st.permutations(range(8)))
def test_every_order_of_finishing_ends_with_all_of_it_safe(order: list[int]) -> None:
    ledger = Ledger()
    for offset in range(8):
        ledger.begin(at(offset))

    commits = [commit for offset in order if (commit := ledger.finish(at(offset)))]

    assert at(7) == commits[-1]
    assert sorted(set(commits)) == commits


class LedgerMachine(RuleBasedStateMachine):
    """Against a model that keeps every offset ever handed out.

    ``committed`` survives a partition's being given up: a commit never falls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.unfinished: dict[str, set[int]] = {p: set() for p in PARTITIONS}
        self.begun: dict[str, set[int]] = {p: set() for p in PARTITIONS}
        self.next: dict[str, int] = dict.fromkeys(PARTITIONS, 0)
        self.committed: dict[str, int] = dict.fromkeys(PARTITIONS, -1)

    @rule(partition=st.sampled_from(PARTITIONS), gap=st.integers(1, 3))
    def hand_out(self, partition: str, gap: int) -> None:
        offset = self.next[partition] + gap
        self.next[partition] = offset
        self.ledger.begin(at(offset, partition))
        self.begun[partition].add(offset)
        self.unfinished[partition].add(offset)

    @precondition(lambda self: any(self.unfinished.values()))
    @rule(choice=st.randoms(use_true_random=False))
    def finish_any(self, choice: object) -> None:
        waiting = [(p, o) for p, offsets in self.unfinished.items() for o in sorted(offsets)]
        partition, offset = choice.choice(waiting)  # type: ignore[attr-defined]
        self.unfinished[partition].discard(offset)

        commit = self.ledger.finish(at(offset, partition))

        held_back_by = min(self.unfinished[partition], default=self.next[partition] + 1)
        safe = max((o for o in self.begun[partition] if o < held_back_by), default=-1)
        rose = safe > self.committed[partition]
        self.committed[partition] = max(safe, self.committed[partition])
        assert (at(safe, partition) if rose else None) == commit

    @rule(partition=st.sampled_from(PARTITIONS), back=st.integers(0, 5))
    def give_up_and_take_up_again(self, partition: str, back: int) -> None:
        self.ledger.forget(partition)
        self.begun[partition].clear()
        self.unfinished[partition].clear()
        self.next[partition] = max(0, self.next[partition] - back)

    @rule(partition=st.sampled_from(PARTITIONS), offset=st.integers(1000, 1010))
    def finish_what_was_never_handed_out(self, partition: str, offset: int) -> None:
        assert self.ledger.finish(at(offset, partition)) is None


TestLedgerMachine = LedgerMachine.TestCase
