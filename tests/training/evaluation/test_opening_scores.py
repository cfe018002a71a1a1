import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.opening_scores import (
    Outcome,
    false_alarms_per_hour,
    opening_thresholds,
    quiet_thresholds,
)


def false(*scores: float, class_index: int = 0) -> list[Outcome]:
    return [Outcome(class_index, score, is_true=False) for score in scores]


def true(*scores: float, class_index: int = 0) -> list[Outcome]:
    return [Outcome(class_index, score, is_true=True) for score in scores]


def fit(outcomes, hours=2.0, n_classes=1, wanted=0.5, **other) -> tuple[float, ...]:
    options = {"fallback": 0.4, "least_events": 1} | other
    return opening_thresholds(outcomes, hours, n_classes, wanted, **options)


def test_the_threshold_lies_midway_above_the_first_false_alarm_that_is_too_many():
    # 0.5 an hour over 2 h: one false alarm may open, the second may not.
    assert (pytest.approx(0.55),) == fit(false(0.6, 0.5, 0.3))


def test_true_events_bound_the_midway_point_too():
    assert (pytest.approx(0.51),) == fit([*false(0.6, 0.5, 0.3), *true(0.52, 0.8)])


def test_a_class_that_keeps_to_the_rate_anyway_gets_the_lowest_threshold():
    assert (0.2,) == fit([*false(0.6), *true(0.3)])


def test_a_rate_of_nothing_stays_above_every_false_alarm():
    assert (pytest.approx(0.61),) == fit(false(0.6, 0.5), wanted=0)


def test_a_rate_that_the_hours_cannot_show_is_a_rate_of_nothing():
    assert fit(false(0.6, 0.5), wanted=0) == fit(false(0.6, 0.5), wanted=0.49)


def test_false_alarms_of_one_score_open_together_or_not_at_all():
    assert (pytest.approx(0.51),) == fit(false(0.5, 0.5, 0.5))


def test_thresholds_stay_in_their_bounds():
    assert (0.9,) == fit(false(0.99, 0.98, 0.97))
    assert (0.7,) == fit(false(0.3, 0.25), bounds=(0.7, 0.8), fallback=0.75)


def test_each_class_is_fitted_on_its_own_events():
    outcomes = [*false(0.6, 0.5), *false(0.8, 0.7, class_index=1)]

    assert (pytest.approx(0.55), pytest.approx(0.75), 0.4) == fit(outcomes, n_classes=3)


def test_few_events_mean_the_fallback():
    outcomes = false(0.6, 0.5, 0.45, 0.44)

    assert (0.4,) == fit(outcomes, least_events=5)
    assert (pytest.approx(0.55),) == fit(outcomes, least_events=4)
    assert (0.4,) == fit([])


@pytest.mark.parametrize("wrong", [{"hours": 0}, {"wanted": -1}, {"fallback": 0.1}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted hours > 0"):
        fit([], **wrong)


def test_a_score_must_be_a_number():
    with pytest.raises(ValueError, match="wanted a number"):
        Outcome(0, math.nan, is_true=False)


def test_the_rate_of_a_threshold():
    outcomes = [*false(0.6, 0.5, 0.3), *true(0.9), *false(0.7, class_index=1)]

    assert (1.0, 0.0) == false_alarms_per_hour(outcomes, 2.0, (0.5, 0.71))


outcomes_of_any_kind = st.lists(
    st.builds(Outcome, st.integers(0, 2), st.floats(-0.5, 1.5), st.booleans()), max_size=40
)


@given(outcomes_of_any_kind, st.floats(0.1, 50), st.floats(0, 20), st.floats(0, 20))
def test_a_higher_wanted_rate_never_raises_a_threshold(outcomes, hours, first, second):
    strict = fit(outcomes, hours, 3, min(first, second))
    loose = fit(outcomes, hours, 3, max(first, second))

    assert all(low <= high for low, high in zip(loose, strict, strict=True))


@given(outcomes_of_any_kind, st.floats(0.1, 50), st.floats(0, 20))
def test_the_wanted_rate_is_kept_wherever_the_bounds_allow_it(outcomes, hours, wanted):
    bounds = (-1.0, 2.0)
    thresholds = fit(outcomes, hours, 3, wanted, bounds=bounds)
    rates = false_alarms_per_hour(outcomes, hours, thresholds)
    seen = {one.class_index for one in outcomes}

    assert all(rate <= wanted for label, rate in enumerate(rates) if label in seen)


def quiet(outcomes, n_allowed, lowest=(0.4, 0.4), highest=0.9):
    return quiet_thresholds(outcomes, n_allowed, lowest, highest)


def test_of_quiet_footage_nothing_may_open_if_none_is_allowed():
    outcomes = [*false(0.6, 0.5), *false(0.45, class_index=1)]

    assert (pytest.approx(0.61), pytest.approx(0.46)) == quiet(outcomes, 0)


def test_those_that_score_highest_are_the_ones_that_may_open():
    outcomes = [*false(0.8, 0.6, 0.5), *false(0.7, 0.45, class_index=1)]

    assert (pytest.approx(0.7), pytest.approx(0.575)) == quiet(outcomes, 2)


def test_quiet_footage_lowers_no_threshold_and_silences_no_class():
    assert (0.4, 0.9) == quiet(false(0.95, class_index=1), 0)
    assert (0.4, 0.4) == quiet([], 0)
    assert (0.4, 0.4) == quiet(false(0.1, 0.2), 0)


@given(
    st.lists(st.tuples(st.floats(0.2, 0.89), st.integers(0, 1)), max_size=40),
    st.integers(0, 45),
)
def test_no_more_of_quiet_footage_open_than_are_allowed(found, n_allowed):
    outcomes = [one for score, label in found for one in false(score, class_index=label)]
    thresholds = quiet(outcomes, n_allowed, lowest=(0.3, 0.5), highest=1.0)
    opened = [one for one in outcomes if one.score >= thresholds[one.class_index]]

    assert len(opened) <= n_allowed
    assert all(now >= was for now, was in zip(thresholds, (0.3, 0.5), strict=True))
