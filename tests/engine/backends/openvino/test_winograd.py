import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.backends.openvino.winograd import (
    INPUT,
    KERNEL,
    MIN_CHANNELS,
    OUTPUT,
    with_fast_convolutions,
)


def a_network(
    *,
    frames: int | str = 8,
    channels: int = MIN_CHANNELS,
    bias: bool = True,
    kernel: tuple[int, int, int] = (3, 3, 3),
    stride: int = 1,
    pads: tuple[int, ...] = (1,) * 6,
) -> onnx.ModelProto:
    """Doubling, one convolution, ReLU."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.05, (5, channels, *kernel)).astype(np.float32)
    tensors = [numpy_helper.from_array(weight, "weight")]
    if bias:
        tensors.append(numpy_helper.from_array(rng.normal(size=5).astype(np.float32), "bias"))
    inputs = ["doubled", *(tensor.name for tensor in tensors)]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("Conv", inputs, ["convolved"], pads=pads, strides=[stride] * 3),
        helper.make_node("Relu", ["convolved"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", channels, frames, 5, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 5, "t", "h", "w"])
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto, frames: int) -> np.ndarray:
    x = np.random.default_rng(2).normal(size=(2, MIN_CHANNELS, frames, 5, 4)).astype(np.float32)
    [y] = ReferenceEvaluator(model).run(None, {"x": x})
    return np.asarray(y)


def test_the_three_matrices_compute_a_convolution() -> None:
    rng = np.random.default_rng(0)
    seen, kernel = rng.normal(size=6), rng.normal(size=3)
    made = OUTPUT @ ((KERNEL @ kernel) * (INPUT @ seen))
    np.testing.assert_allclose(made, np.correlate(seen, kernel, "valid"), atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frames", [4, 8, 12])
def test_the_fast_form_gives_the_same_answer(frames: int, *, bias: bool) -> None:
    plain = a_network(frames=frames, bias=bias)
    fast = with_fast_convolutions(plain)
    assert fast is not None
    assert sum(node.op_type == "Conv" for node in fast.graph.node) == 6
    onnx.checker.check_model(fast, full_check=True)
    np.testing.assert_allclose(answer(fast, frames), answer(plain, frames), atol=2e-5)


def test_the_network_that_was_given_stays_as_it_is() -> None:
    plain = a_network()
    before = plain.SerializeToString(deterministic=True)
    with_fast_convolutions(plain)
    assert before == plain.SerializeToString(deterministic=True)


UNFIT = {
    "6 frames": a_network(frames=6),
    "unknown frames": a_network(frames="T"),
    "few channels": a_network(channels=MIN_CHANNELS - 1),
    "plane only": a_network(kernel=(1, 3, 3), pads=(0, 1, 1, 0, 1, 1)),
    "time only": a_network(kernel=(3, 1, 1), pads=(1, 0, 0, 1, 0, 0)),
    "stride 2": a_network(stride=2),
    "no padding": a_network(pads=(0,) * 6),
    "uneven padding": a_network(pads=(0, 1, 1, 2, 1, 1)),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_the_form_does_not_fit_is_left_alone(what: str) -> None:
    assert with_fast_convolutions(UNFIT[what]) is None
