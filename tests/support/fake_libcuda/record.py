"""``engine.backends.tensorrt.cuda_driver`` over the library beside this file, told."""

# ruff: noqa: T201 - the test reads what is printed

import ctypes
import os

from engine.backends.tensorrt import cuda_driver
from engine.backends.tensorrt.cuda import CudaError

driver = ctypes.CDLL(cuda_driver.LIBRARY)
POINTER = ctypes.c_void_p


def main() -> None:
    context, stream, memory = POINTER(), POINTER(), ctypes.c_ulonglong()
    assert 0 == driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    assert 0 == driver.cuCtxPushCurrent_v2(context)
    assert 0 == driver.cuStreamCreate(ctypes.byref(stream), 1)
    assert 0 == driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4))
    handle = int(stream.value or 0)
    source, target = ctypes.create_string_buffer(b"abcd", 4), ctypes.create_string_buffer(4)

    def there_and_back() -> None:
        n = ctypes.c_size_t(4)
        assert 0 == driver.cuMemcpyHtoDAsync_v2(memory, source, n, stream)
        assert 0 == driver.cuMemcpyDtoHAsync_v2(target, memory, n, stream)

    def gives_up() -> None:
        there_and_back()
        raise KeyError("gave up")

    live = alive()
    if "FAKE_CUDA_FAIL" not in os.environ:
        try:
            cuda_driver.record_graph(handle, gives_up)
        except KeyError:
            assert live == alive(), "a recording that was given up is left"
    try:
        graph = cuda_driver.record_graph(handle, there_and_back)
    except CudaError as error:
        print(f"{error}, {error.fault}")
    else:
        assert target.raw == bytes(4), "recording did the work"
        source.value = b"wxyz"
        cuda_driver.launch_graph(graph, handle)
        assert target.raw == b"wxyz"
        cuda_driver.free_graph(graph)
        assert live == alive()
        print("recorded, launched, freed")
    cuda_driver.pop_context()
    assert 0 == ctypes.c_int.in_dll(driver, "fake_depth").value


def alive() -> int:
    return ctypes.c_int.in_dll(driver, "fake_live").value


main()
