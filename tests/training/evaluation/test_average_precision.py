"""mAP: cases worked by hand, and every case against a plain loop over pairs."""

import math
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.judging.truth import TruthSpan
from engine.tiou import tiou
from engine.types import Proposal, Span
from tests.support.error_bounds import HALF_ULP, gamma
from tests.support.records import an_event
from training.evaluation.average_precision import (
    ACTIVITYNET_TIOUS,
    THUMOS_TIOUS,
    mean_average_precision,
)
from training.evaluation.matching import Detections, Truth, assign, start_affinity
from training.records import VideoRecord

S = 1_000_000


def a_record(name: str, *truth: tuple[int, float, float], known: bool = True) -> VideoRecord:
    """A video of 100 s with actions (label, start in s, end in s)."""
    spans = tuple(TruthSpan(c, Span(round(a * S), round(b * S))) for c, a, b in truth)
    return VideoRecord(
        name=name,
        camera="",
        features=np.zeros((0, 2), np.float32),
        indices=np.zeros(0, np.int64),
        duration_us=100 * S,
        tags=None,
        truth=spans if known else None,
    )


def found(*rows: tuple[int, float, float, float]) -> list[Proposal]:
    """Detections (label, start in s, end in s, score)."""
    return [Proposal(c, Span(round(a * S), round(b * S)), score) for c, a, b, score in rows]


def evaluate(records, detections, n_classes=1, tious=(0.5,), **other):
    truth = Truth.of(records)
    columns = Detections.of(detections, truth.videos)
    return mean_average_precision(truth, columns, n_classes, tious, **other)


def test_a_false_alarm_before_the_hit_halves_the_average_precision():
    result = evaluate([a_record("a", (0, 0, 10))], {"a": found((0, 50, 60, 0.9), (0, 0, 10, 0.8))})

    assert [[0.5]] == result.class_ap.tolist()


def test_precision_is_made_monotone_from_the_right():
    # hits and misses by score: + - + +; G = 4. Precision 1, 1/2, 2/3, 3/4 -> 1, 3/4, 3/4, 3/4.
    record = a_record("a", (0, 0, 10), (0, 20, 30), (0, 40, 50), (0, 80, 90))
    hits = found((0, 0, 10, 0.9), (0, 60, 70, 0.8), (0, 20, 30, 0.7), (0, 40, 50, 0.6))

    assert pytest.approx((1 + 0.75 + 0.75) / 4) == evaluate([record], {"a": hits}).average


def test_a_second_detection_of_an_action_is_a_false_alarm():
    record = a_record("a", (0, 0, 10), (0, 20, 30))
    hits = found((0, 0, 10, 0.9), (0, 0, 10, 0.8), (0, 20, 30, 0.7))

    assert pytest.approx((1 + 2 / 3) / 2) == evaluate([record], {"a": hits}).average


def test_a_detection_takes_the_action_that_it_overlaps_most_and_then_the_next():
    record = a_record("a", (0, 0, 10), (0, 4, 14))
    truth = Truth.of([record])
    columns = Detections.of({"a": found((0, 3, 14, 0.9), (0, 4, 14, 0.8))}, truth.videos)

    assert [[1, -1], [1, 0]] == assign(truth, columns, (0.5, 0.4)).tolist()


def test_of_actions_that_fit_alike_the_earlier_is_taken():
    truth = Truth.of([a_record("a", (0, 10, 20), (0, 0, 10))])
    columns = Detections.of({"a": found((0, 5, 15, 0.9))}, truth.videos)

    assert [[1]] == assign(truth, columns, (0.3,)).tolist()


def test_a_tiou_of_exactly_the_threshold_is_a_hit():
    record = a_record("a", (0, 0, 10))

    for threshold, seconds in zip(THUMOS_TIOUS, range(1, 8), strict=True):
        hit = evaluate([record], {"a": found((0, 0, seconds, 1))}, tious=(threshold,))
        assert 1 == hit.average


def test_videos_and_classes_are_kept_apart():
    records = [a_record("a", (0, 0, 10)), a_record("b", (1, 0, 10))]
    wrong = {"a": found((1, 0, 10, 0.9)), "b": found((0, 0, 10, 0.8))}

    assert [[0], [0]] == evaluate(records, wrong, n_classes=2).class_ap.tolist()


def test_classes_without_actions_are_left_out_of_the_mean_and_others_are_not():
    record = a_record("a", (0, 0, 10), (2, 0, 10))
    result = evaluate([record], {"a": found((0, 0, 10, 0.9), (1, 0, 10, 0.9))}, n_classes=3)

    assert [1.0, 0.0] == [result.class_ap[0, 0], result.class_ap[2, 0]]
    assert math.isnan(result.class_ap[1, 0])
    assert 0.5 == result.average


def test_without_any_action_there_is_no_map():
    result = evaluate([a_record("a")], {"a": found((0, 0, 10, 0.9))})

    assert math.isnan(result.average)
    assert "-" in result.table()


def test_a_video_whose_actions_are_unknown_is_not_evaluated():
    records = [a_record("a", known=False), a_record("b", (0, 0, 10))]

    result = evaluate(records, {"b": found((0, 0, 10, 0.9))})

    assert (1, 1, 1.0) == (result.n_videos, result.n_truth, result.average)
    with pytest.raises(DataError, match="'a' has detections but no annotations"):
        evaluate(records, {"a": found((0, 0, 10, 0.9))})


def test_event_records_are_detections_too():
    event = an_event(class_index=0, span=Span(0, 10 * S), score=0.5)

    assert 1 == evaluate([a_record("a", (0, 0, 10))], {"a": [event]}).average


def test_detections_that_touch_an_ambiguous_interval_count_neither_way():
    records = [a_record("a", (0, 0, 10)), a_record("b")]
    hits = {"a": found((0, 50, 60, 0.9), (0, 0, 10, 0.8)), "b": found((0, 55, 56, 0.1))}
    ambiguous = [("a", Span(59 * S, 70 * S)), ("elsewhere", Span(0, 99 * S))]

    result = evaluate(records, hits, ambiguous=ambiguous)

    assert (1.0, 2, 1) == (result.average, result.n_detections, result.n_ambiguous)
    beside = [("a", Span(60 * S, 70 * S))]
    assert 0 == evaluate(records, hits, ambiguous=beside).n_ambiguous


def test_the_table_is_in_percent_and_says_what_was_compared():
    record = a_record("a", (0, 0, 10), (1, 0, 10))
    result = evaluate([record], {"a": found((0, 0, 10, 1))}, n_classes=2, tious=(0.5, 0.75))

    counted = "1 videos, 2 actions, 1 detections, 0 left out as ambiguous"
    assert [
        f"mAP in percent; times: seconds; {counted}",
        "tIoU      0.50   0.75   mean",
        "mAP      50.00  50.00  50.00",
        "jump    100.00 100.00 100.00",
        "run       0.00   0.00   0.00",
    ] == result.table(("jump", "run")).splitlines()


def test_means_over_some_thresholds():
    record = a_record("a", (0, 0, 10))
    result = evaluate([record], {"a": found((0, 0, 5, 1))}, tious=THUMOS_TIOUS)

    assert pytest.approx(5 / 7) == result.average
    assert 1 == result.average_between(0.1, 0.5)
    assert 0 == result.average_between(0.6, 0.7)


def test_thresholds_must_be_above_zero():
    with pytest.raises(ValueError, match="each > 0"):
        evaluate([a_record("a", (0, 0, 10))], {}, tious=(0.0,))


def test_columns_must_fit_and_scores_be_numbers():
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="one length"):
        Detections(one, one, one, two, np.zeros(1))
    with pytest.raises(ValueError, match="finite"):
        Detections(one, one, one, one, np.array([math.nan]))


def test_rounding_makes_nearby_times_equal():
    # 0.64 s a snippet: 1.9 s -> 3, 6.1 s -> 10 (9.53), 1.6 s -> 2 (2.5, to even), 6.4 s -> 10.
    record = a_record("a", (0, 1.9, 6.1))
    hits = {"a": found((0, 1.92, 6.4, 1))}

    assert 1 == evaluate([record], hits, tious=(1.0,), protocol="snippet-rounded").average
    assert 0 == evaluate([record], hits, tious=(1.0,)).average


def test_rounding_sends_halves_to_the_even_snippet():
    # 0.96 s is 1.5 snippets -> 2; 1.6 s is 2.5 -> 2: nothing is left of this action.
    record = a_record("a", (0, 0.96, 1.6), (0, 6.4, 12.8))
    hits = {"a": found((0, 0.96, 1.6, 1), (0, 6.4, 12.8, 0.9))}

    result = evaluate([record], hits, protocol="snippet-rounded")

    assert 2 == result.n_truth
    assert pytest.approx(0.5 * 0.5) == result.average  # one hit of two, behind a false alarm


def test_an_action_rounded_to_nothing_cannot_be_found():
    record = a_record("a", (0, 10, 10.2))

    for tious in (THUMOS_TIOUS, ACTIVITYNET_TIOUS):
        for hit in (found((0, 10, 10.2, 1)), found((0, 9, 11, 1))):
            seen = evaluate([record], {"a": hit}, tious=tious, protocol="snippet-rounded")
            assert 0 == seen.average


@dataclass(frozen=True)
class Case:
    records: tuple[VideoRecord, ...]
    detections: dict[str, list[Proposal]]
    n_classes: int = 3


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few distinct times and scores, so that ties of every kind happen."""

    def intervals(limit: int) -> list[tuple[int, float, float]]:
        one = st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 8))
        return [(c, a, a + n) for c, a, n in draw(st.lists(one, max_size=limit))]

    names = [f"v{i}" for i in range(draw(st.integers(1, 3)))]
    records = tuple(a_record(name, *intervals(8)) for name in names)
    scores = st.sampled_from([0.1, 0.5, 0.5, 0.9])
    return Case(
        records, {name: found(*[(*one, draw(scores)) for one in intervals(12)]) for name in names}
    )


def plain_average_precision(case: Case, label: int, threshold: float) -> float:
    """The protocol, word by word."""
    free = {
        record.name: sorted(a.span for a in record.truth or () if a.class_id == label)
        for record in case.records
    }
    n_truth = sum(len(spans) for spans in free.values())
    if not n_truth:
        return math.nan
    ranking = sorted(
        (-one.score, number, one.span, record.name)
        for number, record in enumerate(case.records)
        for one in case.detections[record.name]
        if one.class_index == label
    )
    recalls, precisions, n_hits = [0.0], [0.0], 0
    for rank, (_, _, span, name) in enumerate(ranking, 1):
        overlaps = [tiou(span, action) for action in free[name]]
        if overlaps and max(overlaps) >= threshold:
            n_hits += 1
            del free[name][overlaps.index(max(overlaps))]
        recalls.append(n_hits / n_truth)
        precisions.append(n_hits / rank)
    for at in range(len(precisions) - 2, -1, -1):
        precisions[at] = max(precisions[at], precisions[at + 1])
    return sum(
        (recalls[at] - recalls[at - 1]) * precisions[at]
        for at in range(1, len(recalls))
        if recalls[at] != recalls[at - 1]
    )


@given(cases())
def test_every_case_agrees_with_a_plain_loop(case):
    result = evaluate(case.records, case.detections, case.n_classes, THUMOS_TIOUS)

    wanted = [[plain_average_precision(case, c, t) for t in THUMOS_TIOUS] for c in range(3)]
    # Sums of at most 24 shares of 1, each a product of two quotients; in float64.
    bound = 2 * gamma(28, HALF_ULP["float64"])
    np.testing.assert_allclose(result.class_ap, wanted, rtol=0, atol=bound)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_in_which_detections_come_does_not_matter(case, random):
    shuffled = {name: random.sample(many, len(many)) for name, many in case.detections.items()}

    first = evaluate(case.records, case.detections, 3, THUMOS_TIOUS)
    second = evaluate(case.records, shuffled, 3, THUMOS_TIOUS)

    np.testing.assert_array_equal(first.class_ap, second.class_ap)


@given(cases())
def test_perfect_detections_are_worth_everything_and_none_nothing(case):
    perfect = {
        record.name: [Proposal(a.class_id, a.span, 0.5) for a in record.truth or ()]
        for record in case.records
    }
    ap = evaluate(case.records, perfect, 3, ACTIVITYNET_TIOUS).class_ap
    nothing = evaluate(case.records, {}, 3, ACTIVITYNET_TIOUS).class_ap

    assert {1.0} >= set(ap[~np.isnan(ap)].tolist())
    assert {0.0} >= set(nothing[~np.isnan(nothing)].tolist())


@given(cases())
def test_a_worse_copy_of_every_detection_never_helps(case):
    doubled = {
        name: [*many, *(Proposal(one.class_index, one.span, one.score - 1) for one in many)]
        for name, many in case.detections.items()
    }
    before = evaluate(case.records, case.detections, 3, (0.99,)).class_ap
    after = evaluate(case.records, doubled, 3, (0.99,)).class_ap
    # Copies come after all else: they may find twins of an action found already, nothing more.
    twins = any(
        len({(a.class_id, a.span) for a in r.truth or ()}) < len(r.truth or ())
        for r in case.records
    )

    if not twins:
        np.testing.assert_array_equal(before, after)


@given(cases(), st.sampled_from([0.5, 1.0, 3.0]))
def test_no_action_and_no_detection_is_matched_twice(case, seconds):
    truth = Truth.of(case.records)
    columns = Detections.of(case.detections, truth.videos)

    for affinity, floors in ((None, THUMOS_TIOUS), (start_affinity, (-seconds,))):
        options = {} if affinity is None else {"affinity": affinity}
        for taken in assign(truth, columns, floors, **options):
            rows = np.flatnonzero(taken >= 0)
            actions = taken[rows]
            assert len(set(actions.tolist())) == len(actions)
            assert (truth.class_index[actions] == columns.class_index[rows]).all()
            assert (truth.video[actions] == columns.video[rows]).all()
            if affinity is not None:
                apart_us = abs(truth.start_us[actions] - columns.start_us[rows])
                assert (apart_us <= seconds * S).all()


def synthetic_load(n_truth: int = 3_358, n_detections: int = 100_000) -> tuple[Truth, Detections]:
    """As THUMOS14's test set: 212 videos of mostly one class each, detections near the actions."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 212, n_truth)
    start_us = rng.integers(0, 600 * S, n_truth)
    end_us = start_us + (rng.exponential(4, n_truth) * S).astype(np.int64) + 100_000
    label = np.where(rng.random(n_truth) < 0.9, video % 20, rng.integers(0, 20, n_truth))
    names = tuple(f"video_{number}" for number in range(212))
    truth = Truth(names, video, label, start_us, end_us)
    near = rng.integers(0, n_truth, n_detections)
    moved = (rng.normal(0, 2, (2, n_detections)) * S).astype(np.int64)
    first = start_us[near] + moved[0]
    return truth, Detections(
        video[near],
        label[near],
        first,
        np.maximum(end_us[near] + moved[1], first + 100_000),
        rng.random(n_detections),
    )


@pytest.mark.slow
def test_a_published_test_set_is_evaluated(capsys):
    truth, detections = synthetic_load()
    began_s = time.perf_counter()
    result = mean_average_precision(truth, detections, 20)
    took_s = time.perf_counter() - began_s

    assert (212, 3_358, 100_000) == (result.n_videos, result.n_truth, result.n_detections)
    assert (np.diff(result.per_tiou) <= 0).all()
    with capsys.disabled():
        print(f"\n{result.table()}\nevaluated in {took_s:.2f} s")  # noqa: T201
