"""What a device does with a network: rates and latencies by batch size, measured through ``run``.

So copies, padding and everything else that the product pays for are in every number. What it is
compared with, a chain of large matrix products, goes the same way in the same process. Nothing
here prints.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends.base import EngineBackend, Signature, Tensor
from engine.backends.network_flops import network_flops

# A 99th percentile of fewer calls is the slowest but one.
FEWEST_CALLS = 20
_NARROW = 8


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
        rows: Of the left matrix.
        width: Of the right one, a square.
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
        backend: Warm.
        batch: Rows of a call.
        length: Of a network's free dimensions after the first.
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
    """Inputs of a network: any bytes, and numbers from 0 to 1."""
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
    """Shapes of all inputs."""
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
    """(B, rows, 8) → (B, rows): little to copy, and all the work in products of one size.

    A relu between two products keeps a compiler from multiplying the weights beforehand.
    """
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - heavy

    kind = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}.get(
        precision, TensorProto.FLOAT
    )
    rng = np.random.default_rng(0)

    def weight(name: str, height: int) -> Any:
        values = rng.normal(0, height**-0.5, (height, size.width)).astype(np.float32)
        raw = values.astype(helper.tensor_dtype_to_np_dtype(kind))
        return numpy_helper.from_array(raw, name)

    nodes = [
        helper.make_node("Cast", ["given"], ["narrow"], to=kind),
        helper.make_node("MatMul", ["narrow", "widen"], ["wide0"]),
    ]
    for i in range(size.n_products):
        nodes.append(helper.make_node("MatMul", [f"wide{i}", "square"], [f"product{i}"]))
        nodes.append(helper.make_node("Relu", [f"product{i}"], [f"wide{i + 1}"]))
    nodes.append(helper.make_node("Cast", [f"wide{size.n_products}"], ["last"], to=1))
    nodes.append(helper.make_node("ReduceMax", ["last", "columns"], ["answer"], keepdims=0))
    columns = numpy_helper.from_array(np.array([2], np.int64), "columns")
    graph = helper.make_graph(
        nodes,
        "matmul",
        [helper.make_tensor_value_info("given", 1, ["B", size.rows, _NARROW])],
        [helper.make_tensor_value_info("answer", 1, ["B", size.rows])],
        [weight("widen", _NARROW), weight("square", size.width), columns],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model, full_check=True)
    return model


def in_turns(
    calls: Sequence[Callable[[], object]],
    seconds: float,
    clock_s: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of one call of each, called in turns: whatever else the machine does, all bear it.

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
