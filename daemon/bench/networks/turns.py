"""Compares a network in turns with matrix products, and with itself without graphs or overlap."""

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.bench.networks.opening import DeviceBench, DeviceKind, OpenNetwork
from engine.backends.base import EngineBackend
from engine.backends.options import BackendOptions
from engine.backends.rates import (
    CPU_MATMUL,
    GPU_MATMUL,
    MatMul,
    in_turns,
    matmul_gflop,
    matmul_network,
    random_question,
)
from engine.errors import BundleError, DeviceError

_MATMUL: dict[DeviceKind, MatMul] = {"cpu": CPU_MATMUL, "cuda": GPU_MATMUL}
# The precision of the products if the device cannot multiply matrices in int8.
_INSTEAD_OF_INT8: dict[DeviceKind, str] = {"cpu": "f32", "cuda": "f16"}
# Batches in a call that shows the gain of overlap; the copies of three can overlap with work.
_OVERLAPPING = 4


@dataclass(frozen=True, slots=True)
class Beside:
    """The rates of a backbone and of matrix products.

    Attributes:
        backbone_tflops: The backbone's rate, in 10¹² operations a second.
        matmul_tflops: The products' rate, in 10¹² operations a second.
        matmul_precision: The products' precision.
    """

    backbone_tflops: float
    matmul_tflops: float
    matmul_precision: str


@dataclass(frozen=True, slots=True)
class Gains:
    """How many times as fast the GPU is with graphs, and with overlap, as without.

    Attributes:
        graphs: The gain of CUDA graphs, for one row.
        overlap: The gain of copies that overlap with work, for many batches.
    """

    graphs: float
    overlap: float


@dataclass(frozen=True, slots=True)
class _Products:
    backend: EngineBackend
    network: Any
    precision: str


def beside_matmul(bench: DeviceBench, backbone: OpenNetwork, batch: int, gflop: float) -> Beside:
    """Measure the rates of a batch of the backbone and of matrix products, in turns.

    Args:
        bench: The device, and how to measure.
        backbone: The backbone, warm.
        batch: How many rows a call has.
        gflop: Arithmetic of one row, in 10⁹ operations.

    Raises:
        BundleError: The device cannot run the products.
        DeviceError: The device failed.
    """
    size = _MATMUL[bench.device]
    with tempfile.TemporaryDirectory() as folder:
        products = _open_products(bench, backbone, size, Path(folder))
        with closing(products.backend) as matmul:
            matmul.warm_up()
            rows = random_question(backbone.backend.signature, batch, 1)
            given = random_question(matmul.signature, 1, 1)
            seconds = in_turns(
                (lambda: backbone.backend.run(rows), lambda: matmul.run(given)),
                bench.options.seconds,
                bench.clock_s,
            )
    return Beside(
        batch * gflop / seconds[0] / 1e3,
        matmul_gflop(products.network, size) / seconds[1] / 1e3,
        products.precision,
    )


def _open_products(
    bench: DeviceBench, backbone: OpenNetwork, size: MatMul, folder: Path
) -> _Products:
    """Open the products in the precision that the backbone is computed in, if the device can."""
    precision = backbone.precision
    if precision == "int8":
        try:
            return _opened_products(bench, size, precision, folder)
        except (BundleError, DeviceError):
            precision = _INSTEAD_OF_INT8[bench.device]
    return _opened_products(bench, size, precision, folder)


def _opened_products(bench: DeviceBench, size: MatMul, precision: str, folder: Path) -> _Products:
    network = matmul_network(size, precision)
    path = folder / f"matmul-{precision}.onnx"
    path.write_bytes(network.SerializeToString())
    one_row = BackendOptions(max_batch=1, gpu=bench.options.gpu, cache_dir=folder)
    backend = bench.opening(path, one_row)
    return _Products(backend, network, bench.computed_in(precision, backend.description))


def gains(bench: DeviceBench, backbone: OpenNetwork, sizes: BackendOptions) -> Gains:
    """Measure what graphs bring to one row, and overlap to many batches.

    Args:
        bench: The device, and how to measure.
        backbone: The backbone, warm, opened with graphs and overlap.
        sizes: The options that it was opened with.

    Raises:
        DeviceError: The device failed.
    """
    whole, seconds = backbone.backend, bench.options.seconds
    many = random_question(whole.signature, _OVERLAPPING * sizes.max_batch, 1)
    one = {name: rows[:1] for name, rows in many.items()}
    with closing(bench.opening(backbone.path, replace(sizes, cuda_graphs=False))) as plain:
        plain.warm_up()
        calls = (lambda: whole.run(one), lambda: plain.run(one))
        with_graphs_s, without_graphs_s = in_turns(calls, seconds, bench.clock_s)
    with closing(bench.opening(backbone.path, replace(sizes, overlap=False))) as serial:
        serial.warm_up()
        calls = (lambda: whole.run(many), lambda: serial.run(many))
        overlapped_s, serial_s = in_turns(calls, seconds, bench.clock_s)
    return Gains(without_graphs_s / with_graphs_s, serial_s / overlapped_s)
