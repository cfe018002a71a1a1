from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typing_extensions import override

from engine.backends.base import Signature, Tensor, TensorSpec
from engine.backends.scripted import ScriptedBackend
from engine.cas import BackendLocalizer
from engine.errors import BundleError
from engine.features import BackendFeatureExtractor
from engine.rounding import as_logged
from engine.types import FeatureWindow, FloatArray, Snippet, Span

BACKBONE = Signature(
    (TensorSpec("snippets", (None, 4, 2, 2, 3), "uint8"),),
    (TensorSpec("features", (None, 3), "float32"),),
)
LOCALIZER = Signature(
    (
        TensorSpec("features", (None, None, 3), "float32"),
        TensorSpec("valid", (None, None), "float32"),
    ),
    (
        TensorSpec("cas", (None, None, 2), "float32"),
        TensorSpec("attention", (None, None), "float32"),
        TensorSpec("video_scores", (None, 2), "float32"),
    ),
)


def floats32(least: float | None, most: float | None) -> st.SearchStrategy[float]:
    return st.floats(least, most, width=32)


def mean_colour(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"features": row["snippets"].mean(axis=(0, 1, 2), dtype=np.float32)}


def red_green(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    cas = row["features"][:, :2] * row["valid"][:, None]
    return {"cas": cas, "attention": row["valid"], "video_scores": cas.max(axis=0)}


def a_snippet(index: int, segment: int = 0) -> Snippet:
    rgb = np.full((4, 2, 2, 3), index, np.uint8)
    return Snippet(index, segment, Span(index, index + 1), rgb)


def a_window(first_index: int, n_missing: int = 0) -> FeatureWindow:
    valid = np.arange(5) >= n_missing
    features = np.full((5, 3), first_index / 100, np.float32) * valid[:, None]
    camera_mean = np.full(3, first_index, np.float32)
    return FeatureWindow(first_index, 3, features.astype(np.float32), valid, camera_mean)


def test_every_snippet_gets_its_own_feature_in_order() -> None:
    extractor = BackendFeatureExtractor(ScriptedBackend(BACKBONE, mean_colour), 3)
    found = extractor.extract([a_snippet(9), a_snippet(2, segment=1), a_snippet(4)])
    assert [(f.index, f.segment) for f in found] == [(9, 0), (2, 1), (4, 0)]
    assert [f.vector.tolist() for f in found] == [[9] * 3, [2] * 3, [4] * 3]
    assert {f.vector.dtype for f in found} == {np.dtype(np.float32)}
    assert extractor.feature_dim == 3


def test_features_are_given_as_a_log_in_half_precision_keeps_them() -> None:
    numbers = np.array([0.1, 1e6, -1e6], np.float32)
    backend = ScriptedBackend(BACKBONE, lambda _row: {"features": numbers})
    (found,) = BackendFeatureExtractor(backend, 3).extract([a_snippet(0)])

    assert [1638 / 2**14, 65504, -65504] == found.vector.tolist()
    assert np.float32 == found.vector.dtype


@given(arrays(np.float32, st.integers(0, 20), elements=floats32(-65504, 65504)))
def test_a_rounded_feature_is_its_nearest_half_and_stays_so(features: FloatArray) -> None:
    rounded = as_logged(features)
    assert np.array_equal(features.astype(np.float16), rounded)  # numpy rounds to nearest
    assert np.array_equal(as_logged(rounded), rounded)
    assert np.array_equal(as_logged(-features), -rounded)

    # Half of the last of 11 bits where float16 is normal, half of 2^-24 where it is not.
    exact = features.astype(np.float64)
    allowed = np.maximum(np.abs(exact) * 2.0**-11, 2.0**-25)
    assert (np.abs(rounded - exact) <= allowed).all()


@given(arrays(np.float32, st.integers(0, 20), elements=floats32(None, None)))
def test_rounding_keeps_the_order_and_what_is_not_finite(features: FloatArray) -> None:
    rounded = as_logged(features)
    rising = as_logged(np.sort(features[~np.isnan(features)]))
    assert (rising[:-1] <= rising[1:]).all()
    assert np.array_equal(np.isnan(features), np.isnan(rounded))
    assert np.array_equal(np.isinf(features), np.isinf(rounded))

    beyond = np.isfinite(features) & (np.abs(features) > 65504)
    assert (np.sign(features[beyond]) * 65504 == rounded[beyond]).all()


def test_a_row_is_rounded_alone_and_the_backends_array_is_left_as_it_is() -> None:
    features = np.array([[0.1, 0.2], [1e9, 3]], np.float32)
    before = features.copy()
    assert np.array_equal(as_logged(features)[0], as_logged(features[0]))
    assert np.array_equal(before, features)


def test_no_snippets_and_no_windows_need_no_device() -> None:
    def never(_row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise AssertionError

    assert BackendFeatureExtractor(ScriptedBackend(BACKBONE, never), 3).extract([]) == []
    assert BackendLocalizer(ScriptedBackend(LOCALIZER, never)).localize([]) == []


def test_every_window_gets_its_own_answer_in_order() -> None:
    localizer = BackendLocalizer(ScriptedBackend(LOCALIZER, red_green))
    windows = [a_window(50), a_window(-2, n_missing=2)]
    found = localizer.localize(windows)
    assert [(w.first_index, w.segment) for w in found] == [(50, 3), (-2, 3)]
    for window, answer in zip(windows, found, strict=True):
        assert np.array_equal(answer.cas, window.features[:, :2])
        assert np.array_equal(answer.attention, window.valid)
        assert answer.valid is window.valid


def test_a_localizer_with_the_input_gets_each_windows_background() -> None:
    def centred(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return red_green({**row, "features": row["features"] - row["background"]})

    inputs = (*LOCALIZER.inputs, TensorSpec("background", (None, 3), "float32"))
    localizer = BackendLocalizer(ScriptedBackend(Signature(inputs, LOCALIZER.outputs), centred))
    windows = [a_window(50), a_window(7)]
    found = localizer.localize(windows)
    for window, answer in zip(windows, found, strict=True):
        assert np.array_equal(answer.cas, (window.features - window.camera_mean)[:, :2])


def test_a_localizer_without_the_input_gets_none() -> None:
    seen: list[set[str]] = []

    class Watching(ScriptedBackend):
        @override
        def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            seen.append(set(tensors))
            return super().run(tensors)

    BackendLocalizer(Watching(LOCALIZER, red_green)).localize([a_window(50)])
    assert seen == [{"features", "valid"}]


def test_a_backbone_of_another_width_is_refused() -> None:
    with pytest.raises(BundleError, match=r"wanted features float32 \(B, 1024\)"):
        BackendFeatureExtractor(ScriptedBackend(BACKBONE, mean_colour), 1024)


def test_a_localizer_without_attention_is_refused() -> None:
    backend = ScriptedBackend(Signature(LOCALIZER.inputs, LOCALIZER.outputs[:1]), red_green)
    with pytest.raises(BundleError, match=r"the localizer gives \['cas'\], wanted"):
        BackendLocalizer(backend)


def test_a_scripted_answer_of_another_shape_is_caught() -> None:
    backend = ScriptedBackend(BACKBONE, lambda _row: {"features": np.zeros(4, np.float32)})
    with pytest.raises(BundleError, match='"features" is float32'):
        BackendFeatureExtractor(backend, 3).extract([a_snippet(0)])


def test_a_file_of_another_dtype_is_described_not_guessed(tmp_path: Path) -> None:
    from engine.backends.signatures import read_signature  # noqa: PLC0415

    text = (
        '<ir_version: 10, opset_import: ["": 18]> g (int64[N,2] x) => (int64[N,2] y) {y = Neg(x)}'
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "x.onnx")
    signature, opset = read_signature(tmp_path / "x.onnx")
    assert signature.inputs == (TensorSpec("x", (None, 2), "int64"),)
    assert opset == 18
