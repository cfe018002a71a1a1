from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.backends.openvino.backend import open_openvino
from engine.backends.openvino.winograd import (
    INPUT,
    KERNEL,
    MIN_CHANNELS,
    OUTPUT,
    with_fast_convolutions,
)
from tests.support.error_bounds import HALF_ULP, Bounded, assert_within, convolved, gamma

PADS = (1,) * 6


def a_network(
    *,
    frames: int | str = 8,
    channels: int = MIN_CHANNELS,
    bias: bool = True,
    kernel: tuple[int, int, int] = (3, 3, 3),
    stride: int = 1,
    pads: tuple[int, ...] = PADS,
    whole_numbers: bool = False,
) -> onnx.ModelProto:
    """Doubling, one convolution, ReLU."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.05, (5, channels, *kernel)).astype(np.float32)
    if whole_numbers:  # multiples of 24, for KERNEL divides by it
        weight = (24 * rng.integers(-1, 2, weight.shape)).astype(np.float32)
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


def some_input(frames: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.normal(size=(2, MIN_CHANNELS, frames, 5, 4)).astype(np.float32)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    [y] = ReferenceEvaluator(model).run(None, {"x": x})
    return np.asarray(y)


def fast_form(plain: onnx.ModelProto) -> onnx.ModelProto:
    fast = with_fast_convolutions(plain)
    assert fast is not None
    assert sum(node.op_type == "Conv" for node in fast.graph.node) == 6
    onnx.checker.check_model(fast, full_check=True)
    return fast


def parameters(model: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """The plain network's weight and its bias, as a column; zeros if it has none."""
    arrays = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    weight = arrays["weight"]
    return weight, arrays.get("bias", np.zeros(len(weight))).reshape(-1, 1, 1, 1)


def plain_form_s_bound(model: onnx.ModelProto, x: np.ndarray) -> Bounded:
    weight, bias = parameters(model)
    doubled = Bounded.exactly(2.0 * x)  # by a power of two: exact
    return (convolved(doubled, weight, pads=PADS) + Bounded.exactly(bias)).relu()


def fast_form_s_bound(model: onnx.ModelProto, x: np.ndarray) -> Bounded:
    """The exact answer, and gamma times the fast form with every number's sign taken off.

    On the way from an input to an answer a term is rounded at most so often: SEEN times where
    inputs are combined, once where kernels are kept in float32, as often as a plane's convolution
    has terms, SEEN times where products are combined, and once for the bias.
    """
    weight, bias = parameters(model)
    seen = np.abs(np.pad(2.0 * x, [(0, 0), (0, 0), (1, 1), (0, 0), (0, 0)]))
    size = np.zeros((len(x), len(weight), *x.shape[2:]))
    tile, n_seen = OUTPUT.shape
    for first in range(0, x.shape[2], tile):
        for i in range(n_seen):
            mixed = np.einsum(
                "k,bckyx->bcyx", np.abs(INPUT[i]), seen[:, :, first : first + n_seen]
            )
            kernel = np.einsum("k,oikyx->oiyx", np.abs(KERNEL[i]), np.abs(weight).astype(float))
            plane = Bounded.exactly(mixed[:, :, None])
            product = convolved(plane, kernel[:, :, None], pads=(0, 1, 1, 0, 1, 1)).value
            size[:, :, first : first + tile] += (
                np.abs(OUTPUT[:, i]).reshape(1, 1, -1, 1, 1) * product
            )
    n_roundings = n_seen + 1 + 9 * MIN_CHANNELS + n_seen + 1
    exact = plain_form_s_bound(model, x).value
    return Bounded(exact, gamma(n_roundings) * (size + np.abs(bias)))


def test_the_three_matrices_compute_a_convolution() -> None:
    rng = np.random.default_rng(0)
    seen, kernel = rng.normal(size=6), rng.normal(size=3)
    made = OUTPUT @ ((KERNEL @ kernel) * (INPUT @ seen))
    wanted = np.correlate(seen, kernel, "valid")
    size = np.abs(OUTPUT) @ ((np.abs(KERNEL) @ np.abs(kernel)) * (np.abs(INPUT) @ np.abs(seen)))
    # Of one term: its share of KERNEL is rounded (1), 3 + 6 + 6 products summed, one multiplied;
    # the other side has 3 terms.
    assert_within(made, Bounded(wanted, gamma(1 + 15 + 1 + 3, HALF_ULP["float64"]) * size))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frames", [4, 8, 12])
def test_the_fast_form_is_the_same_to_the_bit_where_nothing_rounds(
    frames: int, *, bias: bool
) -> None:
    """Whole numbers: six of at most 20 are combined, 576 products of at most 20 * 24 summed, and
    those combined with shares of at most 19 together: all below 2^24, so exact in any order."""
    plain = a_network(frames=frames, bias=bias, whole_numbers=True)
    rng = np.random.default_rng(3)
    x = rng.integers(-1, 2, (2, MIN_CHANNELS, frames, 5, 4)).astype(np.float32)
    wanted = answer(plain, x)

    assert 10 * 2 * 24 * 9 * MIN_CHANNELS * 19 < 2**24
    assert wanted.std() > 100
    np.testing.assert_array_equal(answer(fast_form(plain), x), wanted)


@pytest.mark.numeric
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frames", [4, 8, 12])
def test_the_fast_form_rounds_no_worse_than_its_sums_must(frames: int, *, bias: bool) -> None:
    plain, x = a_network(frames=frames, bias=bias), some_input(frames)

    assert_within(answer(plain, x), plain_form_s_bound(plain, x))
    assert_within(answer(fast_form(plain), x), fast_form_s_bound(plain, x))


@pytest.mark.numeric
@pytest.mark.openvino
@pytest.mark.parametrize("flags", [["avx2"], ["avx2", "avx512f"]], ids=["fast", "plain"])
def test_openvino_computes_either_form_within_its_bound(tmp_path: Path, flags: list[str]) -> None:
    """The form a CPU without AVX-512 takes, and the one it takes with it, on whatever CPU."""
    pytest.importorskip("openvino")
    plain, x = a_network(), some_input(8)
    path = tmp_path / "network.onnx"
    onnx.save(plain, path)
    bound = fast_form_s_bound if flags == ["avx2"] else plain_form_s_bound
    backend = open_openvino(path, precision="f32", threads=1, cpu_flags=flags)
    seen = backend.run({"x": x})["y"]
    backend.close()

    assert_within(seen, bound(plain, x))


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
