"""Which TensorRT and which GPUs this machine has, and what it can do with a plan."""

from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from engine.backends.tensorrt.gpu_identity import NO_GPU, GpuIdentity
from engine.backends.tensorrt.library import TensorRt, TensorRtChoice, find_tensorrt
from engine.backends.tensorrt.plan_cache import PlanEntry
from engine.errors import DeviceError

Use = Literal["usable", "foreign", "unknown", "built_without_gpu"]

_MOST_GPUS = 64
_KINDS: tuple[TensorRtChoice, ...] = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class Machine:
    """The TensorRTs and the GPUs of this machine.

    Attributes:
        tensorrts: Every TensorRT that can be imported.
        gpus: Every GPU that can be opened.
        no_gpu: Why there is no GPU; empty if there is one.
    """

    tensorrts: tuple[TensorRt, ...]
    gpus: tuple[GpuIdentity, ...]
    no_gpu: str = ""

    def use(self, entry: PlanEntry) -> tuple[Use, str]:
        """Whether a plan can be used here, and if not, why.

        A plan for something that is not seen now is not called foreign. It may be seen again at
        the next start: a driver or a GPU may have failed, or another virtual environment may be
        active. As all GPUs share one driver, a plan for another driver is foreign if any GPU is
        seen.
        """
        if entry.key is None:
            return "foreign", f"damaged: {entry.damage}"
        kind = entry.key.tensorrt.partition(" ")[0]
        versions = [str(trt) for trt in self.tensorrts if trt.kind == kind]
        if not versions:
            return "unknown", f"{kind} is not installed here"
        if entry.key.tensorrt not in versions:
            return "foreign", f"here is {versions[0]}"
        return self._use_of(entry.key.gpu)

    def _use_of(self, gpu: GpuIdentity) -> tuple[Use, str]:
        if gpu == NO_GPU:
            return ("foreign" if self.gpus else "built_without_gpu"), "built without a GPU"
        if not self.gpus:
            return "unknown", "no GPU is seen here"
        if gpu in self.gpus:
            return "usable", ""
        drivers = sorted({seen.driver for seen in self.gpus})
        if gpu.driver not in drivers:
            return "foreign", f"here is driver {', '.join(drivers)}"
        return "unknown", "its GPU is not seen here"


def this_machine() -> Machine:
    """Find what is here; this imports every TensorRT and opens every GPU for a moment."""
    tensorrts = []
    for kind in _KINDS:
        try:
            tensorrts.append(find_tensorrt(kind))
        except DeviceError:
            continue
    gpus: list[GpuIdentity] = []
    identity, no_gpu = gpu_identity(0)
    while identity != NO_GPU and len(gpus) < _MOST_GPUS:
        gpus.append(identity)
        identity, _reason = gpu_identity(len(gpus))
    return Machine(tuple(tensorrts), tuple(gpus), no_gpu)


def gpu_identity(index: int) -> tuple[GpuIdentity, str]:
    """A GPU's identity and an empty text; or ``NO_GPU`` and the reason why there is none.

    Args:
        index: The GPU's number, as CUDA counts, from 0.
    """
    from engine.backends.tensorrt.cuda_pycuda import open_pycuda  # noqa: PLC0415 - heavy

    try:
        with closing(open_pycuda(index)) as cuda:
            return cuda.identity, ""
    except DeviceError as error:
        return NO_GPU, str(error)
