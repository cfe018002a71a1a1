from dataclasses import replace

import numpy as np
import pytest

from engine.spec import FrameGeometry
from tests.support.scripted import a_camera_mean, a_spec

SPEC = a_spec()


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("window", {"hop_snippets": 5}, "hop_snippets is 5"),
        ("window", {"window_snippets": 0}, "window_snippets is 0"),
        ("window", {"track_snippets": 2}, "rescore, window, track"),
        ("window", {"max_gap_us": 0}, "max_gap_us is 0"),
        ("proposals", {"step_us": 0}, "step_us is 0"),
        ("proposals", {"absolute_levels": (), "relative_levels": ()}, "levels is none"),
        ("proposals", {"absolute_levels": (1.5,)}, "a level is 1.5"),
        ("proposals", {"outer_ratio": 0.0}, "outer_ratio is 0.0"),
        ("proposals", {"min_us": -1}, "min_us is -1"),
        ("proposals", {"soft_nms_sigma": 0.0}, "soft_nms_sigma is 0.0"),
        ("tracker", {"keep_score": 0.9}, "keep_score is 0.9"),
        ("tracker", {"freeze_us": -1}, "freeze_us is -1"),
        ("tracker", {"retract_hops": 0}, "retract_hops is 0"),
        ("tracker", {"class_open_scores": (0.5, float("nan"))}, "class_open_scores is nan"),
    ],
)
def test_a_senseless_value_is_named(part, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(getattr(SPEC, part), **changes)


@pytest.mark.parametrize(
    "values", [(200, 224, "crop"), (256, 224, "pad"), (256, 224, "stretch"), (9000, 9000, "crop")]
)
def test_a_geometry_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="wanted"):
        FrameGeometry(*values)


def test_an_interpolation_step_must_divide_the_stride():
    with pytest.raises(ValueError, match="stride in interpolation steps"):
        replace(SPEC, proposals=replace(SPEC.proposals, step_us=30_000))


def test_frames_that_are_left_out_must_make_no_gap():
    assert 80_000 == a_spec(max_gap_us=80_000).window.max_gap_us
    with pytest.raises(ValueError, match="max_gap_us is 79999, wanted two grid periods, 80000"):
        a_spec(max_gap_us=79_999)


def test_a_lower_opening_score_lowers_the_keeping_score_with_it():
    tracker = SPEC.with_open_score(0.2).tracker

    assert (0.2, 0.2) == (tracker.open_score, tracker.keep_score)
    assert 0.3 == SPEC.with_open_score(0.9).tracker.keep_score


def test_without_scores_of_their_own_all_classes_open_alike():
    tracker = SPEC.tracker

    assert [0.4, 0.4] == [tracker.open_score_of(label) for label in (0, 1)]
    assert [0.3, 0.3] == [tracker.keep_score_of(label) for label in (0, 1)]


def test_a_class_with_a_low_opening_score_is_kept_down_to_it():
    tracker = replace(SPEC.tracker, class_open_scores=(0.2, 0.7))

    assert [0.2, 0.7] == [tracker.open_score_of(label) for label in (0, 1)]
    assert [0.2, 0.3] == [tracker.keep_score_of(label) for label in (0, 1)]


@pytest.mark.parametrize("scores", [(0.5,), (0.5, 0.5, 0.5)])
def test_opening_scores_must_be_as_many_as_classes(scores):
    with pytest.raises(ValueError, match=rf"class_open_scores is {len(scores)} scores, .* 2 cl"):
        a_spec(class_open_scores=scores)


def test_the_operators_opening_score_is_that_of_every_class():
    spec = a_spec(class_open_scores=(0.2, 0.7)).with_open_score(0.5)

    assert [0.5, 0.5] == [spec.tracker.open_score_of(label) for label in (0, 1)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior_snippets_known": -1}, "prior_snippets_known is -1"),
        ({"prior_snippets_new": -1}, "prior_snippets_new is -1"),
        ({"memory_snippets": 0}, "memory_snippets is 0"),
    ],
)
def test_a_senseless_background_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        a_camera_mean(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"default": np.zeros(4, np.float32)}, {"cameras": {"a": np.zeros(4, np.float32)}}],
)
def test_a_background_of_another_width_is_refused(changes):
    with pytest.raises(ValueError, match=r"a camera mean is \(4,\), wanted \(3,\)"):
        a_spec(camera_mean=a_camera_mean(**changes))


def test_a_camera_opens_at_its_own_scores_and_every_other_at_the_models():
    spec = replace(a_spec(class_open_scores=(0.2, 0.7)), camera_open_scores={"gate": (0.5, 0.9)})

    assert (0.5, 0.9) == spec.tracker_of("gate").class_open_scores
    assert spec.tracker == spec.tracker_of("yard")
    assert spec.tracker_of("gate") != spec.with_open_score(0.6).tracker_of("gate")
    assert 0.6 == spec.with_open_score(0.6).tracker_of("gate").open_score_of(1)


@pytest.mark.parametrize("scores", [(), (0.5,), (0.5, float("inf"))])
def test_a_cameras_opening_scores_are_finite_and_one_for_each_class(scores):
    with pytest.raises(ValueError, match=r"camera_open_scores\.gate is .* 2 finite scores"):
        replace(a_spec(), camera_open_scores={"gate": scores})
