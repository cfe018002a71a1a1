"""A backend over pycuda and the library beside this file; prints what happened.

The plan copies its input to its output: what there is to go wrong lies around it.
"""

# ruff: noqa: T201 - the test reads what is printed

import ctypes
import sys
from math import prod

import numpy as np
from pycuda import driver

from engine.backends.base import Signature, TensorSpec
from engine.backends.options import BackendOptions
from engine.backends.profiles import batch_sizes_up_to, profiles_for
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.backends.tensorrt.cuda import DeviceBuffer, PlanTensor, Shape, Stream
from engine.backends.tensorrt.cuda_driver import LIBRARY
from engine.backends.tensorrt.cuda_pycuda import open_pycuda
from engine.errors import DeviceError

SIGNATURE = Signature(
    (TensorSpec("snippets", (None, 5), "float32"),),
    (TensorSpec("features", (None, 5), "float32"),),
)


class CopyingPlan:
    tensors = (
        PlanTensor("snippets", (-1, 5), "float32", is_input=True),
        PlanTensor("features", (-1, 5), "float32", is_input=False),
    )
    n_profiles = 3
    scratch_bytes = 0

    def context(self, _profile: int, _scratch: DeviceBuffer, _stream: Stream) -> "Context":
        return Context()

    def free(self) -> None:
        pass


class Context:
    def __init__(self) -> None:
        self._addresses: dict[str, int] = {}
        self._shape: Shape = ()

    def set_shape(self, _name: str, shape: Shape) -> None:
        self._shape = shape

    def shape(self, _name: str) -> Shape:
        return self._shape

    def set_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def enqueue(self, stream: Stream) -> None:
        n_bytes = 4 * prod(self._shape)
        given, wanted = self._addresses["snippets"], self._addresses["features"]
        driver.memcpy_dtod_async(wanted, given, n_bytes, stream.of_pycuda)  # type: ignore[attr-defined]

    def free(self) -> None:
        pass


def counted(name: str) -> int:
    return ctypes.c_int.in_dll(ctypes.CDLL(LIBRARY), name).value


def main() -> None:
    cuda = open_pycuda(0)
    print(cuda.identity)
    options = BackendOptions(max_batch=3)
    profiles = profiles_for(SIGNATURE, batch_sizes=batch_sizes_up_to(3), length=None)
    backend = TensorRtBackend(cuda, CopyingPlan(), SIGNATURE, profiles, options, "pycuda")
    backend.warm_up()
    live = counted("fake_live")
    rng = np.random.default_rng(0)
    for n_rows in (1, 2, 3, 4, 11):
        rows = rng.uniform(size=(n_rows, 5)).astype(np.float32)
        for _ in range(20):
            assert np.array_equal(rows, backend.run({"snippets": rows})["features"])
    assert live == counted("fake_live"), "running took something"
    assert 0 == counted("fake_depth"), "the GPU is still current"
    assert backend.memory().total == 1 << 30
    backend.close()
    backend.close()
    left = [counted(f"fake_{name}") for name in ("live", "retained", "depth")]
    assert [0, 0, 0] == left, f"left behind: {left}"
    print("right, and nothing is left")


try:
    main()
except DeviceError as told:
    print(f"DeviceError: {told}")
    sys.exit(1)
