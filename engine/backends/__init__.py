"""Inference backends. ``open_backend`` is the explicit table; grep finds every alternative."""

from pathlib import Path
from typing import Literal, get_args

from engine.backends.base import EngineBackend
from engine.errors import BundleError

BackendKind = Literal["openvino", "scripted"]
Precision = Literal["f32", "bf16", "auto"]


def open_backend(
    kind: str, model_path: Path, *, precision: str = "f32", threads: int | None = None
) -> EngineBackend:
    """Compile a network.

    Args:
        kind: ``openvino``, or ``scripted``: a dry run that answers zeros.
        model_path: An ONNX file.
        precision: ``f32``, ``bf16``, or ``auto``: bf16 on a CPU that multiplies bf16 matrices in
            hardware, else f32.
        threads: Threads for one call; None means one for each CPU this process may use.

    Raises:
        BundleError: The file is no network this backend can run, or an argument is unknown.
        DeviceError: The runtime is missing or failed, or the CPU has no such precision.
    """
    if precision not in get_args(Precision):
        raise BundleError(f"precision is {precision!r}, wanted one of {get_args(Precision)}")
    match kind:
        case "openvino":
            from engine.backends.openvino import open_openvino  # noqa: PLC0415 - heavy

            return open_openvino(model_path, precision=precision, threads=threads)
        case "scripted":
            from engine.backends.scripted import open_dry_run  # noqa: PLC0415 - needs onnx

            return open_dry_run(model_path)
        case _:
            raise BundleError(f"backend is {kind!r}, wanted one of {get_args(BackendKind)}")
