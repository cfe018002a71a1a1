from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grid import Grid
from engine.proposals import Curve, curve_of, localize_whole_video, oic_scores, propose
from engine.scores import ScoredSnippets
from engine.tiou import ranked, soft_nms, tiou
from engine.types import Proposal, Span
from tests.support.scripted import a_spec

SPEC = replace(a_spec().proposals, min_us=0, video_weight=0.0)


def a_curve(values) -> Curve:
    return Curve(1_000_000, 40_000, np.array(values, np.float64))


def test_a_plateau_is_one_proposal_with_its_contrast_as_score():
    curve = a_curve([0, 0, 0, 0, 0.8, 0.8, 0.8, 0.8, 0, 0, 0, 0])

    (only,) = propose(curve, 3, SPEC)

    assert Proposal(3, Span(1_160_000, 1_320_000), pytest.approx(0.8)) == only


def test_levels_find_both_the_core_and_the_whole():
    curve = a_curve([0, 0.25, 0.25, 0.9, 0.9, 0.25, 0.25, 0])

    spans = {(p.span.start_us, p.span.end_us) for p in propose(curve, 0, SPEC)}

    assert {(1_040_000, 1_280_000), (1_120_000, 1_200_000)} == spans


def test_an_interval_without_margin_scores_its_inner_mean():
    assert [pytest.approx(0.6)] == oic_scores(
        np.array([0.6, 0.6, 0.6]), np.array([[0, 3]]), SPEC
    ).tolist()


def test_the_outer_weight_and_video_weight_enter_as_documented():
    values = np.array([0.2, 0.2, 0.8, 0.8, 0.2, 0.2])
    spec = replace(SPEC, outer_weight=0.5, video_weight=0.25)

    (score,) = oic_scores(values, np.array([[2, 4]]), spec).tolist()

    # inside 0.8, outside 0.2 on each side, top-1/16 mean of six cells is their maximum, 0.8
    assert pytest.approx(0.8 - 0.5 * 0.2 + 0.25 * 0.8 * 0.8) == score


def test_short_intervals_and_low_curves_are_dropped():
    assert [] == propose(a_curve([0, 0.8, 0]), 0, replace(SPEC, min_us=80_000))
    assert [] == propose(a_curve([0.05] * 9), 0, SPEC)
    assert [] == propose(a_curve([0.0] * 9), 0, replace(SPEC, min_peak=0.0))


def test_a_curve_interpolates_between_snippet_centres_and_holds_its_ends():
    scores = np.array([[0.0], [1.0]], np.float32)
    curve = curve_of(ScoredSnippets(10, 0, scores), 0, Grid(25, 4, 4), 40_000)

    assert 1_600_000 == curve.start_us
    assert 1_920_000 == curve.end_us
    # Eighths: exact.
    assert [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1] == curve.values.tolist()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80))
def test_every_proposal_is_a_maximal_run_above_some_level(values):
    curve = a_curve(values)
    for proposal in propose(curve, 0, SPEC):
        first = (proposal.span.start_us - curve.start_us) // curve.step_us
        end = (proposal.span.end_us - curve.start_us) // curve.step_us
        inside = curve.values[first:end].min()
        beside = [curve.values[i] for i in (first - 1, end) if 0 <= i < len(curve.values)]

        assert all(value < inside for value in beside)


def a_proposal(start, end, score) -> Proposal:
    return Proposal(0, Span(start, end), score)


def test_soft_nms_lowers_overlapping_proposals_and_leaves_the_others():
    best, twin, far = a_proposal(0, 100, 0.9), a_proposal(0, 90, 0.8), a_proposal(500, 600, 0.5)

    kept = soft_nms([twin, far, best], sigma=0.3, min_score=1e-3)

    assert [best, far] == kept[:2]
    assert pytest.approx(0.8 * np.exp(-(tiou(best.span, twin.span) ** 2) / 0.3)) == kept[2].score


def test_soft_nms_drops_what_falls_below_the_least_score():
    kept = soft_nms([a_proposal(0, 100, 0.9), a_proposal(0, 100, 0.8)], 0.3, min_score=0.1)

    assert [a_proposal(0, 100, 0.9)] == kept


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.floats(0, 1)), max_size=15))
def test_soft_nms_never_raises_a_score_and_keeps_the_best(rows):
    pool = [a_proposal(start, start + length, score) for start, length, score in rows]
    kept = soft_nms(pool, 0.3, min_score=1e-3)
    scores = {}
    for proposal in pool:
        scores[proposal.span] = max(scores.get(proposal.span, 0), proposal.score)

    assert all(proposal.score <= scores[proposal.span] for proposal in kept)
    assert [p.score for p in kept] == sorted((p.score for p in kept), reverse=True)
    if pool and ranked(pool)[0].score >= 1e-3:
        assert ranked(pool)[0] == kept[0]


def test_the_offline_answer_ranks_the_plateau_first():
    scores = np.zeros((24, 2), np.float32)
    scores[8:16, 1] = 0.9
    track = ScoredSnippets(0, 0, scores)

    best = localize_whole_video(track, 1, Grid(25, 4, 4), a_spec().proposals)[0]

    assert tiou(best.span, Span(8 * 160_000, 16 * 160_000)) > 0.9


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(-0.5, 2.5),
    st.booleans(),
)
def test_what_scores_too_little_is_left_out_and_nothing_else(
    values, outer_weight, video_weight, least_score, is_at_the_best
):
    weights = {"outer_weight": outer_weight, "video_weight": video_weight}
    spec = replace(SPEC, **weights, min_peak=0.0)
    curve = a_curve(values)
    found = propose(curve, 0, spec)
    if is_at_the_best:  # where a bound that is too low by a rounding would show
        least_score = max((one.score for one in found), default=least_score)

    wanted = [one for one in found if one.score >= least_score]
    assert wanted == propose(curve, 0, spec, least_score)
