"""A GPU through pycuda: the primary context, which torch uses too, pushed and popped around use.

pycuda keeps its own stack of contexts for each thread and frees a thing only in the thread that
made it; hence one owning thread, which ``backend`` sees to.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from engine.backends.tensorrt import cuda_driver
from engine.backends.tensorrt.cuda import (
    Bytes,
    CudaError,
    CudaFault,
    DeviceBuffer,
    Event,
    GpuMemory,
    Stream,
)
from engine.backends.tensorrt.gpu_identity import GpuIdentity, driver_version
from engine.errors import DeviceError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream

# How the driver words what a context does not survive; pycuda passes on words, not numbers.
_LOST_WORDS = (
    "illegal", "misaligned", "launch failure", "launch timed out", "assert", "hardware stack",
    "invalid program counter", "uncorrectable", "deinitialized", "context is destroyed", "nvlink",
)  # fmt: skip

# Once a backend is open, it says this itself, with the sizes it was opened with.
_OPENING_ADVICE = {
    "memory": "; end other programs that use this GPU (nvidia-smi lists them)",
    "lost": "; restart this process, and look for Xid in the kernel's log (dmesg) if that fails",
    "other": "",
}


def open_pycuda(gpu: int) -> "PyCuda":
    """Take a GPU.

    Raises:
        DeviceError: pycuda, the driver or the GPU is missing; says what to do.
    """
    driver = _imported()
    try:
        driver.init()
        n_gpus = driver.Device.count()
    except driver.Error as error:
        raise DeviceError(
            f"the NVIDIA driver finds no GPU it can use ({error}): nvidia-smi must list one; "
            "a container needs it passed in"
        ) from error
    if gpu >= n_gpus:
        raise DeviceError(f"gpu is {gpu}, but there are {n_gpus}, counted from 0")
    try:
        device = driver.Device(gpu)
        cuda_driver.let_waits_sleep(gpu)  # a CUdevice is its ordinal
        return PyCuda(driver, device, device.retain_primary_context())
    except driver.Error as error:
        told = _translated(driver, error, f"GPU {gpu} cannot be opened")
        raise CudaError(f"{told}{_OPENING_ADVICE[told.fault]}", told.fault) from error


def _imported() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the error says too
            from pycuda import driver  # noqa: PLC0415 - cannot be imported without a driver
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"pycuda cannot be imported ({error}): pip install 's2netd[gpu]'; pip builds it and "
            "needs nvcc of the CUDA toolkit on the PATH"
        ) from error
    except ImportError as error:
        raise DeviceError(
            f"pycuda cannot be imported ({error}): install the NVIDIA driver, and build pycuda "
            "again if it was built for another CUDA"
        ) from error
    return driver


class PyCuda:
    """See ``Cuda``.

    Args:
        driver: The module ``pycuda.driver``.
        device: Its device.
        context: The device's primary context, retained once for this object.
    """

    def __init__(self, driver: Any, device: Any, context: Any) -> None:
        self._driver = driver
        self._context = context
        major, minor = device.compute_capability()
        version = driver_version(driver.get_driver_version())
        self._identity = GpuIdentity(device.name(), f"{major}.{minor}", version)

    @property
    def identity(self) -> GpuIdentity:
        """Which GPU it is."""
        return self._identity

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push and pop."""
        with self._translating("the GPU"):
            self._context.push()
        try:
            yield
        except BaseException:
            with suppress(self._driver.Error):  # what went wrong first is what matters
                self._driver.Context.pop()
            raise
        with self._translating("the GPU"):
            self._driver.Context.pop()

    def memory(self) -> GpuMemory:
        """How much is free."""
        with self._translating("asking for free memory"):
            free, total = self._driver.mem_get_info()
        return GpuMemory(int(free), int(total))

    def allocate(self, n_bytes: int) -> "_Device":
        """Memory on the GPU."""
        with self._translating(f"{n_bytes >> 20} MiB of GPU memory"):
            return _Device(self._driver.mem_alloc(n_bytes), n_bytes)

    def pin(self, n_bytes: int) -> "_Pinned":
        """Page-locked memory of the host."""
        with self._translating(f"{n_bytes >> 20} MiB of page-locked memory"):
            return _Pinned(self._driver.pagelocked_empty(n_bytes, np.uint8))

    def stream(self) -> "_Stream":
        """A stream."""
        with self._translating("a stream"):
            return _Stream(self, self._driver.Stream(_NON_BLOCKING))

    def event(self) -> "_Event":
        """A mark. A wait for it sleeps: the CPU has video to decode."""
        flags = self._driver.event_flags
        with self._translating("an event"):
            return _Event(
                self, self._driver.Event(int(flags.BLOCKING_SYNC) | int(flags.DISABLE_TIMING))
            )

    def upload(self, target: DeviceBuffer, source: Bytes, stream: Stream) -> None:
        """Copy bytes (N,) from host to GPU."""
        with self._translating("copying to the GPU"):
            self._driver.memcpy_htod_async(target.address, source, _own(stream))

    def download(self, target: Bytes, source: DeviceBuffer, stream: Stream) -> None:
        """Copy bytes (N,) from GPU to host."""
        with self._translating("copying from the GPU"):
            self._driver.memcpy_dtoh_async(target, source.address, _own(stream))

    def record(self, stream: Stream, enqueue: Callable[[], None]) -> "_Graph":
        """Record work."""
        return _Graph(cuda_driver.record_graph(stream.handle, enqueue))

    def close(self) -> None:
        """Release the primary context.

        pycuda pushes it to release it and leaves it there, as if releasing popped it. For a
        primary context the driver does not, and the thread would go on with a dead one.
        """
        with self._translating("letting the GPU go"):
            self._context.detach()
            cuda_driver.pop_context()

    @contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise _translated(self._driver, error, what) from error


class _Device:
    def __init__(self, allocation: Any, n_bytes: int) -> None:
        self._allocation = allocation
        self._n_bytes = n_bytes
        self._address = int(allocation)

    @property
    def address(self) -> int:
        return self._address

    @property
    def n_bytes(self) -> int:
        return self._n_bytes

    def free(self) -> None:
        self._allocation.free()


class _Pinned:
    def __init__(self, array: Bytes) -> None:
        self._array: Bytes | None = array  # (N,)

    @property
    def array(self) -> Bytes:
        if self._array is None:
            raise CudaError("page-locked memory was used after it was freed")
        return self._array

    def free(self) -> None:
        allocation: Any = self.array.base
        self._array = None
        allocation.free()


class _Stream:
    def __init__(self, cuda: PyCuda, stream: Any) -> None:
        self._cuda = cuda
        self._stream = stream

    @property
    def handle(self) -> int:
        return int(self._stream.handle)

    @property
    def of_pycuda(self) -> Any:
        return self._stream

    def wait_for(self, event: Event) -> None:
        with self._cuda._translating("waiting for an event"):  # noqa: SLF001 - one file
            self._stream.wait_for_event(_own(event))

    def synchronize(self) -> None:
        with self._cuda._translating("the GPU's work"):  # noqa: SLF001
            self._stream.synchronize()

    def free(self) -> None:
        self._stream = None


class _Event:
    def __init__(self, cuda: PyCuda, event: Any) -> None:
        self._cuda = cuda
        self._event = event

    @property
    def of_pycuda(self) -> Any:
        return self._event

    def record(self, stream: Stream) -> None:
        with self._cuda._translating("recording an event"):  # noqa: SLF001
            self._event.record(_own(stream))

    def synchronize(self) -> None:
        with self._cuda._translating("the GPU's work"):  # noqa: SLF001
            self._event.synchronize()

    def free(self) -> None:
        self._event = None


class _Graph:
    def __init__(self, executable: int) -> None:
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        cuda_driver.launch_graph(self._executable, stream.handle)

    def free(self) -> None:
        cuda_driver.free_graph(self._executable)


def _own(thing: Stream | Event) -> Any:
    """Pycuda's object in one of ours."""
    assert isinstance(thing, (_Stream, _Event))  # noqa: S101 - one GPU, one implementation
    return thing.of_pycuda


def _translated(driver: Any, error: Exception, what: str) -> CudaError:
    text = str(error)
    fault: CudaFault = "other"
    if isinstance(error, driver.MemoryError):
        fault = "memory"
    elif isinstance(error, driver.LaunchError) or any(word in text for word in _LOST_WORDS):
        fault = "lost"
    return cuda_driver.explained(f"{what}: {text}", fault)
