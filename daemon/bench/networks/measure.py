"""Measures a bundle's two networks on a device: rates by batch size, memory, and comparisons."""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from daemon.bench.networks.opening import DeviceBench, OpenNetwork, opened
from daemon.bench.networks.report import DeviceFigures, NetworkFigures
from daemon.bench.networks.turns import Beside, Gains, beside_matmul, gains
from daemon.errors import ConfigError
from engine.backends.base import Tensor
from engine.backends.options import BackendOptions
from engine.backends.profiles import batch_sizes_up_to
from engine.backends.rates import (
    MatMul,
    Timing,
    gflop_per_row,
    matmul_network,
    random_question,
    time_calls,
)
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.bundle.model_bundle import ModelBundle

_MIB = 1 << 20
_PROBE = MatMul(rows=8, width=8, n_products=1)


def measure(bundle: ModelBundle, bench: DeviceBench, status: Console) -> DeviceFigures:
    """Measure everything about one bundle.

    Args:
        bundle: The bundle, whose networks are opened and closed again.
        bench: The device, and how to measure.
        status: Shows what is being measured.

    Raises:
        BundleError: The device cannot run a network.
        DeviceError: The device or its runtime is missing or failed.
    """
    length = bundle.spec.window.window_snippets
    sizes = BackendOptions(max_batch=bench.options.max_batch, gpu=bench.options.gpu)
    windows = replace(sizes, length=(length, length, length))
    with ExitStack() as stack:
        used_mib = _memory_probe(bench, stack)
        empty_mib = used_mib()
        backbone = stack.enter_context(opened(bench, bundle.backbone_path, sizes))
        localizer = stack.enter_context(opened(bench, bundle.localizer_path, windows))
        of_backbone = _by_batch_size(bench, backbone, length, status)
        of_localizer = _by_batch_size(bench, localizer, length, status)
        taken_mib = used_mib() - empty_mib
        snippets = random_question(backbone.backend.signature, _leak_rows(bench), length)
        features = random_question(localizer.backend.signature, sizes.max_batch, length)
        on_backbone = _figures(bench, backbone, of_backbone, snippets, used_mib, status)
        on_localizer = _figures(bench, localizer, of_localizer, features, used_mib, status)
        gflop = gflop_per_row(backbone.path, backbone.backend.signature, length)
        fastest = max(of_backbone, key=lambda timing: timing.rows_per_s)
        beside, gained = _compared(bench, backbone, sizes, fastest.batch, gflop, status)
    return DeviceFigures(
        bundle=bundle.spec.model_id,
        description=backbone.backend.description,
        backbone=on_backbone,
        localizer=on_localizer,
        backbone_gflop=gflop,
        **asdict(beside),
        matmul_share=beside.backbone_tflops / beside.matmul_tflops,
        memory_mib=taken_mib,
        leak_batches=bench.options.leak_batches,
        graph_gain=gained.graphs,
        overlap_gain=gained.overlap,
    )


def _leak_rows(bench: DeviceBench) -> int:
    # A CPU computes rows one by one, and one row of the backbone takes long enough.
    return 1 if bench.device == "cpu" else bench.options.max_batch


def _compared(
    bench: DeviceBench,
    backbone: OpenNetwork,
    sizes: BackendOptions,
    batch: int,
    gflop: float,
    status: Console,
) -> tuple[Beside, Gains]:
    with status.status("beside matrix products"):
        beside = beside_matmul(bench, backbone, batch, gflop)
    if bench.device == "cpu":
        return beside, Gains(0.0, 0.0)
    with status.status("with and without graphs and overlap"):
        return beside, gains(bench, backbone, sizes)


def _by_batch_size(
    bench: DeviceBench, network: OpenNetwork, length: int, status: Console
) -> tuple[Timing, ...]:
    with status.status(f"timing {network.path.name}, {network.backend.description}"):
        network.backend.warm_up()
        return tuple(
            time_calls(network.backend, batch, length, bench.options.seconds, bench.clock_s)
            for batch in batch_sizes_up_to(bench.options.max_batch)
        )


def _figures(
    bench: DeviceBench,
    network: OpenNetwork,
    timings: tuple[Timing, ...],
    question: Mapping[str, Tensor],
    used_mib: Callable[[], float],
    status: Console,
) -> NetworkFigures:
    """A network's figures: its timings, and the memory before and after ``leak_batches`` calls."""
    with status.status(f"{bench.options.leak_batches} more batches, {network.path.name}"):
        network.backend.run(question)
        before_mib = used_mib()
        for _ in range(bench.options.leak_batches):
            network.backend.run(question)
        after_mib = used_mib()
    return NetworkFigures(
        precision=network.precision,
        open_s=network.open_s,
        origin=network.origin,
        timings=timings,
        leak_rows=len(next(iter(question.values()))),
        before_mib=before_mib,
        after_mib=after_mib,
    )


def _memory_probe(bench: DeviceBench, stack: ExitStack) -> Callable[[], float]:
    """A function that tells the memory in use, in MiB, of the process or of the GPU.

    A GPU is asked through a small network, which is closed with the stack.
    """
    if bench.device == "cpu":
        return _resident_mib
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = folder / "probe.onnx"
    path.write_bytes(matmul_network(_PROBE, bench.options.precision).SerializeToString())
    sizes = BackendOptions(max_batch=1, gpu=bench.options.gpu, cache_dir=folder)
    probe = bench.opening(path, sizes)
    stack.callback(probe.close)
    if not isinstance(probe, TensorRtBackend):
        raise ConfigError(f"{probe.description} is no GPU")
    return lambda: (probe.memory().total - probe.memory().free) / _MIB


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
