"""What a device does with a network: rates and latencies by batch size, measured through ``run``.

So every number includes copies, padding and everything else that the product pays for. The chain
of large matrix products that it is compared with goes the same way in the same process. Nothing
here prints.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.backends.base import EngineBackend, Signature, Tensor
from engine.backends.network_flops import network_flops
from engine.types import FloatArray

# A 99th percentile of fewer calls is the slowest but one.
FEWEST_CALLS = 20
_NARROW = 8
# Between the products of int8, few values go beyond this.
_INT8_REACH = 4
_INT8_HIGHEST = 127


@dataclass(frozen=True, slots=True)
class Timing:
    """Calls of one size.

    Attributes:
        batch: Rows of a call.
        n_calls: How many were timed.
        rows_per_s: Rows a second.
        p50_ms: Half of the calls were faster.
        p99_ms: All but one in a hundred were faster.
    """

    batch: int
    n_calls: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class MatMul:
    """The size of a chain of matrix products, each (rows, width) by (width, width).

    Attributes:
        rows: Rows of the left matrix.
        width: Side of the right one, a square.
        n_products: How many, one after another.
    """

    rows: int
    width: int
    n_products: int


# Some 0.1 s of work on a CPU of two cores, and some 10 ms on a GPU at 50 TFLOP/s.
CPU_MATMUL = MatMul(rows=1024, width=1024, n_products=4)
GPU_MATMUL = MatMul(rows=4096, width=2048, n_products=16)


def time_calls(
    backend: EngineBackend,
    batch: int,
    length: int,
    seconds: float,
    clock_s: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Call a warm backend again and again.

    Args:
        backend: A warm backend.
        batch: Rows of a call.
        length: Length of a network's free dimensions after the first.
        seconds: How long at least; and at least ``FEWEST_CALLS`` calls.
        clock_s: A clock that never goes back.
    """
    question = random_question(backend.signature, batch, length)
    backend.run(question)
    spent_s: list[float] = []
    while sum(spent_s) < seconds or len(spent_s) < FEWEST_CALLS:
        started_s = clock_s()
        backend.run(question)
        spent_s.append(clock_s() - started_s)
    p50_s, p99_s = np.percentile(spent_s, [50, 99])
    rate = batch * len(spent_s) / sum(spent_s)
    return Timing(batch, len(spent_s), rate, float(p50_s) * 1e3, float(p99_s) * 1e3)


def random_question(signature: Signature, batch: int, length: int) -> dict[str, Tensor]:
    """Random inputs by name, in the shapes of ``shapes_of``: any bytes, or numbers from 0 to 1."""
    rng = np.random.default_rng(0)
    question: dict[str, Tensor] = {}
    for name, shape in shapes_of(signature, batch, length).items():
        dtype = np.dtype(next(spec.dtype for spec in signature.inputs if spec.name == name))
        top = 256 if dtype == np.uint8 else 1
        question[name] = (
            rng.uniform(size=shape).astype(dtype)
            if dtype.kind == "f"
            else rng.integers(0, top, shape, endpoint=top == 1).astype(dtype)
        )
    return question


def shapes_of(signature: Signature, batch: int, length: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs, by name."""
    return {
        spec.name: (batch, *(length if n is None else n for n in spec.shape[1:]))
        for spec in signature.inputs
    }


def gflop_per_row(model_path: Path, signature: Signature, length: int) -> float:
    """Arithmetic of one row, in 10⁹ floating-point operations.

    Raises:
        BundleError: See ``network_flops``.
    """
    import onnx  # noqa: PLC0415 - heavy

    return network_flops(onnx.load(model_path), shapes_of(signature, 1, length)) / 1e9


def matmul_gflop(model: Any, size: MatMul) -> float:
    """Arithmetic of one row of ``matmul_network``, in 10⁹ floating-point operations."""
    return network_flops(model, {"given": (1, size.rows, _NARROW)}) / 1e9


def matmul_network(size: MatMul, precision: str) -> Any:
    """A network (B, rows, 8) → (B, rows): little to copy, all the work in products of one size.

    A relu between two products keeps a compiler from multiplying the weights beforehand. In int8,
    both operands of each product are rounded, by symmetric QDQ pairs as in a quantized backbone.

    Args:
        size: Size and number of the products.
        precision: ``f16``, ``bf16`` or ``int8``; anything else is f32.
    """
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - heavy

    kind = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}.get(
        precision, TensorProto.FLOAT
    )
    rng = np.random.default_rng(0)
    widen, square = _weight(rng, _NARROW, size.width), _weight(rng, size.width, size.width)
    of_kind = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"widen": widen.astype(of_kind), "columns": np.array([2], np.int64)}
    if precision == "int8":
        constants |= _int8_constants(square)
    else:
        constants["square"] = square.astype(of_kind)
    graph = helper.make_graph(
        _matmul_nodes(size, kind, is_int8=precision == "int8"),
        "matmul",
        [helper.make_tensor_value_info("given", 1, ["B", size.rows, _NARROW])],
        [helper.make_tensor_value_info("answer", 1, ["B", size.rows])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    checker.check_model(model, full_check=True)
    return model


def _weight(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A random matrix, float32 (H, W)."""
    # Behind a relu, values keep their size from product to product with this spread.
    return rng.normal(0, (2 / height) ** 0.5, (height, width)).astype(np.float32)


def _int8_constants(square: FloatArray) -> dict[str, npt.NDArray[Any]]:
    """The square (W, W) in int8, and its steps and zero point, scalars, by name."""
    step = np.float32(np.abs(square).max() / _INT8_HIGHEST)
    return {
        "square/int8": np.rint(square / step).astype(np.int8),
        "square/step": np.array(step),
        "wide/step": np.array(_INT8_REACH / _INT8_HIGHEST, np.float32),
        "zero": np.array(0, np.int8),
    }


def _matmul_nodes(size: MatMul, kind: int, *, is_int8: bool) -> list[Any]:
    from onnx import helper  # noqa: PLC0415 - heavy

    make = helper.make_node
    nodes = [
        make("Cast", ["given"], ["narrow"], to=kind),
        make("MatMul", ["narrow", "widen"], ["widened"]),
        make("Relu", ["widened"], ["wide0"]),
    ]
    if is_int8:
        nodes.append(make("DequantizeLinear", ["square/int8", "square/step", "zero"], ["square"]))
    for i in range(size.n_products):
        left = f"wide{i}"
        if is_int8:
            pair = ["wide/step", "zero"]
            nodes.append(make("QuantizeLinear", [left, *pair], [f"{left}/int8"]))
            left = f"{left}/rounded"
            nodes.append(make("DequantizeLinear", [f"wide{i}/int8", *pair], [left]))
        nodes.append(make("MatMul", [left, "square"], [f"product{i}"]))
        nodes.append(make("Relu", [f"product{i}"], [f"wide{i + 1}"]))
    nodes.append(make("Cast", [f"wide{size.n_products}"], ["last"], to=1))
    nodes.append(make("ReduceMax", ["last", "columns"], ["answer"], keepdims=0))
    return nodes


def in_turns(
    calls: Sequence[Callable[[], object]],
    seconds: float,
    clock_s: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of one call of each, called in turns, so that other work on the machine slows all.

    Args:
        calls: What to call, warm.
        seconds: How long at least, all together; and at least ``FEWEST_CALLS`` turns.
        clock_s: A clock that never goes back.
    """
    spent_s = [0.0] * len(calls)
    n_turns = 0
    while sum(spent_s) < seconds or n_turns < FEWEST_CALLS:
        for i, call in enumerate(calls):
            started_s = clock_s()
            call()
            spent_s[i] += clock_s() - started_s
        n_turns += 1
    return [spent / n_turns for spent in spent_s]
