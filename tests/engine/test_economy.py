"""Which snippets the backbone looks at, and that every snippet has a feature all the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.economy import Economy, EconomyState, seen_on_rung
from engine.rounding import as_logged
from engine.spec import EconomySpec, Rung
from engine.types import Snippet, SnippetFeature, Span

DIM = 3


def snippet(index: int, level: int = 0, segment: int = 0) -> Snippet:
    """One whose pictures have a bar of one brightness, so that another level is motion."""
    rgb = np.zeros((2, 8, 8, 3), np.uint8)
    rgb[:, :2, :2] = level
    return Snippet(index, segment, Span(index, index + 1), rgb)


def feature_of(one: Snippet) -> SnippetFeature:
    """Its own, so that a wrong one shows."""
    vector = np.array([one.index, one.rgb[0, 0, 0, 0], one.segment], np.float32)
    return SnippetFeature(one.index, one.segment, as_logged(vector))


def features_of(economy: Economy, snippets: list[Snippet]) -> list[SnippetFeature]:
    return [
        feature
        for part in economy.parts(snippets)
        for feature in economy.fill([feature_of(one) for one in economy.choose(part)])
    ]


def looked_at(economy: Economy, snippets: list[Snippet]) -> list[int]:
    looks = economy.choose(snippets)
    economy.fill([feature_of(one) for one in looks])
    return [one.index for one in looks]


@pytest.mark.parametrize(
    ("rung", "first", "looks"),
    [
        (Rung.FULL, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (Rung.HALF, 0, [0, 2, 4, 6, 8]),
        (Rung.HALF, 3, [3, 4, 6, 8, 10]),  # a segment begins with a look
        (Rung.QUARTER, 0, [0, 4, 8]),
        (Rung.GATED, 0, [0]),  # nothing moves
    ],
)
def test_a_rung_says_how_many_are_looked_at(rung, first, looks):
    economy = Economy(EconomySpec(rung))

    assert looks == looked_at(economy, [snippet(index) for index in range(first, first + 9)])


def test_features_between_two_looks_lie_on_the_line_between_them():
    economy = Economy(EconomySpec(Rung.QUARTER))

    first = features_of(economy, [snippet(index, level=index) for index in range(4)])
    rest = features_of(economy, [snippet(4, level=100)])

    assert [0] == [one.index for one in first]
    assert [1, 2, 3, 4] == [one.index for one in rest]
    assert [25, 50, 75, 100] == [one.vector[1] for one in rest]


def test_where_a_segment_ends_those_that_wait_have_the_last_looks_feature():
    economy = Economy(EconomySpec(Rung.QUARTER))
    features_of(economy, [snippet(index, level=index) for index in range(4, 7)])

    released = economy.flush()
    next_one = features_of(economy, [snippet(9, segment=1)])

    assert [(5, 4), (6, 4)] == [(one.index, one.vector[1]) for one in released]
    assert [9] == [one.index for one in next_one]
    assert [] == economy.flush()


def test_a_gap_among_snippets_ends_a_segment_too():
    economy = Economy(EconomySpec(Rung.QUARTER))
    snippets = [snippet(4, 7), snippet(5), snippet(9, segment=1), snippet(10, segment=1)]

    features = features_of(economy, snippets)

    assert [(4, 0), (5, 0), (9, 1)] == [(one.index, one.segment) for one in features]
    assert 7 == features[1].vector[1]


def test_what_moved_while_it_was_not_looked_at_is_looked_at_at_the_next_turn():
    economy = Economy(EconomySpec(Rung.GATED))
    levels = [0] * 8 + [0, 90, 0, 0] + [0] * 8

    looks = looked_at(economy, [snippet(i, level) for i, level in enumerate(levels)])

    assert [0, 12] == looks


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 0, 90]), st.sampled_from(Rung)),
        max_size=40,
    ),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
    st.sets(st.integers(0, 40)),
)
def test_every_snippet_has_one_feature_in_order_however_it_is_cut(steps, is_gated, every, cuts):
    spec = EconomySpec(Rung.FULL, is_gated=is_gated, look_every=every)
    alone, restarted = Economy(spec), Economy(spec)
    newest, looks, out, again, segment = None, [], [], [], 0
    for index, (gap, level, rung) in enumerate(steps):
        segment += gap
        alone.rung = restarted.rung = rung
        one = snippet(index, level, segment)
        chosen = alone.choose([one])
        looks += chosen
        out += alone.fill([feature_of(look) for look in chosen])
        found = features_of(restarted, [one])
        again += found
        newest = found[-1] if found else newest
        if index in cuts:
            kept = EconomyState.from_json(*stored(restarted.state))
            restarted = Economy(spec, kept, newest)
            restarted.rung = rung
    out += alone.flush()
    again += restarted.flush()

    assert list(range(len(steps))) == [one.index for one in out]
    assert [key(one) for one in out] == [key(one) for one in again]
    assert len(steps) == alone.n_reused + alone.n_interpolated + len(looks)


def key(one: SnippetFeature) -> tuple[int, int, bytes]:
    return one.index, one.segment, one.vector.tobytes()


def stored(state: EconomyState) -> tuple[object, np.ndarray | None]:
    return state.to_json(), state.gate.planes if state.gate else None


@pytest.mark.parametrize(
    "changes",
    [
        {"waiting": [4]},  # not behind the newest feature
        {"waiting": [5, 7]},
        {"waiting": [True]},
        {"waiting": 5},
        {"segment": "0"},
        {"segment": 1},  # those that wait are of a segment that nobody knows
        {"gate": None},
        {"gate": [0.5, None, 0.5, True, 0]},
        {"gate": [-1.0, None, 4, True, 0]},
        {"gate": [0.5, float("nan"), 4, True, 0]},
        {"gate": ["loud", None, 4, True, 0]},
        {"gate": [0.5, None, 4, True]},
    ],
)
def test_a_damaged_state_is_refused(changes):
    spec = EconomySpec(Rung.QUARTER, is_gated=True)
    economy = Economy(spec)
    newest = features_of(economy, [snippet(index, 9) for index in range(6)])[-1]
    plain, planes = stored(economy.state)

    assert [5] == plain["waiting"]
    with pytest.raises((TypeError, ValueError)):
        Economy(spec, EconomyState.from_json({**plain, **changes}, planes), newest)


@pytest.mark.parametrize(
    "planes",
    [
        np.zeros((3, 3), np.float16),
        np.zeros((2, 4, 4), np.float16),
        np.zeros((3, 4, 4), np.float64),
        np.full((3, 4, 4), np.nan, np.float16),
    ],
)
def test_damaged_pictures_to_compare_with_are_refused(planes):
    gate = [0.5, None, 3, True, 0]
    plain = {"waiting": [], "segment": 0, "moved": False, "gate": gate}

    with pytest.raises(ValueError, match="planes are"):
        EconomyState.from_json(plain, planes)


@pytest.mark.parametrize("plain", [None, [], 3, {}, {"waiting": []}])
def test_what_is_no_state_is_refused(plain):
    with pytest.raises((KeyError, TypeError)):
        EconomyState.from_json(plain, None)


@given(st.lists(st.sampled_from([1, 1, 1, 1, 5]), max_size=30), st.sampled_from(list(Rung)[:3]))
def test_what_is_scored_on_a_rung_is_what_an_economy_gives(steps, rung):
    indices = np.cumsum([3, *steps])
    rows = np.random.default_rng(len(steps)).random((len(indices), 4), np.float32)
    rows = as_logged(rows)
    segments = np.cumsum(np.diff(indices, prepend=indices[:1] - 1) != 1)
    snippets = [
        snippet(int(index), segment=int(segment))
        for index, segment in zip(indices, segments, strict=True)
    ]
    economy = Economy(EconomySpec(rung))
    known = dict(zip(indices.tolist(), rows, strict=True))
    chosen = economy.choose(snippets)
    given_back = economy.fill(
        [SnippetFeature(one.index, one.segment, known[one.index]) for one in chosen]
    )
    given_back += economy.flush()

    seen = seen_on_rung(rows, indices, rung.every)

    assert indices.tolist() == [one.index for one in given_back]
    assert np.array_equal(seen, np.stack([one.vector for one in given_back]))
