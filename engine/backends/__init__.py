"""What runs a network: ``open_backend`` is the table of all there are.

Which network of a bundle is run, and what its tensors mean, is in `engine.bundle`.
"""

from pathlib import Path

from engine.backends.base import EngineBackend
from engine.backends.names import BackendKind, check_backend
from engine.backends.options import BackendOptions


def open_backend(
    kind: str,
    model_path: Path,
    *,
    precision: str = "f32",
    threads: int | None = None,
    options: BackendOptions | None = None,
) -> EngineBackend:
    """Compile a network. The thread that calls this is the one that uses and closes it.

    Args:
        kind: ``openvino`` on the CPU, ``tensorrt`` on an NVIDIA GPU, or ``scripted``: a dry run
            that answers zeros.
        model_path: An ONNX file.
        precision: Of OpenVINO ``f32`` or ``bf16``, for all that the file does not hold in int8.
            TensorRT runs a network as it was exported: ``auto`` and ``f32`` mean that, and
            anything else is held against the file.
        threads: Threads for one call; None means one for each CPU this process may use.
        options: What a GPU needs to know besides. OpenVINO takes ``max_batch`` alone from it; 1
            if None.

    Raises:
        BundleError: The file is no network this backend can run, or an argument is unknown.
        DeviceError: The runtime is missing or failed, or the CPU has no such precision.
    """
    # What a person may ask of OpenVINO is more than it takes: the rest is chosen before.
    checked: BackendKind = "openvino" if kind == "openvino" else check_backend(kind, precision)
    match checked:
        case "openvino":
            from engine.backends.openvino.backend import open_openvino  # noqa: PLC0415 - heavy

            return open_openvino(
                model_path,
                precision=precision,
                threads=threads,
                max_batch=options.max_batch if options else 1,
            )
        case "tensorrt":
            from engine.backends.tensorrt.opening import open_tensorrt  # noqa: PLC0415 - heavy

            return open_tensorrt(
                model_path, precision=precision, options=options or BackendOptions()
            )
        case "scripted":
            from engine.backends.scripted import open_dry_run  # noqa: PLC0415 - needs onnx

            return open_dry_run(model_path)


def check_installed(kind: str) -> None:
    """Is there what a backend is made of? No device is touched.

    Args:
        kind: As for ``open_backend``.

    Raises:
        DeviceError: No; says what to install.
    """
    match kind:
        case "openvino":
            from engine.backends.openvino.backend import find_openvino  # noqa: PLC0415 - heavy

            find_openvino()
        case "tensorrt":
            from engine.backends.tensorrt.library import check_pycuda, find_tensorrt  # noqa: PLC0415

            find_tensorrt()
            check_pycuda()
        case _:
            pass
