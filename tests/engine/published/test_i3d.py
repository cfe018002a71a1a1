import hashlib
import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.backends import open_backend
from engine.files.onnx_bytes import serialized
from engine.published.i3d import _Builder, build_backbone, folded_convolution, same_padding
from engine.published.kinetics400 import class_names
from engine.types import FloatArray
from tests.support.error_bounds import Bounded, assert_within, gamma
from tests.support.i3d_parts import published_arrays, pulled_kinetics400, snippets_of
from tests.support.i3d_reference import (
    FEATURES_APART,
    LOGITS_APART,
    features_and_logits,
    pad_same,
)


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("step", [1, 2])
def test_padding_gives_ceil_of_size_over_stride_and_never_more_than_needed(
    size: int, width: int, step: int
) -> None:
    pads = same_padding((size,) * 3, (width,) * 3, (step,) * 3)
    before, after = pads[0], pads[3]
    assert (size + before + after - width) // step + 1 == -(-size // step) or before == after == 0
    assert 0 <= after - before <= 1
    padded = pad_same(np.zeros((size, size, size, 1), np.float32), (width,) * 3, (step,) * 3, 0)
    assert padded.shape[0] == size + before + after


def test_a_folded_convolution_equals_convolution_then_batch_norm() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(1, 1, 1, 5, 4)).astype(np.float32)
    mean, shift = rng.normal(size=(2, 4)).astype(np.float32)
    variance = rng.uniform(0.1, 4, size=4).astype(np.float32)
    arrays = {
        "params/x/Conv_0/kernel": kernel,
        "params/x/BatchNorm_0/bias": shift,
        "batch_stats/x/BatchNorm_0/mean": mean.reshape(1, 1, 1, 1, 4),
        "batch_stats/x/BatchNorm_0/var": variance.reshape(1, 1, 1, 1, 4),
    }
    weight, bias = folded_convolution(arrays, "x", (1, 1, 1, 5, 4))
    seen = rng.normal(size=(7, 5))
    deviation = np.sqrt(variance.astype(np.float64) + 1e-3)
    convolved = seen @ kernel[0, 0, 0].astype(np.float64)
    wanted = (convolved - mean) / deviation + shift
    folded = seen @ weight[:, :, 0, 0, 0].T.astype(np.float64) + bias
    # Folded in float64; then each weight and bias is rounded to float32, once.
    size = np.abs(seen) @ np.abs(kernel[0, 0, 0] / deviation) + np.abs(shift - mean / deviation)
    assert_within(folded, Bounded(wanted, gamma(1) * size * (1 + 1e-6)))


def test_a_missing_array_is_named() -> None:
    with pytest.raises(KeyError, match="no array params/Conv3d_1a_7x7/Conv_0/kernel"):
        build_backbone({}, 16)


def test_an_array_of_another_shape_is_named_with_both_shapes() -> None:
    arrays = {"params/Conv3d_1a_7x7/Conv_0/kernel": np.zeros((3, 3, 3, 3, 64), np.float32)}
    with pytest.raises(
        ValueError, match=r"kernel is \(3, 3, 3, 3, 64\), wanted \(7, 7, 7, 3, 64\)"
    ):
        build_backbone(arrays, 16)


@pytest.mark.numeric
@pytest.mark.weights
@pytest.mark.openvino
@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("clip", ["bottle-detection.mp4", "exercise.avi"])
def test_features_and_logits_equal_an_independent_forward_pass(
    clip: str, shared_clips: Path
) -> None:
    bundle, arrays = pulled_kinetics400(), published_arrays()
    [snippet] = snippets_of(shared_clips / clip, bundle, 1)
    features, logits = features_and_logits(snippet.rgb, arrays)
    backbone = open_backend("openvino", bundle.backbone_path, precision="f32", threads=2)
    seen = backbone.run({"snippets": snippet.rgb[None]})["features"][0]
    np.testing.assert_allclose(seen, features, rtol=0, atol=FEATURES_APART)
    # Without neighbours the localizer's probabilities are the softmax of the published logits.
    localizer = open_backend("openvino", bundle.localizer_path, precision="f32", threads=2)
    given = localizer.run({"features": seen[None, None], "valid": np.ones((1, 1), np.float32)})[
        "cas"
    ][0, 0]
    shifted = np.log(given) - np.log(given).max()
    # The largest logit, which is subtracted, is off as well.
    wanted = logits - logits.max()
    np.testing.assert_allclose(shifted, wanted, rtol=0, atol=2 * LOGITS_APART)


@pytest.mark.numeric
@pytest.mark.weights
@pytest.mark.openvino
@pytest.mark.slow
def test_features_of_noise_equal_an_independent_forward_pass() -> None:
    bundle, arrays = pulled_kinetics400(), published_arrays()
    rgb = np.random.default_rng(3).integers(0, 256, (16, 224, 224, 3), np.uint8)
    backbone = open_backend("openvino", bundle.backbone_path, precision="f32", threads=2)
    seen = backbone.run({"snippets": rgb[None]})["features"][0]
    wanted = features_and_logits(rgb, arrays)[0]
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=FEATURES_APART)


def test_there_are_400_class_names_in_the_published_order() -> None:
    names = class_names()
    assert len(set(names)) == 400
    assert [names[i] for i in (0, 5, 399)] == ["abseiling", "archery", "zumba"]
    assert "opening bottle" in names


def a_first_layer() -> bytes:
    """Pixels, one folded convolution, a pool and the average, with made-up weights."""

    def made_up(*shape: int) -> FloatArray:
        values = np.arange(math.prod(shape), dtype=np.float64) % 17 + 1
        return (values / 64).astype(np.float32).reshape(shape)

    build = _Builder(
        {
            "params/x/Conv_0/kernel": made_up(3, 3, 3, 3, 4),
            "params/x/BatchNorm_0/bias": made_up(4),
            "batch_stats/x/BatchNorm_0/mean": made_up(1, 1, 1, 1, 4),
            "batch_stats/x/BatchNorm_0/var": made_up(1, 1, 1, 1, 4),
        }
    )
    net = build.unit(build.pixels((16, 32, 32)), "x", 4, (3, 3, 3), (2, 2, 2))
    net = build.max_pool(net, "pool", (1, 3, 3), (1, 2, 2))
    return serialized(build.finish(net, 16, 32))


@pytest.mark.numeric
def test_the_same_weights_are_the_same_file_everywhere() -> None:
    """Written down once: a library that writes other bytes would change every bundle's name.

    No CPU does: folding takes a root, quotients, products and differences of single numbers,
    which IEEE 754 rounds correctly in every vector width; nothing is summed.
    """
    digest = hashlib.sha256(a_first_layer()).hexdigest()
    assert digest == "039fe35c2aeea40e90f334d1660dab8547d2999c86876639f0a8535f968f313a"
    assert a_first_layer() == a_first_layer()
    assert not onnx.load_from_string(a_first_layer()).HasField("producer_version")
