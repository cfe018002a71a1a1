from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.cas import BackendLocalizer
from engine.features import BackendFeatureExtractor
from engine.files.onnx_bytes import serialized
from engine.published.kinetics400 import (
    FEATURE_DIM,
    GEOMETRY_160,
    N_CLASSES,
    NAME_160,
    STRIDE_160_FRAMES,
    build_localizer,
    class_names,
    model_card,
    smoothed_snippets,
)
from engine.session import StreamSession
from engine.straight_line import localize_frames
from engine.video.frames import read_video
from tests.support.error_bounds import FUNCTION_ROUNDINGS, Bounded, assert_within, gamma
from tests.support.i3d_parts import pulled_kinetics400

Array = npt.NDArray[np.float32]
HEAD = "params/Logits/Conv3d_0c_1x1/Conv_0"

pytestmark = [pytest.mark.openvino, pytest.mark.numeric]


def in_steps(values: npt.NDArray[np.float64], step: float, most: float) -> Array:
    return np.clip(np.round(values / step) * step, -most, most).astype(np.float32)


def made_up_head() -> dict[str, Array]:
    """In such steps that the logits of ``features`` are exact in float32, in any order of a sum:
    1024 products of at most 2 * 1 in steps of 2^-12, and the bias, stay below 2^24 steps."""
    rng = np.random.default_rng(7)
    kernel = rng.normal(0, 0.2, (1, 1, 1, FEATURE_DIM, N_CLASSES))
    return {
        f"{HEAD}/kernel": in_steps(kernel, 2**-7, 1),
        f"{HEAD}/bias": in_steps(rng.normal(size=N_CLASSES), 2**-7, 4),
    }


@pytest.fixture(scope="module")
def localizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineBackend]:
    path: Path = tmp_path_factory.mktemp("localizer") / "localizer.onnx"
    path.write_bytes(build_localizer(made_up_head(), 5).SerializeToString())
    backend = open_backend("openvino", path, precision="f32", threads=1)
    yield backend
    backend.close()


def features(n: int, seed: int = 0) -> Array:
    return in_steps(np.random.default_rng(seed).exponential(0.3, (n, FEATURE_DIM)), 2**-5, 2)


def run(backend: EngineBackend, rows: Array, valid: Array) -> tuple[Array, Array, Array]:
    answer = backend.run({"features": rows[None], "valid": valid[None].astype(np.float32)})
    cas, attention, scores = (
        answer[name][0].astype(np.float32) for name in ("cas", "attention", "video_scores")
    )
    return cas, attention, scores


def wanted(rows: Array, valid: Array) -> tuple[Bounded, Bounded, Bounded]:
    """The bundle's formula, in float64, and how far float32 may stray from it."""
    head = made_up_head()
    logits = rows.astype(np.float64) @ head[f"{HEAD}/kernel"][0, 0, 0] + head[f"{HEAD}/bias"]
    cas, attention = Bounded.exactly(np.zeros(logits.shape)), Bounded.exactly(np.zeros(len(rows)))
    for t in np.flatnonzero(valid):
        near = [s for s in range(t - 2, t + 3) if 0 <= s < len(rows) and valid[s]]
        # A sum over five, then divided by five and by their share that was seen, itself a mean.
        mean = Bounded.exactly(logits[near]).mean(0).rounded(3)
        exponents = (mean - Bounded.exactly(mean.value.max())).exp()
        p = exponents / exponents.sum(0, keepdims=True)
        held = Bounded(np.maximum(p.value, 1e-12), p.error)
        surprise = Bounded.exactly(np.log(held.value))
        surprise = Bounded(surprise.value, p.error / held.value * 1.01).rounded(FUNCTION_ROUNDINGS)
        doubt = (p * surprise).sum(0, keepdims=True) / Bounded.exactly(np.log(N_CLASSES)).rounded()
        sure = (doubt + Bounded.exactly(1.0))[0]
        cas.value[t], cas.error[t] = p.value, p.error
        attention.value[t], attention.error[t] = sure.value, sure.error
    product = cas * attention[:, None]
    total = product.sum(0)
    held = Bounded(np.maximum(total.value, 1e-12), total.error)
    return cas, attention, (product * product).sum(0) / held


@pytest.mark.parametrize(("length", "n_missing"), [(1, 0), (2, 0), (5, 3), (24, 0), (24, 23)])
def test_the_localizer_computes_the_documented_formula(
    localizer: EngineBackend, length: int, n_missing: int
) -> None:
    valid = np.arange(length) >= n_missing
    rows = features(length) * valid[:, None]
    cas, attention, scores = run(localizer, rows, valid)
    want_cas, want_attention, want_scores = wanted(rows, valid)
    assert_within(cas, want_cas)
    assert_within(attention, want_attention)
    assert_within(scores, want_scores)


@given(st.integers(1, 12), st.integers(0, 11), st.floats(0, 1000))
def test_answers_are_probabilities_and_zero_where_nothing_was_seen(
    localizer: EngineBackend, length: int, n_missing: int, size: float
) -> None:
    valid = np.arange(length) >= min(n_missing, length - 1)
    rows = (features(length, seed=length) * np.float32(size)) * valid[:, None]
    cas, attention, scores = run(localizer, rows.astype(np.float32), valid)
    for values in (cas, attention, scores):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        # A quotient by a sum the number is part of, a share of it, and their quotient: each is at
        # most 1 but for its own rounding and that of the sums it comes from.
        assert (values <= 1 + gamma(2 * N_CLASSES)).all()
    assert not cas[~valid].any()
    assert not attention[~valid].any()
    # 400 exponentials divided by their sum, whose own order is free: all terms are positive.
    one = np.ones(valid.sum())
    shares = cas[valid].astype(np.float64).sum(axis=1)
    assert_within(shares, Bounded(one, gamma(N_CLASSES + 1) * one))


def test_what_was_not_seen_has_no_influence(localizer: EngineBackend) -> None:
    rows = features(6)
    padded = np.concatenate([np.zeros((4, FEATURE_DIM), np.float32), rows])
    cas, attention, _ = run(localizer, rows, np.ones(6, np.float32))
    padded_cas, padded_attention, _ = run(localizer, padded, np.arange(10) >= 4)
    want_cas, want_attention, _ = wanted(rows, np.ones(6, np.float32))
    for seen_cas, seen_attention in ((cas, attention), (padded_cas[4:], padded_attention[4:])):
        assert_within(seen_cas, want_cas)
        assert_within(seen_attention, want_attention)


def test_guessing_gets_no_attention_and_certainty_all(localizer: EngineBackend) -> None:
    head = made_up_head()[f"{HEAD}/kernel"][0, 0, 0]
    sure = (head[:, 17] * 50).astype(np.float32)[None].repeat(5, axis=0)
    _, attention, _ = run(localizer, sure, np.ones(5, np.float32))
    assert attention.min() > 0.99
    unsure = np.zeros((5, FEATURE_DIM), np.float32)
    _, attention, _ = run(localizer, unsure, np.ones(5, np.float32))
    assert attention.max() < 0.1


def test_scores_kept_by_the_track_have_had_all_their_context() -> None:
    for stride in (8, 16):
        window = model_card(stride).window
        assert smoothed_snippets(stride) % 2 == 1
        assert smoothed_snippets(stride) // 2 < window.rescore_snippets
        assert smoothed_snippets(stride) // 2 <= window.window_snippets - window.rescore_snippets


def test_a_stride_of_eight_covers_the_same_seconds() -> None:
    coarse, fine = model_card(16), model_card(8)
    for name in ("window_snippets", "rescore_snippets", "track_snippets"):
        assert getattr(fine.window, name) == 2 * getattr(coarse.window, name)
    with pytest.raises(ValueError, match="16 is not a whole multiple of 12"):
        model_card(12)


def test_the_card_of_the_whole_picture_differs_in_name_grid_and_geometry_alone() -> None:
    card = model_card(STRIDE_160_FRAMES, GEOMETRY_160, NAME_160)
    assert card.name == "kinetics400-160"
    assert (card.geometry.resize_px, card.geometry.crop_px) == (160, 160)
    assert card.timeline.stride_frames == 8
    assert card == replace(model_card(8), name=card.name, geometry=card.geometry)


def test_a_localizer_built_twice_is_the_same_file() -> None:
    first, second = (serialized(build_localizer(made_up_head(), 5)) for _ in range(2))
    assert first == second


def test_the_card_names_400_classes() -> None:
    assert model_card().class_names == class_names()
    assert len(class_names()) == 400


def events_in(video: Path) -> list[tuple[str, float, float]]:
    """(class name, start, end) in seconds of every event that was not retracted."""
    bundle = pulled_kinetics400()
    spec = bundle.spec
    backbone, localizer = (
        open_backend("openvino", path, precision="f32")
        for path in (bundle.backbone_path, bundle.localizer_path)
    )
    found = localize_frames(
        read_video(video, spec.geometry, spec.grid),
        StreamSession("camera", "0", spec),
        BackendFeatureExtractor(backbone, spec.feature_dim),
        BackendLocalizer(localizer),
    )
    backbone.close()
    localizer.close()
    return [(e.class_name, e.span.start_us / 1e6, e.span.end_us / 1e6) for e in found.final]


@pytest.mark.weights
@pytest.mark.shared_data
@pytest.mark.slow
def test_opening_bottle_is_found_while_bottles_are_in_the_picture(shared_clips: Path) -> None:
    events = events_in(shared_clips / "bottle-detection.mp4")
    assert {label for label, _, _ in events} == {"opening bottle"}
    assert sum(end - start for _, start, end in events) > 0.75 * 39.8
    # Between 18 s and 22 s the last bottle is taken away or none is in the centre.
    assert not any(start < 20 < end for _, start, end in events)


@pytest.mark.weights
@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("clip", ["bikes.mp4", "fall.mp4", "coffee.mp4"])
def test_a_clip_without_any_of_the_400_actions_stays_quiet(clip: str, shared_clips: Path) -> None:
    assert events_in(shared_clips / clip) == []
