"""OpenVINO on the CPU. The only file that knows OpenVINO; it is imported when one is opened.

A batch is run row by row: on CPUs it costs nothing (measured: 334 ms a snippet alone, 337 in a
batch of four), and it makes a row's answer independent of its neighbours, bit for bit.

In f32, large convolutions over time take their faster form (measured: 331 ms become 260). In bf16
they do not: its seven bits of mantissa would not survive the combinations.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engine.backends.base import Signature, Tensor, TensorSpec, check_tensors
from engine.backends.cpu_form import cpu_form
from engine.backends.winograd import with_fast_convolutions
from engine.errors import BundleError, DeviceError

_CPU_FLAGS = Path("/proc/cpuinfo")

# OpenVINO's element types → NumPy's.
_DTYPES = {"u8": "uint8", "f32": "float32", "i64": "int64", "i32": "int32", "boolean": "bool"}


class OpenVinoBackend:
    """A network compiled for batches of one.

    Args:
        compiled: OpenVINO's compiled model, all of whose tensors have batch dimension 1.
        signature: The network's own signature, with its free batch dimension.
        description: For logs.
    """

    def __init__(self, compiled: Any, signature: Signature, description: str) -> None:
        self._request: Any = compiled.create_infer_request()
        self._signature = signature
        self._description = description

    @property
    def signature(self) -> Signature:
        """What ``run`` takes and gives."""
        return self._signature

    @property
    def description(self) -> str:
        """Backend, precision and device."""
        return self._description

    def warm_up(self) -> None:
        """Run once on zeros; free dimensions are 1."""
        self.run(
            {
                spec.name: np.zeros([n or 1 for n in spec.shape], spec.dtype)
                for spec in self._signature.inputs
            }
        )

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Infer, one row at a time."""
        check_tensors(self._signature.inputs, tensors, self._description)
        if self._request is None:
            raise DeviceError(f"{self._description} is closed")
        names = [spec.name for spec in self._signature.inputs]
        n_rows = {name: len(tensors[name]) for name in names}
        if len(set(n_rows.values())) != 1:
            raise BundleError(f"{self._description}: inputs differ in their rows: {n_rows}")
        rows = [
            self._run_row({name: tensors[name][i : i + 1] for name in names})
            for i in range(n_rows[names[0]])
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def close(self) -> None:
        """Let the network go; may be called twice."""
        self._request = None

    def _run_row(self, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            self._request.infer({name: np.ascontiguousarray(row[name]) for name in row})
            return {
                spec.name: self._request.get_tensor(spec.name).data.copy()
                for spec in self._signature.outputs
            }
        except RuntimeError as error:
            raise DeviceError(
                f"{self._description}: inference failed: {_reason(error)}"
            ) from error


def open_openvino(model_path: Path, *, precision: str, threads: int | None) -> OpenVinoBackend:
    """Read, fix the batch to one, compile.

    Raises:
        BundleError: OpenVINO cannot read the file.
        DeviceError: OpenVINO is not installed, cannot compile, or the CPU has no bf16.
    """
    core = _runtime().Core()
    chosen = _chosen_precision(core, precision)
    try:
        model = core.read_model(model_path)
        formed = _formed(model_path, chosen)
        model = core.read_model(formed.SerializeToString()) if formed else model
    except RuntimeError as error:
        raise BundleError(f"OpenVINO cannot read {model_path}: {_reason(error)}") from error
    signature = Signature(_specs(model.inputs), _specs(model.outputs))
    try:
        model.reshape({port.get_any_name(): _batch_of_one(port) for port in model.inputs})
        compiled = core.compile_model(model, "CPU", _options(chosen, threads))
    except RuntimeError as error:
        raise DeviceError(f"OpenVINO cannot compile {model_path}: {_reason(error)}") from error
    return OpenVinoBackend(compiled, signature, f"openvino {chosen} CPU")


def _runtime() -> Any:
    # Importing OpenVINO reports the import over the network and writes an id into HOME, unless
    # this package of its cannot be imported; it then has a stub of its own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # noqa: PLC0415
    except ImportError as error:
        raise DeviceError(
            f"OpenVINO cannot be imported ({error}): pip install 's2netd[cpu]'"
        ) from error
    return openvino


def _options(precision: str, threads: int | None) -> dict[str, object]:
    return {
        # Without this, OpenVINO takes bf16 where it can, which no parity test survives.
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of two daemons on one machine would share the same first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _chosen_precision(core: Any, precision: str) -> str:
    if precision == "auto":
        # Only with AMX is bf16 the faster one; AVX-512's bf16 merely saves memory.
        return "bf16" if _cpu_has("amx_bf16") else "f32"
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise DeviceError("precision is bf16, but this CPU has none: set it to auto or f32")
    return precision


def _formed(model_path: Path, precision: str) -> onnx.ModelProto | None:
    """The form in which this CPU runs it best; None: as it is."""
    model = onnx.load(model_path)
    formed = cpu_form(model)
    if precision == "f32" and not _cpu_has("avx512f"):
        return with_fast_convolutions(formed or model) or formed
    return formed


def _cpu_has(flag: str) -> bool:
    try:
        return flag in _CPU_FLAGS.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False


def _batch_of_one(port: Any) -> list[Any]:
    return [1, *list(port.get_partial_shape())[1:]]


def _reason(error: RuntimeError) -> str:
    """OpenVINO's errors lead through its source files; the last line says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "it gives no reason"


def _specs(ports: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            port.get_any_name(),
            tuple(
                None if dim.is_dynamic else dim.get_length() for dim in port.get_partial_shape()
            ),
            _DTYPES.get(port.get_element_type().get_type_name(), "unknown"),
        )
        for port in ports
    )
