"""A candidate serves only where it does what the reference does."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.base import EngineBackend, Signature, Tensor, TensorSpec
from engine.backends.scripted import ScriptedBackend
from engine.cas import BackendLocalizer
from engine.errors import BundleError
from engine.features import BackendFeatureExtractor
from engine.judging.agreement import Agreement
from engine.session import StreamSession
from engine.snippets import SnippetSampler
from engine.spec import ModelSpec, Tolerance
from engine.straight_line import localize_frames
from engine.types import FloatArray, FrameBatch, Snippet
from engine.verification.footage import GoldenClip, GoldenSet, procedural
from engine.verification.report import OUTPUTS, OutputError, Tally, cosine
from engine.verification.verifier import Networks, Verification, Verifier, verify
from tests.support.error_bounds import HALF_ULP, gamma
from tests.support.footage import BUSY
from tests.support.scripted import a_camera_mean, a_spec, frames_of

BACKBONE = Signature(
    (TensorSpec("snippets", (None, 4, 2, 2, 3), "uint8"),),
    (TensorSpec("features", (None, 3), "float32"),),
)
LOCALIZER = Signature(
    (
        TensorSpec("features", (None, None, 3), "float32"),
        TensorSpec("valid", (None, None), "float32"),
        TensorSpec("background", (None, 3), "float32"),
    ),
    (
        TensorSpec("cas", (None, None, 2), "float32"),
        TensorSpec("attention", (None, None), "float32"),
        TensorSpec("video_scores", (None, 2), "float32"),
    ),
)
QUIET = [(3.0, 0, 0)]


def mean_colour(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Red, green, and a third number that keeps black from being the zero vector."""
    red, green, _blue = row["snippets"].mean(axis=(0, 1, 2)) / 255
    return {"features": np.array([red, green, 1], np.float32)}


def red_green(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    changed = np.clip(row["features"] - row["background"], 0, 1) * row["valid"][:, None]
    cas = changed[:, :2].astype(np.float32)
    return {"cas": cas, "attention": row["valid"] * 1, "video_scores": cas.max(axis=0)}


class Changed:
    """A backend, one of whose outputs goes wrong; counts its calls.

    Args:
        inner: The right one.
        output: Which output.
        change: What becomes of it: (answer, number of the call) → answer.
    """

    def __init__(
        self, inner: EngineBackend, output: str, change: Callable[[FloatArray, int], FloatArray]
    ) -> None:
        self._inner = inner
        self._output = output
        self._change = change
        self.rows: list[int] = []
        self.signature = inner.signature
        self.description = f"changed {inner.description}"

    def warm_up(self) -> None:
        self._inner.warm_up()

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        answers = self._inner.run(tensors)
        self.rows.append(len(answers[self._output]))
        changed = self._change(answers[self._output].astype(np.float32), len(self.rows) - 1)
        return {**answers, self._output: changed.astype(np.float32)}

    def close(self) -> None:
        self._inner.close()


def same(answer: FloatArray, _call: int) -> FloatArray:
    return answer


def exact() -> Networks:
    return Networks(ScriptedBackend(BACKBONE, mean_colour), ScriptedBackend(LOCALIZER, red_green))


def changed(output: str, change: Callable[[FloatArray, int], FloatArray]) -> Networks:
    right = exact()
    if output == "features":
        return Networks(Changed(right.backbone, output, change), right.localizer)
    return Networks(right.backbone, Changed(right.localizer, output, change))


def frames(blocks: list[tuple[float, int, int]]) -> FrameBatch:
    rows = [(red, green) for s, red, green in blocks for _ in range(round(s * 25))]
    pts_us = [40_000 * i for i in range(len(rows))]
    return frames_of(pts_us, [red for red, _ in rows], [green for _, green in rows])


def one_by_one(batch: FrameBatch) -> list[FrameBatch]:
    cuts = range(len(batch.pts_us))
    return [FrameBatch(batch.pts_us[i : i + 1], batch.rgb[i : i + 1], 1) for i in cuts]


def clip(batch: FrameBatch, spec: ModelSpec, camera: str = "gate") -> GoldenClip:
    def snippets() -> Iterator[Snippet]:
        return iter(SnippetSampler(spec.grid, spec.window.max_gap_us).push(batch))

    return GoldenClip(camera, len(list(snippets())), snippets)


def golden(*blocks: list[tuple[float, int, int]], spec: ModelSpec | None = None) -> GoldenSet:
    shown = blocks or (BUSY,)
    return GoldenSet("colours", tuple(clip(frames(b), spec or a_spec()) for b in shown))


def test_a_network_is_itself() -> None:
    told: list[tuple[int, int]] = []
    shown = golden()
    seen = verify(exact(), exact(), shown, a_spec(), on_progress=lambda *row: told.append(row))

    assert seen.holds
    assert () == seen.reasons
    assert list(OUTPUTS) == [row.output for row in seen.outputs]
    assert {(0.0, 0.0, 1.0, 1.0)} == {
        (row.max_error, row.mean_error, row.cosine_min, row.cosine_mean) for row in seen.outputs
    }
    assert seen.events.n_reference == seen.events.n_candidate == seen.events.n_matched > 2
    assert [(i + 1, shown.n_snippets) for i in range(shown.n_snippets)] == told
    assert shown.n_snippets == seen.n_snippets == seen.outputs[0].n_compared


@pytest.mark.parametrize(
    ("hop_snippets", "fades_at", "n_retracted"), [(1, 999, 0), (4, 999, 0), (1, 32, 1)]
)
def test_events_are_those_that_the_live_tracker_leaves(
    hop_snippets: int, fades_at: int, n_retracted: int
) -> None:
    """From window ``fades_at`` on nothing is seen any more."""

    def fading() -> Networks:
        return changed("cas", lambda a, call: a * (call < fades_at))

    spec, right = a_spec(hop_snippets=hop_snippets), fading()
    live = localize_frames(
        one_by_one(frames(BUSY)),
        StreamSession("gate", "e", spec),
        BackendFeatureExtractor(right.backbone, 3),
        BackendLocalizer(right.localizer),
    )
    assert isinstance(right.localizer, Changed)
    seen = verify(fading(), fading(), golden(spec=spec), spec)
    scores = seen.row("scores")

    retracted = {r.event_id for r in live.revisions} - {r.event_id for r in live.final}
    assert n_retracted == len(retracted)
    assert len(live.final) == seen.events.n_reference == seen.events.n_candidate
    assert scores is not None
    assert len(right.localizer.rows) == scores.n_compared


@pytest.mark.parametrize(
    ("output", "change", "reason"),
    [
        ("features", lambda a, _: a * [1, 1, -1], "features: a snippet's cosine is -1.0"),
        ("features", lambda a, call: a if call != 7 else a[..., ::-1], "features: a snippet"),
        ("cas", lambda a, call: a + 0.4 * (call == 9), "scores: one is off by 0.4000"),
        ("attention", lambda a, call: a * (1 - 0.5 * (call == 9)), "scores: one is off by 0.4"),
        ("cas", lambda a, _: a * [0, 1], "1 of the candidate, 1 match: F1 0.400"),
    ],
)
def test_a_perturbed_backend_is_refused_for_what_it_does(
    output: str, change: Callable[[FloatArray, int], FloatArray], reason: str
) -> None:
    seen = verify(exact(), changed(output, change), golden(), a_spec())

    assert not seen.holds
    assert reason in "; ".join(seen.reasons)
    assert f"does not hold: {'; '.join(seen.reasons)}" == seen.table().splitlines()[-1]


def test_noise_below_the_tolerance_is_admitted_and_reported() -> None:
    rng = np.random.default_rng(0)

    def noisy(answer: FloatArray, _call: int) -> FloatArray:
        return answer + rng.uniform(-0.01, 0.01, answer.shape)

    seen = verify(exact(), changed("features", noisy), golden(), a_spec())
    features, scores = seen.row("features"), seen.row("scores")

    assert seen.holds
    assert features is not None
    assert scores is not None
    rounded_apart = 2 * gamma(1, HALF_ULP["float16"])  # of two features of at most about 1
    assert 0.009 < features.max_error <= 0.01 + rounded_apart
    assert 0.004 < features.mean_error < 0.006
    assert 0.99 < features.cosine_min < features.cosine_mean < 1
    assert 0 < scores.max_error <= 0.01 + rounded_apart + gamma(4)  # of scores of at most 1
    assert not verify(exact(), changed("features", noisy), golden(), a_spec(), Tolerance(1)).holds


def test_errors_of_the_candidate_s_features_reach_its_scores() -> None:
    seen = verify(exact(), changed("features", lambda a, _: a * 0.5), golden(), a_spec())
    features, scores = seen.row("features"), seen.row("scores")

    assert features is not None
    assert scores is not None
    assert features.cosine_min == pytest.approx(1)  # a half is exact; the cosine is float64's
    # Means of equal pixels and a 255th, rounded to float16, then products of them in float32.
    brightest = float(np.float16(230 / 255))
    assert scores.max_error == pytest.approx(0.5 * brightest, rel=gamma(8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", ["features", "cas", "attention", "video_scores"])
@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_what_is_not_finite_never_holds(side: str, output: str, bad: float) -> None:
    def spoilt(answer: FloatArray, call: int) -> FloatArray:
        return np.where(np.arange(answer.shape[-1]) == 0, bad, answer) if call == 5 else answer

    networks = changed(output, spoilt)
    spoilt_backend = networks.backbone if output == "features" else networks.localizer
    pair = (networks, exact()) if side == "reference" else (exact(), networks)
    anything = Tolerance(0, 1, 0)
    seen = verify(*pair, golden(BUSY, BUSY), a_spec(), anything)

    assert not seen.holds
    assert (
        f"{side}: {output} of snippet 5 of 'gate' hold NaN or infinity, wanted finite numbers",
    ) == seen.reasons
    assert isinstance(spoilt_backend, Changed)
    assert 6 == len(spoilt_backend.rows)  # what follows is not even tried
    assert 5 == seen.n_snippets
    json.dumps(seen.to_json(), allow_nan=False)


def test_after_what_is_not_finite_no_more_footage_is_read() -> None:
    def unread() -> Iterator[Snippet]:
        raise AssertionError("read")

    shown = GoldenSet("two", (*golden().clips, GoldenClip("b", 1, unread)))

    assert not verify(exact(), changed("cas", lambda a, _: a * np.nan), shown, a_spec()).holds


def test_where_nothing_was_seen_nothing_is_compared() -> None:
    red = [(1.2, 204, 0)]  # less than a window
    seen = verify(exact(), changed("cas", lambda a, _: a * 0.5), golden(red), a_spec()).row("cas")

    assert seen is not None
    red_seen = float(np.float16(204 / 255))  # features are rounded; green is 0, exactly
    assert seen.mean_error == pytest.approx(0.5 * red_seen / 2)  # of red and green


def test_at_its_limits_a_candidate_holds() -> None:
    rows = (OutputError("features", 1, 0, 0, 0.9, 1), OutputError("scores", 1, 0.3, 0, 0, 0))
    at_limits = Tolerance(feature_cosine_min=0.9, score_max_error=0.3, event_f1_min=0.5)

    assert Verification("a", "b", "c", "0", 1, rows, Agreement(2, 2, 1, 0.7), at_limits).holds


def test_where_nothing_happens_agreement_proves_nothing() -> None:
    seen = verify(exact(), exact(), golden(QUIET), a_spec())

    assert seen.holds
    assert seen.events.proves_nothing
    assert "that they agree proves nothing" in seen.table()


def test_an_empty_golden_set_proves_nothing_at_all() -> None:
    seen = verify(exact(), exact(), golden([(0.08, 200, 0)]), a_spec())

    assert not seen.holds
    assert "nothing was compared" in seen.reasons[0]
    assert seen.table()


def test_procedural_footage_is_seen_by_both() -> None:
    seen = verify(exact(), exact(), procedural(a_spec()), a_spec())

    assert seen.holds
    assert 36 == seen.n_snippets
    assert "procedural footage" in seen.table()


def test_the_digest_is_that_of_what_was_seen() -> None:
    first = verify(exact(), exact(), golden(), a_spec())
    other = verify(exact(), changed("cas", lambda a, _: a * 0), golden(), a_spec())
    brighter = verify(exact(), exact(), golden([*BUSY[:-1], (1.0, 1, 0)]), a_spec())
    elsewhere = GoldenSet("colours", (clip(frames(BUSY), a_spec(), "yard"),))

    assert first.golden_sha256 == other.golden_sha256
    assert first.golden_sha256 != brighter.golden_sha256
    assert first.golden_sha256 != verify(exact(), exact(), elsewhere, a_spec()).golden_sha256


def test_every_batch_size_is_tried_in_turn() -> None:
    wide, alone = changed("features", same), changed("features", same)
    seen = verify(alone, wide, golden(), a_spec(), batch_sizes=(1, 2, 4))
    n = seen.n_snippets
    assert isinstance(wide.backbone, Changed)
    assert isinstance(alone.backbone, Changed)

    assert [1, 2, 4, 1, 2, 4] == wide.backbone.rows[:6]
    assert n == sum(wide.backbone.rows)
    assert [1] * n == alone.backbone.rows
    one_by_one = verify(exact(), exact(), golden(), a_spec())
    assert (one_by_one.events, one_by_one.golden_sha256) == (seen.events, seen.golden_sha256)


def test_a_step_is_one_call_of_one_side() -> None:
    reference, candidate = changed("features", same), changed("features", same)
    verifier = Verifier(reference, candidate, golden(), a_spec(), batch_sizes=(2,))
    sides = []
    for step in verifier.steps():
        before = [len(n.backbone.rows) for n in (reference, candidate)]  # type: ignore[attr-defined]
        step.run()
        after = [len(n.backbone.rows) for n in (reference, candidate)]  # type: ignore[attr-defined]
        sides.append((step.side, after[0] - before[0], after[1] - before[1]))

    assert [("reference", 1, 0), ("reference", 1, 0), ("candidate", 0, 1)] == sides[:3]
    assert [("reference", 0, 0), ("candidate", 0, 0)] == sides[-2:]  # the clip's end
    assert verifier.n_done == verifier.result().n_snippets


def test_a_step_left_out_is_noticed() -> None:
    steps = Verifier(exact(), exact(), golden(), a_spec()).steps()
    next(steps)

    with pytest.raises(RuntimeError, match="a step of the reference was not run"):
        next(steps)


def test_there_is_no_result_before_the_end_and_no_second_run() -> None:
    verifier = Verifier(exact(), exact(), golden(), a_spec())
    with pytest.raises(RuntimeError, match="no result before its last step"):
        verifier.result()
    for step in verifier.steps():
        step.run()

    assert verifier.result().holds
    with pytest.raises(RuntimeError, match="used once"):
        next(verifier.steps())


def test_a_gap_in_the_footage_is_one_for_both() -> None:
    batch = frames(BUSY)
    late = np.where(np.arange(len(batch.pts_us)) < 100, 0, 3_000_000)
    holed = FrameBatch(batch.pts_us + late, batch.rgb, batch.n_decoded)
    seen = verify(exact(), exact(), GoldenSet("gap", (clip(holed, a_spec()),)), a_spec())

    assert seen.holds
    assert seen.events.n_reference > 2


def test_a_camera_that_the_model_knows_has_its_own_background() -> None:
    spec = a_spec(camera_mean=a_camera_mean())
    red = [(1.0, 127, 0), (2.0, 230, 0), (2.0, 127, 0)]
    seen = [
        verify(exact(), exact(), GoldenSet("x", (clip(frames(red), spec, camera),)), spec)
        for camera in ("red-door", "gate")
    ]

    assert [0, 1] == [found.events.n_reference for found in seen]


@pytest.mark.parametrize(
    ("n_reference", "n_candidate", "n_matched", "holds"),
    [
        (2, 1, 1, True),
        (1, 2, 1, True),
        (1, 0, 0, False),  # nothing is left of what there was
        (0, 1, 0, False),
        (2, 2, 1, False),
        (3, 1, 1, False),
        (10, 9, 9, True),
        (10, 8, 8, False),
        (20, 18, 18, True),
        (0, 0, 0, True),
    ],
)
def test_one_event_may_flip_where_others_agree(
    n_reference: int, n_candidate: int, n_matched: int, *, holds: bool
) -> None:
    same = verify(exact(), exact(), golden(), a_spec())
    events = Agreement(n_reference, n_candidate, n_matched, 1.0)

    assert holds == replace(same, events=events).holds


def test_only_the_classes_that_are_reported_count() -> None:
    deaf = changed("cas", lambda a, _: a * [1, 0])
    loose = Tolerance(score_max_error=1)

    assert verify(exact(), deaf, golden(), a_spec(), loose, class_indices=frozenset({0})).holds
    assert not verify(exact(), deaf, golden(), a_spec(), loose, class_indices=frozenset({1})).holds


def test_another_bundle_s_events_are_its_own_tracker_s() -> None:
    spec = replace(a_spec(), model_id="other@1").with_open_score(1.9)
    seen = verify(exact(), exact(), golden(), a_spec(), candidate_spec=spec)

    assert 0 == seen.events.n_candidate < seen.events.n_reference
    assert "other@1 on scripted against scripted@0 on scripted" == seen.table().splitlines()[0]
    assert not seen.holds


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"class_names": ("red", "blue")}, "class_names"),
        ({"grid": a_spec(stride_frames=2).grid}, "grid"),
        ({"window": a_spec(hop_snippets=2).window}, "window"),
    ],
)
def test_models_of_different_things_are_not_compared(change: dict[str, object], what: str) -> None:
    other = replace(a_spec(), model_id="other@1", **change)  # type: ignore[arg-type]

    with pytest.raises(BundleError, match=f"other@1 cannot be compared .*: its {what} is"):
        Verifier(exact(), exact(), golden(), a_spec(), candidate_spec=other)


numbers = st.floats(0, 1)
tolerances = st.builds(Tolerance, numbers, numbers, numbers)


@dataclass(frozen=True)
class Looser:
    """A tolerance, and one that admits at least as much."""

    tight: Tolerance
    loose: Tolerance


def looser(one: Tolerance, other: Tolerance) -> Looser:
    return Looser(
        Tolerance(
            max(one.feature_cosine_min, other.feature_cosine_min),
            min(one.score_max_error, other.score_max_error),
            max(one.event_f1_min, other.event_f1_min),
        ),
        one,
    )


@given(
    st.builds(looser, tolerances, tolerances),
    st.floats(-1, 1),
    st.floats(0) | st.just(float("nan")),
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
)
def test_a_looser_tolerance_never_refuses_what_a_tighter_one_admits(
    both: Looser, least: float, error: float, counts: tuple[int, int, int]
) -> None:
    n_reference, n_candidate, n = counts
    events = Agreement(n_reference, n_candidate, min(n, n_reference, n_candidate), 0.7)
    rows = (
        OutputError("features", 1, 0, 0, least, least),
        OutputError("scores", 1, error, error, 1, 1),
    )

    def found(tolerance: Tolerance) -> Verification:
        return Verification("a", "b", "c", "0" * 64, 1, rows, events, tolerance)

    assert found(both.loose).holds or not found(both.tight).holds
    assert found(both.loose).holds == (not found(both.loose).reasons)
    if np.isnan(error):
        assert not found(both.loose).holds


@pytest.mark.parametrize(
    "values",
    [
        {"feature_cosine_min": 1.01},
        {"score_max_error": -0.1},
        {"event_f1_min": float("nan")},
    ],
)
def test_a_tolerance_is_in_its_range(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(values))} is .*, wanted in \[0, 1\]"):
        Tolerance(**values)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([1, 0], [0, 1], 0),
        ([3, 4], [6, 8], 1),
        ([1, 1], [-2, -2], -1),
        ([0, 0], [0, 0], 1),
        ([0, 0], [1, 0], 0),
        ([1e300, 1e300], [1e-300, 1e-300], 1),
    ],
)
def test_the_cosine_of_any_two_vectors(
    first: list[float], second: list[float], wanted: float
) -> None:
    assert cosine(np.array(first), np.array(second)) == pytest.approx(wanted)


def test_a_tally_adds_up() -> None:
    tally = Tally("cas")
    assert tally.row() is None
    tally.add(np.array([[1, 0], [0, 0]], np.float32), np.array([[1, 0], [0, 0.5]], np.float32))
    tally.add(np.array([2], np.float32), np.array([1], np.float32))
    row = tally.row()

    assert row is not None
    assert (2, 1.0, (0.5 / 4 + 1) / 2) == (row.n_compared, row.max_error, row.mean_error)
    assert row.cosine_min == pytest.approx(1 / 1.25**0.5)
