"""Objects whose pickles call something, or hold what no file of arrays does."""

import io
from collections import OrderedDict

import numpy as np


class Runs:
    """Pickles to a call."""

    def __init__(self, call: object, *arguments: object) -> None:
        self._call = (call, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self._call

    def __repr__(self) -> str:  # without an address: it names tests
        call, arguments = self._call
        return f"{getattr(call, '__name__', call)}{arguments}"


HOSTILE: tuple[object, ...] = (
    Runs(eval, "1"),
    Runs(getattr, 1, "real"),
    Runs(io.open, "/etc/passwd"),
    Runs(np.fromfile, "/etc/passwd"),
    Runs(np.load, "/etc/passwd"),
    OrderedDict(),
    np.dtype("float32").type,
    np.float32(1),
    np.array([1], np.dtype(">f4")),
    np.array([("x", 1)], np.dtype([("n", "U1"), ("v", "f4")])),
)
