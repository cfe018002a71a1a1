"""OpenVINO on the CPU. Only this file knows OpenVINO; it is imported when a backend is opened.

Every row is inferred on its own, so its answer is independent of its neighbours, bit for bit. A
row alone gets all threads. Of many rows, as many run side by side as OpenVINO makes streams, each
on its share of the threads. The threads of different rows need not wait for each other after every
layer; this waiting costs a row alone a few per cent on two quiet cores, and more where other work
interrupts one of them.

In f32, large convolutions over time take their faster form (measured: 331 ms become 260). In bf16
they do not: its seven bits of mantissa would not survive the combinations.
"""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engine.backends.base import Signature, Tensor, TensorSpec, check_tensors
from engine.backends.names import ARITHMETICS, check_name
from engine.backends.onnx_precision import FilePrecision, precision_in
from engine.backends.openvino.cpu_form import cpu_form
from engine.backends.openvino.winograd import with_fast_convolutions
from engine.errors import BundleError, DeviceError

_CPU_FLAGS = Path("/proc/cpuinfo")

# All threads work on one row.
_ALONE = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}

# OpenVINO's element types → NumPy's.
_DTYPES = {"u8": "uint8", "f32": "float32", "i64": "int64", "i32": "int32", "boolean": "bool"}


class OpenVinoBackend:
    """A network compiled for batches of one.

    Args:
        alone: OpenVINO's infer request on all threads; batch dimensions are 1.
        side_by_side: Requests that share the threads, two or more; none: all rows run alone.
        signature: The network's own signature, with its free batch dimension.
        description: Backend, precision and device, for logs.
    """

    def __init__(
        self, alone: Any, side_by_side: Sequence[Any], signature: Signature, description: str
    ) -> None:
        self._alone = alone
        self._side_by_side = side_by_side
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
        """Run every request once on zeros; free dimensions are 1."""
        n_rows = len(self._side_by_side) + 1
        self.run(
            {
                spec.name: np.zeros([n_rows, *(n or 1 for n in spec.shape[1:])], spec.dtype)
                for spec in self._signature.inputs
            }
        )

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Infer tensors by name, with the shapes and dtypes that ``signature`` says."""
        check_tensors(self._signature.inputs, tensors, self._description)
        if self._alone is None:
            raise DeviceError(f"{self._description} is closed")
        names = [spec.name for spec in self._signature.inputs]
        n_rows = {name: len(tensors[name]) for name in names}
        if len(set(n_rows.values())) != 1:
            raise BundleError(f"{self._description}: inputs differ in their rows: {n_rows}")
        rows = [
            {name: np.ascontiguousarray(tensors[name][i : i + 1]) for name in names}
            for i in range(n_rows[names[0]])
        ]
        try:
            answers = self._infer(rows)
        except RuntimeError as error:
            raise DeviceError(
                f"{self._description}: inference failed: {_reason(error)}"
            ) from error
        return {name: np.concatenate([row[name] for row in answers]) for name in answers[0]}

    def close(self) -> None:
        """Let the network go; may be called twice."""
        self._alone = None
        self._side_by_side = ()

    def _infer(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Infer rows, (1, ...) each: side by side what fills all streams, and the rest alone."""
        n_streams = len(self._side_by_side)
        n_together = len(rows) - len(rows) % n_streams if n_streams else 0
        answers = self._infer_together(rows[:n_together])
        for row in rows[n_together:]:
            self._alone.infer(row)
            answers.append(self._answer(self._alone))
        return answers

    def _infer_together(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Infer rows, (1, ...) each, in all streams; the answers are in the rows' order."""
        running: deque[Any] = deque()
        answers = []
        try:
            for row, request in zip(rows, cycle(self._side_by_side), strict=False):
                if len(running) == len(self._side_by_side):  # the next one began first
                    answers.append(self._answer(running.popleft()))
                request.start_async(row)
                running.append(request)
            while running:
                answers.append(self._answer(running.popleft()))
        finally:
            for request in running:  # if one of them failed, the next call must find all idle
                with contextlib.suppress(RuntimeError):
                    request.wait()
        return answers

    def _answer(self, request: Any) -> dict[str, Tensor]:
        """Wait for a request; give its outputs by name, (1, ...) each, as the signature says."""
        request.wait()
        return {
            spec.name: request.get_tensor(spec.name).data.copy()
            for spec in self._signature.outputs
        }


def open_openvino(
    model_path: Path,
    *,
    precision: str,
    threads: int | None,
    max_batch: int = 1,
    cpu_flags: Collection[str] | None = None,
) -> OpenVinoBackend:
    """Read a network, fix its batch to one, and compile it.

    Args:
        model_path: An ONNX file.
        precision: ``f32`` or ``bf16``.
        threads: For all rows together; None: one for each CPU this process may use.
        max_batch: Rows that calls are likely to have. With more than one, and threads to share,
            the network is compiled a second time for rows side by side: as much memory again.
        cpu_flags: What the CPU can do, in Linux's words, which decides what suits it; None: what
            Linux says.

    Raises:
        BundleError: OpenVINO cannot read the file, or there is no such precision.
        DeviceError: OpenVINO is not installed, cannot compile, or the CPU has no bf16.
    """
    check_name("precision", precision, ARITHMETICS)
    core = _core()
    flags = this_cpu().flags if cpu_flags is None else cpu_flags
    check_arithmetic(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    try:
        model = core.read_model(model_path)
        plain = onnx.load(model_path)
        formed = formed_for(plain, precision, flags)
        model = core.read_model(formed.SerializeToString()) if formed else model
    except RuntimeError as error:
        raise BundleError(f"OpenVINO cannot read {model_path}: {_reason(error)}") from error
    signature = Signature(_specs(model.inputs), _specs(model.outputs))
    try:
        model.reshape({port.get_any_name(): _batch_of_one(port) for port in model.inputs})
        options = _options(precision, threads)
        alone = core.compile_model(model, "CPU", options | _ALONE).create_infer_request()
        side_by_side = _side_by_side(core, model, options, max_batch)
    except RuntimeError as error:
        raise DeviceError(f"OpenVINO cannot compile {model_path}: {_reason(error)}") from error
    description = f"openvino {_arithmetic(precision_in(plain), precision)} CPU"
    return OpenVinoBackend(alone, side_by_side, signature, description)


def check_arithmetic(precision: str, capabilities: Collection[str]) -> None:
    """Check that OpenVINO can compute in a precision on this CPU.

    Args:
        precision: ``f32`` or ``bf16``.
        capabilities: What OpenVINO can do on it, in its own words.

    Raises:
        DeviceError: bf16 is wanted, and OpenVINO cannot.
    """
    if precision == "bf16" and "BF16" not in capabilities:
        raise DeviceError("precision is bf16, but this CPU has none: set it to auto or f32")


@dataclass(frozen=True, slots=True)
class Cpu:
    """What speed and answers depend on besides the network.

    Attributes:
        name: The CPU's own name; empty if Linux does not say.
        flags: What it can do, in Linux's words.
    """

    name: str
    flags: frozenset[str]


def this_cpu() -> Cpu:
    """The CPU of this machine, as Linux describes it."""
    try:
        text = _CPU_FLAGS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return Cpu("", frozenset())
    # Of the first core; the rest of the file changes from one moment to the next, as its clock.
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    said = {name.strip(): value.strip() for name, _, value in lines}
    return Cpu(said.get("model name", ""), frozenset(said.get("flags", "").split()))


def openvino_version() -> str:
    """Which OpenVINO it is.

    Raises:
        DeviceError: It is not installed.
    """
    return str(find_openvino().get_version())


def has_bf16() -> bool:
    """Can OpenVINO compute in bf16 on this CPU?

    Raises:
        DeviceError: OpenVINO is not installed.
    """
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Any:
    """OpenVINO's, one for as long as the process lives.

    Its part for CPUs gives the thread that first asks for it a stack for signals, and frees that
    when it is let go, on whichever thread. Python's handlers run on this stack: a signal that the
    first thread got later ended the process.

    Raises:
        DeviceError: OpenVINO is not installed.
    """
    return find_openvino().Core()


def formed_for(
    model: onnx.ModelProto, precision: str, cpu_flags: Collection[str]
) -> onnx.ModelProto | None:
    """The form in which a CPU with these flags runs it best; None: as it is."""
    formed = cpu_form(model)
    if precision == "f32" and "avx512f" not in cpu_flags:
        return with_fast_convolutions(formed or model) or formed
    return formed


def _arithmetic(held: FilePrecision, chosen: str) -> str:
    """What is computed in, in words: int8 where the file says so; half precision is widened."""
    match held:
        case "f32":
            return chosen
        case "int8":
            return held
        case _:
            return f"{held} as {chosen}"


def _side_by_side(
    core: Any, model: Any, options: Mapping[str, object], max_batch: int
) -> tuple[Any, ...]:
    """A request for each stream, as many as OpenVINO finds worthwhile; none if that is one."""
    if max_batch == 1 or options["INFERENCE_NUM_THREADS"] == 1:
        return ()
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "PERFORMANCE_HINT_NUM_REQUESTS": max_batch}
    compiled = core.compile_model(model, "CPU", {**options, **hints})
    n_streams = compiled.get_property("NUM_STREAMS")
    if n_streams == 1:
        return ()
    return tuple(compiled.create_infer_request() for _ in range(n_streams))


def find_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        DeviceError: It is not installed; says what to install.
    """
    # Importing OpenVINO reports the import over the network and writes an id into HOME, unless its
    # telemetry package cannot be imported: then it uses a stub of its own.
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
        # Without this, OpenVINO takes bf16 where it can, which fails every parity test.
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
        # Pinned threads of two daemons on one machine would share the same first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _batch_of_one(port: Any) -> list[Any]:
    return [1, *list(port.get_partial_shape())[1:]]


def _reason(error: RuntimeError) -> str:
    """The last line of OpenVINO's error, which says what was wrong; others name source files."""
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
