"""``s2netd bench --device``: what the CPU or a GPU does with a bundle's two networks.

Every number comes from the backends' own ``run``. Ratios are taken inside one process, in turns
where it can be. Nothing here passes or fails.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from daemon.bench_device_report import DeviceFigures, markdown, table
from daemon.errors import ConfigError
from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.backends.device_bench import (
    CPU_MATMUL,
    GPU_MATMUL,
    MatMul,
    Timing,
    gflop_per_row,
    in_turns,
    matmul_gflop,
    matmul_network,
    random_question,
    time_calls,
)
from engine.backends.options import BackendOptions
from engine.backends.profiles import batch_sizes_up_to
from engine.backends.trt_backend import TensorRtBackend
from engine.bundle import ModelBundle, resolve_bundle

DeviceKind = Literal["cpu", "cuda"]
Open = Callable[[Path, BackendOptions], EngineBackend]

_MIB = 1 << 20
_MATMUL: dict[DeviceKind, MatMul] = {"cpu": CPU_MATMUL, "cuda": GPU_MATMUL}
_PROBE = MatMul(rows=8, width=8, n_products=1)
# Rows enough for four batches: the copies of three of them can overlap with work.
_OVERLAPPING = 4


@dataclass(frozen=True, slots=True)
class DeviceBenchOptions:
    """See `s2netd bench --help`.

    Attributes:
        bundles: Name or folder of each; those of one model in several precisions, say.
        device: ``cpu``: OpenVINO; ``cuda``: TensorRT.
        precision: As of ``open_backend``.
        max_batch: Largest batch.
        seconds: For each size of each network.
        leak_batches: Calls after which memory is compared.
        threads: Of the CPU.
        gpu: Index of the GPU.
    """

    bundles: tuple[str, ...]
    device: str = "cpu"
    precision: str = "auto"
    max_batch: int = 8
    seconds: float = 3.0
    leak_batches: int = 1000
    threads: int | None = None
    gpu: int = 0


def run_device_bench(
    options: DeviceBenchOptions,
    console: Console,
    *,
    as_json: bool,
    report: Path | None = None,
    opening: Open | None = None,
) -> tuple[DeviceFigures, ...]:
    """Measure, then print a table or JSON, and write a report.

    Args:
        options: What to measure.
        console: Where the result goes.
        as_json: JSON instead of a table.
        report: A Markdown file to write; None: none.
        opening: Opens a network; None: with the device's backend.

    Raises:
        ConfigError: An option is unknown.
        BundleError: A bundle cannot be read.
        DeviceError: The device or its runtime is missing or failed.
    """
    if options.device not in get_args(DeviceKind):
        raise ConfigError(f"--device is {options.device!r}, wanted one of {get_args(DeviceKind)}")
    device: DeviceKind = "cuda" if options.device == "cuda" else "cpu"
    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(f"--report {report}: there is no folder {report.parent}")
    status = Console(stderr=True)
    open_one = opening or _opening(options, device)
    figures = tuple(
        _measure(ModelBundle.load(resolve_bundle(name)), options, device, open_one, status)
        for name in options.bundles
    )
    if as_json:
        console.print_json(json.dumps([asdict(one) for one in figures]))
    else:
        for one in figures:
            console.print(table(one))
    if report is not None:
        report.write_text(markdown(figures), encoding="utf-8")
    return figures


def _opening(options: DeviceBenchOptions, device: DeviceKind) -> Open:
    kind = "tensorrt" if device == "cuda" else "openvino"
    return lambda path, sizes: open_backend(
        kind, path, precision=options.precision, threads=options.threads, options=sizes
    )


def _measure(
    bundle: ModelBundle,
    options: DeviceBenchOptions,
    device: DeviceKind,
    opening: Open,
    status: Console,
) -> DeviceFigures:
    length = bundle.spec.window.window_snippets
    sizes = BackendOptions(max_batch=options.max_batch, gpu=options.gpu)
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        used_mib = _memory_probe(device, bundle, opening, stack, Path(folder), options.gpu)
        before_mib = used_mib()
        backbone = stack.enter_context(closing(opening(bundle.backbone_path, sizes)))
        windows = replace(sizes, length=(length, length, length))
        localizer = stack.enter_context(closing(opening(bundle.localizer_path, windows)))
        with status.status(f"timing {backbone.description}"):
            of_backbone = _by_batch_size(backbone, length, options)
            of_localizer = _by_batch_size(localizer, length, options)
        taken_mib = used_mib() - before_mib
        with status.status(f"{options.leak_batches} more batches"):
            question = random_question(localizer.signature, options.max_batch, length)
            for _ in range(options.leak_batches):
                localizer.run(question)
        leaked_mib = used_mib() - before_mib - taken_mib
        gains = (0.0, 0.0)
        if device == "cuda":
            with status.status("with and without graphs and overlap"):
                gains = _gains(backbone, bundle.backbone_path, sizes, opening, options.seconds)
        gflop = gflop_per_row(bundle.backbone_path, backbone.signature, length)
        with status.status("beside matrix products"):
            batch = max(of_backbone, key=lambda timing: timing.rows_per_s).batch
            rates = _beside_matmul(
                _MATMUL[device], bundle, backbone, batch, batch * gflop, opening, options
            )
        return DeviceFigures(
            bundle=bundle.spec.model_id,
            description=backbone.description,
            backbone=of_backbone,
            localizer=of_localizer,
            backbone_gflop=gflop,
            backbone_tflops=rates[0],
            matmul_tflops=rates[1],
            matmul_share=rates[0] / rates[1],
            memory_mib=taken_mib,
            leaked_mib=leaked_mib,
            leak_batches=options.leak_batches,
            graph_gain=gains[0],
            overlap_gain=gains[1],
        )


def _by_batch_size(
    backend: EngineBackend, length: int, options: DeviceBenchOptions
) -> tuple[Timing, ...]:
    backend.warm_up()
    return tuple(
        time_calls(backend, batch, length, options.seconds)
        for batch in batch_sizes_up_to(options.max_batch)
    )


def _beside_matmul(
    size: MatMul,
    bundle: ModelBundle,
    backbone: EngineBackend,
    batch: int,
    gflop: float,
    opening: Open,
    options: DeviceBenchOptions,
) -> tuple[float, float]:
    """TFLOP/s of a batch of the backbone, and of matrix products, in turns."""
    network = matmul_network(size, bundle.card.precision)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "matmul.onnx")
        path.write_bytes(network.SerializeToString())
        one_row = BackendOptions(max_batch=1, gpu=options.gpu, cache_dir=Path(folder))
        with closing(opening(path, one_row)) as matmul:
            matmul.warm_up()
            rows = random_question(backbone.signature, batch, 1)
            given = random_question(matmul.signature, 1, 1)
            seconds = in_turns(
                (lambda: backbone.run(rows), lambda: matmul.run(given)), options.seconds
            )
    return gflop / seconds[0] / 1e3, matmul_gflop(network, size) / seconds[1] / 1e3


def _gains(
    backbone: EngineBackend, path: Path, sizes: BackendOptions, opening: Open, seconds: float
) -> tuple[float, float]:
    """What graphs bring to one row, and overlap to many batches."""
    many = random_question(backbone.signature, _OVERLAPPING * sizes.max_batch, 1)
    one = {name: rows[:1] for name, rows in many.items()}
    with closing(opening(path, replace(sizes, cuda_graphs=False))) as plain:
        plain.warm_up()
        recorded = in_turns((lambda: backbone.run(one), lambda: plain.run(one)), seconds)
    with closing(opening(path, replace(sizes, overlap=False))) as serial:
        serial.warm_up()
        overlapped = in_turns((lambda: backbone.run(many), lambda: serial.run(many)), seconds)
    return recorded[1] / recorded[0], overlapped[1] / overlapped[0]


def _memory_probe(
    device: DeviceKind,
    bundle: ModelBundle,
    opening: Open,
    stack: ExitStack,
    folder: Path,
    gpu: int,
) -> Callable[[], float]:
    """Tells the memory in use, in MiB: of the GPU, through a small network, or of the process."""
    if device == "cpu":
        return _resident_mib
    path = folder / "probe.onnx"
    path.write_bytes(matmul_network(_PROBE, bundle.card.precision).SerializeToString())
    probe = opening(path, BackendOptions(max_batch=1, gpu=gpu, cache_dir=folder))
    stack.callback(probe.close)
    if not isinstance(probe, TensorRtBackend):
        raise ConfigError(f"{probe.description} is no GPU")
    return lambda: (probe.memory().total - probe.memory().free) / _MIB


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
