"""The few calls of the CUDA driver that pycuda lacks: recording graphs, and one pop.

They are made by ctypes on ``libcuda.so.1``, which pycuda has loaded by then. Numbers and names
are of the driver API, which keeps them (CUDA 11.4 and later).
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from engine.backends.tensorrt.cuda import CudaError, CudaFault

LIBRARY = "libcuda.so.1"

# Only what this thread does meanwhile can spoil a recording, not torch in another one.
_CAPTURE_THIS_THREAD_ONLY = 1
_OUT_OF_MEMORY = 2
_WAITS_SLEEP = 4  # CU_CTX_SCHED_BLOCKING_SYNC

# After these the GPU runs nothing more for this process: a kernel went wrong, or the card did.
_LOST = frozenset({4, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})

_LOOK = (
    "the kernel's log (dmesg, lines with NVRM) and nvidia-smi may say more; a restart of this "
    "process takes the GPU anew"
)

_POINTER = ctypes.c_void_p
_SIGNATURES: dict[str, list[Any]] = {
    "cuStreamBeginCapture_v2": [_POINTER, ctypes.c_int],
    "cuStreamEndCapture": [_POINTER, ctypes.POINTER(_POINTER)],
    "cuGraphInstantiateWithFlags": [ctypes.POINTER(_POINTER), _POINTER, ctypes.c_ulonglong],
    "cuGraphLaunch": [_POINTER, _POINTER],
    "cuGraphExecDestroy": [_POINTER],
    "cuGraphDestroy": [_POINTER],
    "cuCtxPopCurrent_v2": [ctypes.POINTER(_POINTER)],
    "cuDevicePrimaryCtxSetFlags_v2": [ctypes.c_int, ctypes.c_uint],
    "cuGetErrorString": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
}


def record_graph(stream: int, enqueue: Callable[[], None]) -> int:
    """Record what ``enqueue`` gives to a stream; the handle of an executable graph.

    Raises:
        CudaError: It cannot be recorded; the stream records no longer.
    """
    _record("cuStreamBeginCapture_v2", stream, _CAPTURE_THIS_THREAD_ONLY)
    graph, executable = _POINTER(), _POINTER()
    try:
        enqueue()
    except BaseException:
        # Always: a stream left recording would do nothing more.
        _library().cuStreamEndCapture(stream, ctypes.byref(graph))
        _destroy(graph)
        raise
    try:
        _record("cuStreamEndCapture", stream, ctypes.byref(graph))
        _record("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
    finally:
        _destroy(graph)
    return int(executable.value or 0)


def launch_graph(executable: int, stream: int) -> None:
    """Give a graph's work to a stream."""
    call("cuGraphLaunch", executable, stream)


def free_graph(executable: int) -> None:
    """Give an executable graph back."""
    call("cuGraphExecDestroy", executable)


def let_waits_sleep(device: int) -> None:
    """Have every wait in a GPU's primary context sleep.

    FFmpeg decodes in that context with these flags and no others, and refuses one that is active
    with others; so they are set before anybody retains it.
    """
    call("cuDevicePrimaryCtxSetFlags_v2", device, _WAITS_SLEEP)


def pop_context() -> None:
    """Take the current context off this thread's stack."""
    call("cuCtxPopCurrent_v2", ctypes.byref(_POINTER()))


def call(name: str, *arguments: object) -> None:
    """Call the driver.

    Raises:
        CudaError: It says no, or is too old to have the call.
    """
    failure = _failure(name, *arguments)
    if failure is not None:
        raise explained(*failure)


def explained(message: str, fault: CudaFault) -> CudaError:
    """An error of CUDA, with advice; for the other faults, whoever holds the GPU gives it."""
    return CudaError(f"{message}; {_LOOK}" if fault == "other" else message, fault)


def _record(name: str, *arguments: object) -> None:
    """As ``call``, without advice: where nothing can be recorded, the work is done unrecorded."""
    failure = _failure(name, *arguments)
    if failure is not None:
        raise CudaError(*failure)


def _failure(name: str, *arguments: object) -> tuple[str, CudaFault] | None:
    library = _library()
    code = int(getattr(library, name)(*arguments))
    return (f"{name} failed: {_message(library, code)}", _fault(code)) if code else None


def _destroy(graph: Any) -> None:
    if graph.value:
        _library().cuGraphDestroy(graph)


def _fault(code: int) -> CudaFault:
    if code == _OUT_OF_MEMORY:
        return "memory"
    return "lost" if code in _LOST else "other"


def _message(library: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"it gives no reason").decode(errors="replace") + f" ({code})"


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
    except (OSError, AttributeError) as error:
        raise CudaError(
            f"{LIBRARY} is missing or too old ({error}): install an NVIDIA driver for CUDA 11.4 "
            "or newer"
        ) from error
    return library
