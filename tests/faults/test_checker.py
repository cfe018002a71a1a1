"""The checker finds each kind of fault, and nothing where there is none."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.checker import Effect, Evidence, Final, Mark, Verdict, check, finals_of

ENDED_S = 100.0


def a_record(event_id: str = "e", revision: int = 0, state: str = "open", **other: Any) -> dict:  # type: ignore[type-arg]
    plain = {
        "event_id": event_id,
        "revision": revision,
        "state": state,
        "final": state != "open",
        "reason": "frozen" if state == "closed" else "score",
        "camera_id": "cam",
        "start": {"stream_us": 1_000_000},
        "end": {"stream_us": 2_000_000 + 40_000 * revision},
    }
    return plain | other


def a_life(event_id: str = "e", n_updates: int = 2, end: str = "closed") -> list[dict]:  # type: ignore[type-arg]
    opening = [a_record(event_id, revision) for revision in range(n_updates + 1)]
    return [*opening, a_record(event_id, n_updates + 1, end)]


def judged(
    records: Sequence[dict | None],  # type: ignore[type-arg]
    *,
    wanted: dict[str, Final] | None = None,
    acknowledged: int = 10,
    committed: int = 10,
    **other: Any,
) -> Verdict:
    evidence = Evidence(
        effects=[Effect(0, offset, 0.0, record) for offset, record in enumerate(records)],
        acknowledged={0: [Mark(1.0, acknowledged)]},
        committed={0: [Mark(2.0, committed)]},
        ended_s=ENDED_S,
        wanted=wanted,
        **other,
    )
    return check(evidence)


lives = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(("closed", "retracted"))), min_size=1, max_size=5
).map(lambda drawn: [a_life(f"e{n}", *life) for n, life in enumerate(drawn)])


@st.composite
def interleaved(draw: st.DrawFn) -> list[dict]:  # type: ignore[type-arg]
    """Records of several events; each event's own are in order."""
    left = [list(life) for life in draw(lives)]
    records = []
    while left:
        chosen = draw(st.sampled_from(left))
        records.append(chosen.pop(0))
        left = [life for life in left if life]
    return records


@given(interleaved())
def test_legal_lives_break_no_rule(records):
    verdict = judged(records, wanted=finals_of(records))

    assert [] == verdict.broken(1.5)
    assert len(records) == verdict.records


@given(interleaved(), st.data())
def test_every_record_that_comes_again_is_counted(records, data):
    again = data.draw(st.lists(st.sampled_from(records), min_size=1, max_size=4))
    # From anywhere on: right behind the first, or long after the final one.
    found = list(records)
    for record in again:
        found.insert(data.draw(st.integers(found.index(record) + 1, len(found))), record)
    verdict = judged(found, wanted=finals_of(records))

    assert len(again) == verdict.doubled
    assert ["P2"] == verdict.broken(None)


@given(interleaved(), st.data())
def test_a_record_that_is_missing_is_found(records, data):
    at = data.draw(st.integers(0, len(records) - 1))
    verdict = judged(records[:at] + records[at + 1 :], wanted=finals_of(records))

    assert {"P3"} & set(verdict.broken(None)) or {"P4", "P5"} <= set(verdict.broken(None))


@given(interleaved(), st.data())
def test_two_records_of_an_event_that_change_places_are_found(records, data):
    longest = max({r["event_id"] for r in records}, key=lambda i: _count(records, i))
    mine = [at for at, record in enumerate(records) if record["event_id"] == longest]
    first = data.draw(st.integers(0, len(mine) - 2))
    i, j = mine[first], mine[first + 1]
    records[i], records[j] = records[j], records[i]

    assert "P3" in judged(records).broken(None)


def _count(records: Sequence[dict], event_id: str) -> int:  # type: ignore[type-arg]
    return sum(record["event_id"] == event_id for record in records)


def test_the_same_revision_with_other_contents_is_a_conflict():
    contradiction = a_record("e", 1, end={"stream_us": 1})
    verdict = judged([*a_life(), contradiction])

    assert (0, 1) == (verdict.doubled, verdict.conflicting)
    assert ["P2"] == verdict.broken(None)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(a_life()[1:], id="does not begin at 0"),
        pytest.param([*a_life(), a_record("e", 4)], id="goes on after its end"),
        pytest.param([*a_life(), a_record("e", 4, "retracted")], id="ends twice"),
        pytest.param([a_record("e", 0, "closed")], id="ends without an opening"),
        pytest.param([a_record(), a_record("e", 1, "closed", final=False)], id="contradicts"),
        pytest.param([*a_life(), None], id="is no record"),
        pytest.param([*a_life(), {"event_id": "e"}], id="is half a record"),
    ],
)
def test_what_is_no_life_is_illegal(records):
    verdict = judged(records)

    assert 1 == verdict.torn_or_illegal
    assert "P3" in verdict.broken(None)


def test_an_event_without_an_end_is_open_for_ever():
    verdict = judged(a_life()[:-1])

    assert 1 == verdict.open_for_ever
    assert ["P4"] == verdict.broken(None)


def test_finals_are_compared_with_the_undisturbed_ones():
    wanted = finals_of([*a_life("lost"), *a_life("other", 3), *a_life("same")])
    verdict = judged([*a_life("other", 2), *a_life("same"), *a_life("new")], wanted=wanted)

    assert (1, 1, 1) == (verdict.lost, verdict.foreign, verdict.differing)
    assert ["P5"] == verdict.broken(None)
    assert {"cam": 3} == verdict.by_camera


def test_excused_cameras_are_not_compared():
    verdict = judged(a_life(), wanted={}, excused=frozenset({"cam"}))

    assert [] == verdict.broken(None)


def test_acknowledged_chunks_beyond_the_committed_offset_are_unprocessed():
    verdict = judged([], acknowledged=10, committed=7, dead=frozenset({(0, 8)}))

    assert 2 == verdict.unprocessed
    assert ["P1"] == verdict.broken(None)


def test_a_partition_that_was_never_committed_is_unprocessed():
    verdict = check(Evidence([], {3: [Mark(0.0, 5)]}, {}, ENDED_S, None))

    assert 5 == verdict.unprocessed


@pytest.mark.parametrize(
    ("ends", "committed", "wanted_s"),
    [
        pytest.param([(10, 5)], [(12, 5)], 2.0, id="until it is done"),
        pytest.param([(10, 5)], [(12, 3), (15, 5)], 3.0, id="each progress begins anew"),
        pytest.param([(10, 5), (50, 6)], [(11, 5), (52, 6)], 2.0, id="idle is no stall"),
        pytest.param([(10, 5), (11, 6)], [(30, 6)], 20.0, id="from the first that waits"),
        pytest.param([(10, 5)], [(12, 4)], 88.0, id="to the end, if it never comes"),
        pytest.param([(10, 5)], [], 90.0, id="never any progress"),
        pytest.param([(10, 5)], [(11, 5), (20, 2), (24, 5)], 4.0, id="set back by an operator"),
        pytest.param([(10, 5)], [(11, 5), (12, 5), (40, 5)], 1.0, id="the same offset again"),
    ],
)
def test_a_stall_is_time_without_progress_while_chunks_wait(ends, committed, wanted_s):
    acknowledged = {0: [Mark(at, end) for at, end in ends]}
    verdict = check(
        Evidence([], acknowledged, {0: [Mark(at, o) for at, o in committed]}, ENDED_S, None)
    )

    assert wanted_s == verdict.stall.seconds
    assert ("P6" in verdict.broken(wanted_s - 0.1), "P6" in verdict.broken(wanted_s)) == (
        True,
        False,
    )


def test_the_worst_partition_counts():
    acknowledged = {0: [Mark(0.0, 1)], 1: [Mark(0.0, 1)]}
    committed = {0: [Mark(1.0, 1)], 1: [Mark(9.0, 1)]}
    stall = check(Evidence([], acknowledged, committed, ENDED_S, None)).stall

    assert (1, 9.0, 0.0) == (stall.partition, stall.seconds, stall.began_s)


def test_examples_are_few_and_counts_are_complete():
    verdict = judged([record for n in range(20) for record in a_life(f"e{n}")[:-1]])

    assert 20 == verdict.open_for_ever
    assert 4 == len(verdict.examples)
