import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.camera_mean import CameraMean, CameraMeanState
from tests.support.error_bounds import HALF_ULP, Bounded, assert_within, gamma
from tests.support.scripted import a_camera_mean

WIDTH = 3
TINIEST = float(np.finfo(np.float32).smallest_subnormal)
numbers = st.floats(-1e6, 1e6, width=32)
rows = arrays.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(WIDTH)), elements=numbers)
priors = arrays.arrays(np.float32, WIDTH, elements=numbers)
counts = st.integers(0, 20)
memories = st.integers(1, 30)


def fed(camera_mean: CameraMean, features) -> CameraMean:
    for feature in features:
        camera_mean.update(feature)
    return camera_mean


def as_float32(wanted, prior, features) -> Bounded:
    """A mean kept in float64 by one recursion or another, then rounded to float32.

    A step of the recursion has three roundings, and no number in it is larger than twice the
    largest it was given; the other side's plain sum has fewer.
    """
    most = np.abs(np.vstack([prior[None], features]).astype(np.float64)).max(axis=0)
    n_roundings = 2 * 3 * (len(features) + 1)
    error = gamma(n_roundings, HALF_ULP["float64"]) * 2 * most + TINIEST / 2
    return Bounded(np.asarray(wanted, np.float64), error).rounded()


@given(priors, rows, counts, memories)
def test_it_is_the_documented_recursion(prior, features, prior_snippets, memory_snippets):
    wanted = prior.astype(np.float64)
    for n, feature in enumerate(features.astype(np.float64)):
        weight = 1 / min(prior_snippets + n + 1, memory_snippets)
        wanted = (1 - weight) * wanted + weight * feature

    seen = fed(CameraMean(prior, prior_snippets, memory_snippets), features).vector

    assert np.float32 == seen.dtype
    assert_within(seen, as_float32(wanted, prior, features))


@given(priors, rows, counts)
def test_before_the_memory_is_full_it_is_the_plain_mean_with_the_prior(prior, features, n_prior):
    seen = fed(CameraMean(prior, n_prior, 1000), features).vector

    total = n_prior * prior.astype(np.float64) + features.astype(np.float64).sum(axis=0)
    n = n_prior + len(features)
    assert_within(seen, as_float32(total / n if n else prior, prior, features))


@given(priors, rows, counts, memories)
def test_it_never_leaves_what_was_seen(prior, features, prior_snippets, memory_snippets):
    seen = fed(CameraMean(prior, prior_snippets, memory_snippets), features).vector

    everything = np.vstack([prior[None], features])
    assert (everything.min(axis=0) <= seen).all()
    assert (seen <= everything.max(axis=0)).all()


@given(priors, rows, counts, memories, st.integers(0, 40))
def test_stopping_and_going_on_anywhere_changes_no_bit(prior, features, n_prior, memory, stop):
    whole = fed(CameraMean(prior, n_prior, memory), features)
    first = fed(CameraMean(prior, n_prior, memory), features[:stop])

    second = CameraMean(np.zeros(WIDTH, np.float32), 0, memory)
    second.restore(first.state())
    fed(second, features[stop:])

    assert whole.state().mean.tobytes() == second.state().mean.tobytes()
    assert whole.state().n_snippets == second.state().n_snippets
    assert whole.vector.tobytes() == second.vector.tobytes()


def test_what_was_seen_long_ago_is_forgotten():
    prior = np.zeros(WIDTH, np.float32)
    camera_mean = fed(CameraMean(prior, 0, 10), np.full((1000, WIDTH), 100, np.float32))
    fed(camera_mean, np.full((200, WIDTH), 3, np.float32))

    # 200 steps of a tenth leave this of the 100 (less what the first steps had not reached).
    left = (100 - 3) * 0.9**200
    assert_within(camera_mean.vector, Bounded(np.full(WIDTH, 3.0), np.full(WIDTH, left)).rounded())


def test_a_known_camera_starts_from_its_own_background_and_trusts_it_longer():
    spec, white = a_camera_mean(), np.ones(WIDTH, np.float32)
    known, new = (CameraMean.of_camera(spec, name) for name in ("red-door", "elsewhere"))

    assert [0.5, 0, 0] == known.vector.tolist()
    assert [0, 0, 0] == new.vector.tolist()
    # Kept in float64, then rounded once.
    own = Bounded.exactly([0.5 + 0.5 / 41, 1 / 41, 1 / 41]).rounded()
    assert_within(fed(known, [white]).vector, own)
    assert_within(fed(new, [white]).vector, Bounded.exactly(np.full(WIDTH, 1 / 11)).rounded())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_spoils_nothing(bad):
    camera_mean = CameraMean(np.zeros(WIDTH, np.float32), 1, 10)
    camera_mean.update(np.array([1, bad, 1], np.float32))

    assert [0, 0, 0] == camera_mean.vector.tolist()
    assert 1 == camera_mean.state().n_snippets


def test_the_vector_and_the_state_are_the_callers_own():
    camera_mean = CameraMean(np.zeros(WIDTH, np.float32), 1, 10)
    camera_mean.vector[:] = 7
    camera_mean.state().mean[:] = 7

    assert [0, 0, 0] == camera_mean.vector.tolist()


def test_another_width_is_refused():
    camera_mean = CameraMean(np.zeros(WIDTH, np.float32), 1, 10)

    with pytest.raises(ValueError, match=r"a feature is \(4,\), wanted \(3,\)"):
        camera_mean.update(np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (CameraMeanState(np.zeros(4), 1), r"float64 \(4,\), wanted float64 \(3,\)"),
        (CameraMeanState(np.zeros(3, np.float32), 1), "float32"),  # type: ignore[arg-type]
        (CameraMeanState(np.full(3, np.nan), 1), "damaged"),
        (CameraMeanState(np.zeros(3), -1), "damaged"),
    ],
)
def test_a_state_that_cannot_be_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        CameraMean(np.zeros(WIDTH, np.float32), 1, 10).restore(state)


@pytest.mark.parametrize(("prior_snippets", "memory_snippets"), [(-1, 1), (0, 0)])
def test_counts_that_cannot_be_are_refused(prior_snippets, memory_snippets):
    with pytest.raises(ValueError, match="wanted >= 0 and >= 1"):
        CameraMean(np.zeros(WIDTH, np.float32), prior_snippets, memory_snippets)
