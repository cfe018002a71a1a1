"""A plan that TensorRT runs: what ``cuda.Plan`` promises, over ``IRuntime`` and its kin.

Written for TensorRT 10 and 11 and TensorRT for RTX, which agree in all that is called here but
for how scratch memory is asked for. TensorRT reports failure by None, False or a logged message,
never by an exception; here each becomes a ``CudaError`` that carries the message.
"""

import ctypes
from collections import deque
from typing import Any, cast

from engine.backends.options import OnLog
from engine.backends.tensorrt.cuda import (
    CudaError,
    CudaFault,
    DeviceBuffer,
    PlanTensor,
    Shape,
    Stream,
)
from engine.backends.tensorrt.library import TensorRt
from engine.backends.tensorrt.log import listen_for_good

# TensorRT's element types → NumPy's; those NumPy lacks (bf16, fp8) never cross the edge.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
_KEPT_MESSAGES = 100
_WORTH_TELLING = ("internal_error", "error", "warning")


def load_plan(trt: TensorRt, plan: bytes, on_log: OnLog) -> "TensorRtPlan | None":
    """Put a plan on the current GPU; None if it is none of this TensorRT and this GPU.

    Raises:
        CudaError: TensorRT cannot start on this driver.
    """
    log = _log(trt)
    log.tell(lambda _severity, _message: None)  # of others, who heard it themselves
    reason, runtime = "", cast("Any", None)
    try:
        runtime = trt.module.Runtime(log.logger)
    except (TypeError, RuntimeError) as error:  # pybind's way to say that there is none
        reason = str(error)
    reason = log.tell(on_log) or reason
    if reason:
        # 10 gives an object all the same, around nothing: using it, or freeing it at the end of
        # the process, is a segmentation fault. So nobody may.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
        raise CudaError(
            f"{trt} cannot start on this NVIDIA driver ({reason}): update the driver, or install "
            "the TensorRT made for its CUDA"
        )
    engine = runtime.deserialize_cuda_engine(plan)
    reason = log.tell(on_log)
    if engine is None and _fault(reason) == "memory":  # the plan may be as good as any
        raise CudaError(f"{trt} could not put the plan on the GPU: {reason}", "memory")
    return None if engine is None else TensorRtPlan(trt, runtime, engine, on_log)


class TensorRtPlan:
    """See ``cuda.Plan``.

    Args:
        trt: Whose it is.
        runtime: Outlives the engine.
        engine: TensorRT's.
        on_log: Told what TensorRT says.
    """

    def __init__(self, trt: TensorRt, runtime: Any, engine: Any, on_log: OnLog) -> None:
        self._trt = trt
        self._runtime = runtime
        self._engine = engine
        self._on_log = on_log
        self._tensors = tuple(
            self._tensor(engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)
        )

    @property
    def tensors(self) -> tuple[PlanTensor, ...]:
        """Inputs and outputs."""
        return self._tensors

    @property
    def n_profiles(self) -> int:
        """How many profiles."""
        return int(self._engine.num_optimization_profiles)

    @property
    def scratch_bytes(self) -> int:
        """The largest profile's need.

        The v2 calls came with 10.1 for streamed weights, and some 10.x crash in them when a plan
        has none; 11 and RTX have no others.
        """
        size = getattr(self._engine, "get_device_memory_size_for_profile", None)
        size = size or self._engine.get_device_memory_size_for_profile_v2
        return max(int(size(i)) for i in range(self.n_profiles))

    def context(self, profile: int, scratch: DeviceBuffer, stream: Stream) -> "TensorRtContext":
        """Set it up for a profile."""
        context = self._engine.create_execution_context(self._settings())
        self._check(context is not None, "set up the plan")
        try:
            chosen = context.set_optimization_profile_async(profile, stream.handle)
            self._check(chosen, f"choose profile {profile}")
            stream.synchronize()
        except BaseException:
            del context  # or the error's traceback would keep it beyond the plan's end
            raise
        if hasattr(self._engine, "get_device_memory_size_for_profile"):
            context.device_memory = scratch.address
        else:
            context.set_device_memory(scratch.address, scratch.n_bytes)
        return TensorRtContext(self, context)

    def free(self) -> None:
        """Give it back."""
        self._engine = None
        self._runtime = None

    def _settings(self) -> Any:
        """Scratch memory is ours; RTX compiles a shape's kernels before it runs them.

        By default RTX compiles in the background and changes kernels at some later call: a graph
        would keep the slow ones, and two slots would round differently.
        """
        module = self._trt.module
        ours = module.ExecutionContextAllocationStrategy.USER_MANAGED
        strategies = getattr(module, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None:
            return ours
        settings = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(ours)
        settings.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return settings

    def _tensor(self, name: str) -> PlanTensor:
        module = self._trt.module
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _DTYPES or self._engine.get_tensor_location(name) != (
            module.TensorLocation.DEVICE
        ):
            raise CudaError(f'"{name}" of the plan is {kind}, wanted one of {sorted(_DTYPES)}')
        return PlanTensor(
            name,
            tuple(self._engine.get_tensor_shape(name)),
            _DTYPES[kind],
            self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT,
        )

    def _check(self, is_done: bool, what: str) -> None:  # noqa: FBT001 - TensorRT's own answer
        reason = _log(self._trt).tell(self._on_log)
        if not is_done:
            raise CudaError(
                f"{self._trt} could not {what}: {reason or 'it gives no reason'}", _fault(reason)
            )


class TensorRtContext:
    """See ``cuda.PlanContext``.

    Args:
        plan: Whose it is.
        context: TensorRT's.
    """

    def __init__(self, plan: TensorRtPlan, context: Any) -> None:
        self._plan = plan
        self._context = context

    def set_shape(self, name: str, shape: Shape) -> None:
        """Of an input."""
        done = self._context.set_input_shape(name, shape)
        self._plan._check(done, f'take "{name}" as {shape}')  # noqa: SLF001 - one file

    def shape(self, name: str) -> Shape:
        """Of an output."""
        return tuple(self._context.get_tensor_shape(name))

    def set_address(self, name: str, address: int) -> None:
        """Where a tensor lies."""
        done = self._context.set_tensor_address(name, address)
        self._plan._check(done, f'take an address for "{name}"')  # noqa: SLF001

    def enqueue(self, stream: Stream) -> None:
        """Run it."""
        done = self._context.execute_async_v3(stream.handle)
        if not done:
            self._plan._check(done, "run the plan")  # noqa: SLF001

    def free(self) -> None:
        """Give it back."""
        self._context = None


def _fault(reason: str) -> CudaFault:
    """TensorRT passes on words, not numbers."""
    words = reason.lower().replace(" ", "")
    return "memory" if "outofmemory" in words else "other"


class _Log:
    """What TensorRT says, kept until somebody can be told: a call from it must not raise.

    Args:
        module: TensorRT.
    """

    def __init__(self, module: Any) -> None:
        self._kept: deque[tuple[str, str]] = deque(maxlen=_KEPT_MESSAGES)
        self.logger = listen_for_good(
            module, lambda severity, message: self._kept.append((severity, message))
        )

    def tell(self, on_log: OnLog) -> str:
        """Pass on what is worth it; the first error, for those after it tend to be its echoes."""
        messages = []
        while self._kept:
            messages.append(self._kept.popleft())
        for severity, message in messages:
            if severity in _WORTH_TELLING:
                on_log(severity, message.strip())
        errors = [message.strip() for severity, message in messages if "error" in severity]
        return errors[0] if errors else ""


_LOGS: dict[str, _Log] = {}


def _log(trt: TensorRt) -> _Log:
    """One for each TensorRT, for good: plans outlive whoever loaded them."""
    if trt.kind not in _LOGS:
        _LOGS[trt.kind] = _Log(trt.module)
    return _LOGS[trt.kind]
