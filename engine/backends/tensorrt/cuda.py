"""The narrow seam to an NVIDIA GPU: memory, streams, events, graphs, and a plan that runs on it.

The backend is written against these protocols. ``cuda_pycuda`` and ``plan`` are the real thing; a
fake device stands in for both where there is no GPU, so that races can be tested for.

Whatever is made here is freed once, by whoever made it, before the ``Cuda`` it came from is
closed. Work given to a stream is done in order, later, and with no respect to other streams but
for events: memory that it reads or writes must stay, and stay as it is, until a wait says so.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.errors import DeviceError

Bytes = npt.NDArray[np.uint8]
Shape = tuple[int, ...]
CudaFault = Literal["memory", "lost", "other"]


class CudaError(DeviceError):
    """A call of CUDA or TensorRT failed.

    Args:
        message: What failed and why.
        fault: ``memory``: too little is free on the GPU. ``lost``: nothing of this process will
            run on the GPU any more. ``other``: only this failed.
    """

    def __init__(self, message: str, fault: CudaFault = "other") -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of a GPU, of all its processes together, in bytes."""

    free: int
    total: int

    @override
    def __str__(self) -> str:
        """For people."""
        return f"{self.free >> 20} of {self.total >> 20} MiB are free"


class DeviceBuffer(Protocol):
    """Memory on the GPU, aligned to 256 bytes."""

    @property
    def address(self) -> int:
        """Where on the GPU."""

    @property
    def n_bytes(self) -> int:
        """How much."""

    def free(self) -> None:
        """Give it back."""


class PinnedBuffer(Protocol):
    """Page-locked memory of the host: the GPU copies it without holding up the CPU."""

    @property
    def array(self) -> Bytes:
        """Its bytes (N,); not to be used once freed."""

    def free(self) -> None:
        """Give it back."""


class Event(Protocol):
    """A mark in a stream."""

    def record(self, stream: "Stream") -> None:
        """Put the mark behind all that ``stream`` was given so far; moves an earlier one."""

    def synchronize(self) -> None:
        """Wait until everything before the mark is done; the CPU sleeps meanwhile."""

    def free(self) -> None:
        """Give it back."""


class Stream(Protocol):
    """Work that is done in order, beside that of other streams."""

    @property
    def handle(self) -> int:
        """What CUDA and TensorRT call it."""

    def wait_for(self, event: Event) -> None:
        """What is given from now on starts only after the mark; the CPU does not wait."""

    def synchronize(self) -> None:
        """Wait until all is done."""

    def free(self) -> None:
        """Give it back; nothing may be left to do."""


class Graph(Protocol):
    """Recorded work, given to a stream by one call; its addresses and shapes are fixed."""

    def launch(self, stream: Stream) -> None:
        """Give the work to a stream."""

    def free(self) -> None:
        """Give it back; it must not be running."""


class Cuda(Protocol):
    """One GPU, used by the one thread that opened it. Every method may raise ``CudaError``."""

    @property
    def identity(self) -> GpuIdentity:
        """Which GPU it is."""

    def current(self) -> AbstractContextManager[None]:
        """Inside, this GPU is the thread's; before and after, whatever was (torch's, say)."""

    def memory(self) -> GpuMemory:
        """How much is free."""

    def allocate(self, n_bytes: int) -> DeviceBuffer:
        """Memory on the GPU, at least one byte; its contents are arbitrary."""

    def pin(self, n_bytes: int) -> PinnedBuffer:
        """Page-locked memory of the host, at least one byte."""

    def stream(self) -> Stream:
        """A stream that does not wait for the default one."""

    def event(self) -> Event:
        """A mark that is nowhere yet: waiting for it is no wait."""

    def upload(self, target: DeviceBuffer, source: Bytes, stream: Stream) -> None:
        """Copy page-locked memory (N,) to the start of ``target``, later, in order."""

    def download(self, target: Bytes, source: DeviceBuffer, stream: Stream) -> None:
        """Copy the start of ``source`` to page-locked memory (N,), later, in order."""

    def record(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """What ``enqueue`` gives to ``stream``, recorded instead of done.

        If this fails, the stream is as it was before.
        """

    def close(self) -> None:
        """Let the GPU go."""


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """An input or output of a plan.

    Attributes:
        name: As in the network.
        shape: -1 where the plan leaves it open.
        dtype: NumPy's name of it.
        is_input: Or an output.
    """

    name: str
    shape: Shape
    dtype: str
    is_input: bool


class PlanContext(Protocol):
    """A plan set up for one of its profiles. Its scratch memory is shared with its siblings."""

    def set_shape(self, name: str, shape: Shape) -> None:
        """Set an input's shape; the next ``enqueue`` must not be recorded into a graph."""

    def shape(self, name: str) -> Shape:
        """An output's shape, given those of the inputs; a negative length is an unknown one."""

    def set_address(self, name: str, address: int) -> None:
        """Where an input or output lies on the GPU from the next ``enqueue`` on."""

    def enqueue(self, stream: Stream) -> None:
        """Give the plan's work to a stream; siblings must share one, as they share memory."""

    def free(self) -> None:
        """Give it back; it must not be running, and no graph of it may remain."""


class Plan(Protocol):
    """A compiled network on the GPU."""

    @property
    def tensors(self) -> tuple[PlanTensor, ...]:
        """Inputs and outputs."""

    @property
    def n_profiles(self) -> int:
        """How many optimization profiles it was built for."""

    @property
    def scratch_bytes(self) -> int:
        """Memory that any of its contexts needs while it runs."""

    def context(self, profile: int, scratch: DeviceBuffer, stream: Stream) -> PlanContext:
        """Set it up for a profile.

        Args:
            profile: Index of it.
            scratch: At least ``scratch_bytes``.
            stream: The one it will run on.
        """

    def free(self) -> None:
        """Give it back, after its contexts."""


class Freeable(Protocol):
    """Whatever must be given back."""

    def free(self) -> None:
        """Give it back."""


F = TypeVar("F", bound=Freeable)


def kept(stack: ExitStack, thing: F) -> F:
    """Have ``stack`` free a thing; that this fails on a lost GPU is passed over."""
    stack.callback(suppressed, thing.free)
    return thing


def suppressed(free: Callable[[], None]) -> None:
    """Free something; an error is passed over, so that what comes after it is freed too."""
    with suppress(CudaError):
        free()
