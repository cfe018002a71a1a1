"""Counting arithmetic and timing calls: the numbers that a benchmark is believed for."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator
from typing_extensions import override

from engine.backends.base import Signature, Tensor, TensorSpec
from engine.backends.network_flops import network_flops
from engine.backends.onnx_precision import precision_of
from engine.backends.openvino.backend import open_openvino
from engine.backends.profiles import profiles_for
from engine.backends.rates import (
    FEWEST_CALLS,
    MatMul,
    in_turns,
    matmul_gflop,
    matmul_network,
    random_question,
    time_calls,
)
from engine.backends.scripted import ScriptedBackend
from engine.backends.signatures import read_signature
from engine.backends.tensorrt.library import find_tensorrt
from engine.backends.tensorrt.plan_build import build_plan
from engine.errors import BundleError, DeviceError
from tests.support.real_parts import missing

NETWORK = """
<ir_version: 10, opset_import: ["": 18]>
network (float[B,2,6,6] image, float[B,T,4] rows) => (float[B,3] classes, float[B,T,5] out)
<float[4,2,3,3] kernels, float[3,36] heads, float[4,5] matrix, float[4,1,1,1] each> {
  maps = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(image, kernels)
  again = Conv<kernel_shape = [1, 1], group = 4>(maps, each)
  flat = Flatten(again)
  classes = Gemm<transB = 1>(flat, heads)
  out = MatMul(rows, matrix)
}
"""


def network() -> onnx.ModelProto:
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in (
        ("kernels", (4, 2, 3, 3)),
        ("heads", (3, 36)),
        ("matrix", (4, 5)),
        ("each", (4, 1, 1, 1)),
    ):
        weights = np.ones(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


def test_arithmetic_is_counted_as_by_hand() -> None:
    convolution = 2 * 4 * (3 * 3) * (2 * 3 * 3)  # 4 maps of 3x3, each a product of 2x3x3
    depthwise = 2 * 4 * (3 * 3) * 1
    gemm = 2 * 3 * 36
    matmul = 2 * 7 * 5 * 4
    one = {"image": (1, 2, 6, 6), "rows": (1, 7, 4)}
    ten = {"image": (10, 2, 6, 6), "rows": (10, 7, 4)}
    assert convolution + depthwise + gemm + matmul == network_flops(network(), one)
    assert 10 * network_flops(network(), one) == network_flops(network(), ten)


def test_an_input_without_a_shape_is_named() -> None:
    with pytest.raises(BundleError, match='no shape was given for input "rows"'):
        network_flops(network(), {"image": (1, 2, 6, 6)})


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "int8"])
def test_the_chain_of_products_multiplies_what_it_counts(precision: str) -> None:
    size = MatMul(rows=5, width=16, n_products=3)
    model = matmul_network(size, precision)
    assert (2 * 5 * 16 * 8 + 3 * 2 * 5 * 16 * 16) / 1e9 == matmul_gflop(model, size)
    given = np.ones((2, 5, 8), np.float32)
    answer = ReferenceEvaluator(model).run(None, {"given": given})[0]
    assert (2, 5) == answer.shape
    assert np.array_equal(answer[0], answer[1])


def test_products_of_int8_multiply_what_both_sides_were_rounded_to() -> None:
    model = matmul_network(MatMul(rows=5, width=16, n_products=3), "int8")
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] != "widen"]
    assert 3 == len(products)
    for taken in (name for node in products for name in node.input):
        pair = producers[taken]
        assert "DequantizeLinear" == pair.op_type
        assert (np.int8, 0) == (constants[pair.input[2]].dtype, constants[pair.input[2]])
    assert np.int8 == constants["square/int8"].dtype
    assert "int8" == precision_of(model.SerializeToString())


def test_products_of_int8_give_about_what_those_of_f32_give() -> None:
    size = MatMul(rows=64, width=64, n_products=4)
    given = np.random.default_rng(1).uniform(size=(1, 64, 8)).astype(np.float32)
    exact, rounded = (
        ReferenceEvaluator(matmul_network(size, precision)).run(None, {"given": given})[0]
        for precision in ("f32", "int8")
    )
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


@pytest.mark.openvino
def test_openvino_really_multiplies_in_int8(tmp_path: Path) -> None:
    size = MatMul(rows=64, width=64, n_products=3)
    kinds = {}
    for precision in ("f32", "int8"):
        path = tmp_path / f"{precision}.onnx"
        path.write_bytes(matmul_network(size, precision).SerializeToString())
        backend = open_openvino(path, precision="f32", threads=1)
        network = backend._alone.get_compiled_model().get_runtime_model()
        facts = [op.get_rt_info() for op in network.get_ordered_ops()]
        backend.close()
        kinds[precision] = [
            fact["primitiveType"].astype(str).lower().endswith("i8")
            for fact in facts
            if fact["layerType"].astype(str) in ("FullyConnected", "MatMul")
        ]
    assert [False] * 4 == kinds["f32"]
    assert [False, True, True, True] == kinds["int8"]  # the first one widens


@pytest.mark.tensorrt_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "int8"])
def test_tensorrt_takes_the_products_in_every_precision(precision: str, tmp_path: Path) -> None:
    try:
        rtx = find_tensorrt("tensorrt_rtx")
    except DeviceError as error:
        missing(f"{error}; or make setup-training")
    path = tmp_path / "matmul.onnx"
    path.write_bytes(matmul_network(MatMul(64, 64, 3), precision).SerializeToString())
    signature, _opset = read_signature(path)
    profiles = profiles_for(signature, batch_sizes=(1,), length=None)
    assert 0 < len(build_plan(rtx, path.read_bytes(), profiles).plan)


class Ticking:
    """A clock that goes on by what is spent."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def spend(self, cost_s: float) -> None:
        self.now_s += cost_s


class Costly(ScriptedBackend):
    """Gives back what it was given; each call costs the next of ``costs_s``."""

    def __init__(self, signature: Signature, clock: Ticking, costs_s: Iterable[float]) -> None:
        super().__init__(signature, lambda row: row)
        self._clock = clock
        self._costs_s = iter(costs_s)

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._clock.spend(next(self._costs_s))
        return super().run(tensors)


def test_rates_and_percentiles_are_those_of_the_calls() -> None:
    clock = Ticking()
    same = (TensorSpec("rgb", (None, None, 2), "uint8"),)
    costs_s = [99.0, *[0.010] * 99, 0.050]  # the first call is not timed
    timing = time_calls(Costly(Signature(same, same), clock, costs_s), 3, 7, 1.03, clock)
    assert (3, 100) == (timing.batch, timing.n_calls)
    assert pytest.approx(3 * 100 / 1.04) == timing.rows_per_s
    assert pytest.approx(10.0) == timing.p50_ms
    assert pytest.approx(10.4) == timing.p99_ms  # on the line between the two slowest


def test_questions_are_of_the_size_asked_for() -> None:
    given = (
        TensorSpec("rgb", (None, None, 2), "uint8"),
        TensorSpec("valid", (None, None), "float32"),
        TensorSpec("seen", (None,), "bool"),
    )
    question = random_question(Signature(given, ()), 3, 7)
    assert {"rgb": (3, 7, 2), "valid": (3, 7), "seen": (3,)} == {
        name: tensor.shape for name, tensor in question.items()
    }
    assert all(spec.admits(question[spec.name]) for spec in given)
    assert question["rgb"].max() > 200


def test_turns_are_shared_fairly() -> None:
    clock = Ticking()
    calls = (lambda: clock.spend(0.5), lambda: clock.spend(0.125))
    assert [0.5, 0.125] == in_turns(calls, 30.0, clock)
    assert pytest.approx(48 * 0.625) == clock.now_s
    n_calls: list[int] = []
    in_turns((lambda: n_calls.append(1),), 0.0, clock)
    assert FEWEST_CALLS == len(n_calls)
