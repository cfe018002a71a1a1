"""One backbone in torch and in OpenVINO: the same network gives the same features."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.files.onnx_bytes import checked_model
from engine.published.i3d import same_padding
from tests.support.error_bounds import gamma
from tests.support.i3d_parts import snippets_of
from tests.support.i3d_reference import FEATURES_APART
from tests.support.real_parts import missing

pytestmark = [pytest.mark.torch, pytest.mark.openvino, pytest.mark.numeric]

LENGTH, SIDE, CHANNELS = 6, 15, 4
OUTSIDE = 5.0  # what pixels of 0 become: a border padded with it would be seen


@pytest.fixture(scope="module")
def open_torch() -> Callable[[Path], Any]:
    try:
        from training.benchmarks.runtimes_torch import TorchBackbone  # noqa: PLC0415 - torch may be missing
    except ImportError as error:
        missing(f"no torch ({error}): pip install 's2netd[training]'")
    return lambda path: TorchBackbone(path, threads=2)


def pixel_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["snippets"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["pixels"], perm=[0, 4, 1, 2, 3]),
    ]


def inception_nodes(kernel: tuple[int, int, int], stride: int) -> list[onnx.NodeProto]:
    """A convolution with SAME padding, then two branches, one of them pooled."""
    extent, strides = (LENGTH, SIDE, SIDE), (stride,) * 3
    inside = tuple(-(-size // stride) for size in extent)
    pooling = (3, 2, 3)
    one = {"kernel_shape": (1, 1, 1), "strides": (1, 1, 1), "pads": [0] * 6}
    conv = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": same_padding(extent, kernel, strides),
    }
    pool = {
        "kernel_shape": pooling,
        "strides": (1, 1, 1),
        "pads": same_padding(inside, pooling, (1, 1, 1)),
    }
    return [
        helper.make_node("Conv", ["pixels", "weight", "bias"], ["convolved"], **conv),
        helper.make_node("Relu", ["convolved"], ["net"]),
        helper.make_node("MaxPool", ["net"], ["pooled"], **pool),
        helper.make_node("Conv", ["pooled", "weight_1", "bias_1"], ["branch"], **one),
        helper.make_node("Relu", ["branch"], ["branch_relu"]),
        helper.make_node("Concat", ["net", "branch_relu"], ["mixed"], axis=1),
    ]


AVERAGED = {
    "GlobalAveragePool": [
        helper.make_node("GlobalAveragePool", ["mixed"], ["average"]),
        helper.make_node("Flatten", ["average"], ["features"], axis=1),
    ],
    "ReduceMean": [
        helper.make_node("ReduceMean", ["mixed", "axes"], ["features"], keepdims=0),
    ],
    "Reshape": [
        helper.make_node("ReduceMean", ["mixed", "axes"], ["average"], keepdims=1),
        helper.make_node("Reshape", ["average", "flat"], ["features"]),
    ],
}


def write_network(
    path: Path, kernel: tuple[int, int, int], stride: int, tail: list[onnx.NodeProto]
) -> Path:
    """All numbers are steps of a power of two, so few that no sum before the average rounds:
    pixels below 8 in steps of 2^-8, weights -1, 0 and 1, 27 * 3 and then 4 of them summed."""
    rng = np.random.default_rng(1)

    def weight(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return rng.integers(-1, 2, shape).astype(np.float32)

    assert 8 * 2**8 * (36 * 3 + 1) * CHANNELS < 2**24
    arrays = {
        "mean": np.float32(127.5),
        "scale": np.float32(1 / 128),
        "shift": np.float32(OUTSIDE + 1),
        "weight": weight(CHANNELS, 3, *kernel),
        "bias": weight(CHANNELS),
        "weight_1": weight(CHANNELS, CHANNELS, 1, 1, 1),
        "bias_1": weight(CHANNELS),
        "axes": np.array([2, 3, 4], np.int64),
        "flat": np.array([-1, 2 * CHANNELS], np.int64),
    }
    nodes = [*pixel_nodes(), *inception_nodes(kernel, stride), *tail]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(
                "snippets", TensorProto.UINT8, ["B", LENGTH, SIDE, SIDE, 3]
            )
        ],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", 2 * CHANNELS])],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in arrays.items()
            if name in used
        ],
    )
    path.write_bytes(checked_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("tail", list(AVERAGED))
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), 1), ((2, 4, 3), 2), ((1, 1, 1), 1)])
def test_a_small_network_gives_the_same_in_both(tmp_path, open_torch, kernel, stride, tail):
    path = write_network(tmp_path / "small.onnx", kernel, stride, AVERAGED[tail])
    snippets = np.random.default_rng(2).integers(0, 256, (3, LENGTH, SIDE, SIDE, 3), np.uint8)
    backend = open_backend("openvino", path, precision="f32", threads=2)
    wanted = backend.run({"snippets": snippets})["features"]
    backend.close()

    seen = open_torch(path).run(snippets)

    assert ((3, 2 * CHANNELS), np.float32) == (seen.shape, seen.dtype)
    assert wanted.std() > 0.1
    # What is averaged is exact and not negative; both sides sum it and divide, in any order.
    np.testing.assert_allclose(seen, wanted, rtol=2 * gamma(LENGTH * SIDE * SIDE + 1), atol=0)


def test_an_operator_it_does_not_know_is_named(tmp_path, open_torch):
    tail = [
        helper.make_node("ReduceMean", ["mixed", "axes"], ["average"], keepdims=0),
        helper.make_node("Softmax", ["average"], ["features"]),
    ]
    path = write_network(tmp_path / "small.onnx", (1, 1, 1), 1, tail)

    with pytest.raises(KeyError, match="Softmax"):
        open_torch(path).run(np.zeros((1, LENGTH, SIDE, SIDE, 3), np.uint8))


@pytest.mark.weights
@pytest.mark.slow
def test_the_real_backbone_gives_the_same_in_both(open_torch, kinetics400):
    bundle = ModelBundle.load(kinetics400)
    side, length = bundle.spec.geometry.crop_px, bundle.spec.grid.snippet_frames
    noise = np.random.default_rng(3).integers(0, 256, (1, length, side, side, 3), np.uint8)
    _assert_real_backbones_agree(bundle, open_torch, noise)


@pytest.mark.weights
@pytest.mark.shared_data
@pytest.mark.slow
def test_the_real_backbone_gives_the_same_for_a_real_clip(open_torch, kinetics400, shared_clips):
    bundle = ModelBundle.load(kinetics400)
    [snippet] = snippets_of(shared_clips / "bottle-detection.mp4", bundle, 1)
    _assert_real_backbones_agree(bundle, open_torch, snippet.rgb[None])


def _assert_real_backbones_agree(bundle, open_torch, snippets) -> None:
    backend = open_backend("openvino", bundle.backbone_path, precision="f32", threads=2)
    wanted = backend.run({"snippets": snippets})["features"]
    backend.close()
    seen = open_torch(bundle.backbone_path).run(snippets)

    assert wanted.std() > 0.01
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=FEATURES_APART)
