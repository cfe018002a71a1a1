"""Pickles of NumPy arrays, read without trusting them.

A pickle can call anything its reader can import. This reader resolves the few names that an array
needs, and none to NumPy's own code: array headers and bytes are checked here and become float32
arrays. What holds the arrays (dicts, lists, text, numbers) is the caller's to check.
"""

import math
import pickle
from collections.abc import Callable, Sequence
from typing import BinaryIO, NoReturn

import numpy as np
from typing_extensions import override

from engine.types import FloatArray

# What pickle documents that damaged data may raise, and what the checks here do.
PICKLE_DAMAGE: tuple[type[Exception], ...] = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)

_OBJECT = "O8"
_ARRAY_CLASS = object()  # stands for ``numpy.ndarray``, which only names the class of an array
# ndarray.__reduce__ names its module differently in NumPy 1 and 2.
_RECONSTRUCT = ("numpy.core.multiarray", "numpy._core.multiarray")
_STATE_FIELDS = 5  # version, shape, dtype, Fortran order, bytes or a list of objects


class ForeignPickleError(Exception):
    """The pickle names or holds something that is not admitted; the message says what."""


class PickledArray:
    """An array of a pickle; one of the two is None, both until its content arrives.

    Attributes:
        values: An array of numbers, float32 of any shape, the caller's own.
        items: What an array of objects holds, in order.
    """

    def __init__(self) -> None:
        self.values: FloatArray | None = None
        self.items: list[object] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != _STATE_FIELDS:
            _refuse("an array whose state is not (version, shape, dtype, order, content)")
        _version, shape, dtype, fortran, content = state
        if not _is_shape(shape) or not isinstance(dtype, _Dtype):
            _refuse("an array without a plain shape and dtype")
        if dtype.code == _OBJECT:
            if not isinstance(content, list) or math.prod(shape) != len(content):
                _refuse(f"an object array of shape {shape} without its objects")
            self.items = content
        else:
            self.values = _numbers(shape, f"<{dtype.code}", fortran, content)


def read_pickled(file: BinaryIO, numbers: Sequence[str], *, objects: bool = False) -> object:
    """What is pickled in ``file``; every array in it is a ``PickledArray``.

    Args:
        file: At the pickle's first byte.
        numbers: Codes of the types that an array may hold, such as ``f4``; little-endian.
        objects: May an array hold objects? Byte strings of Python 2 are read as well then.

    Raises:
        ForeignPickleError: It holds anything else that would have to be imported.
        PICKLE_DAMAGE: It is damaged; any one of these is raised.
    """
    codes = (*numbers, _OBJECT) if objects else tuple(numbers)
    return _ArrayUnpickler(file, codes, encoding="bytes" if objects else "ASCII").load()


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, codes: Sequence[str], *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._known: dict[tuple[str, str], object] = {
            **{(module, "_reconstruct"): _new_array for module in _RECONSTRUCT},
            ("numpy", "ndarray"): _ARRAY_CLASS,
            ("numpy", "dtype"): _dtype_of(codes),
        }
        if _OBJECT in codes:
            self._known["_codecs", "encode"] = _encode

    @override
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._known:
            _refuse(f"{module}.{name}")
        return self._known[module, name]

    @override
    def persistent_load(self, pid: object) -> object:
        _refuse(f"a reference to something outside it, {pid!r:.80}")


class _Dtype:
    """Stands for a ``numpy.dtype`` of an admitted code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        order = "|" if self.code == _OBJECT else "<"
        if not isinstance(state, tuple) or state[1:2] not in {(order,), (order.encode(),)}:
            _refuse(f"a dtype state {state!r:.80}, wanted little-endian {_names([self.code])}")


def _dtype_of(codes: Sequence[str]) -> Callable[..., _Dtype]:
    def dtype(code: object, *_flags: object) -> _Dtype:
        text = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or text not in codes:
            _refuse(f"an array of dtype {code!r:.80}, wanted {_names(codes)}")
        return _Dtype(text)

    return dtype


def _new_array(*_class_shape_code: object) -> PickledArray:
    return PickledArray()


def _encode(text: object, encoding: object) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        _refuse("bytes that are not latin-1 text")
    return text.encode("latin-1")


def _numbers(shape: tuple[int, ...], code: str, fortran: object, content: object) -> FloatArray:
    """The numbers in an array's bytes, float32 of ``shape``, which may be any."""
    if not isinstance(content, bytes):
        _refuse(f"an array of shape {shape} without its bytes")
    if math.prod(shape) * int(code[-1]) != len(content):
        _refuse(f"an array of shape {shape} in {len(content)} bytes")
    flat = np.frombuffer(content, code).astype(np.float32)  # a copy, as bytes are read-only
    return flat.reshape(shape, order="F" if fortran else "C")


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)


def _names(codes: Sequence[str]) -> str:
    return " or ".join(np.dtype(code).name for code in codes)


def _refuse(what: str) -> NoReturn:
    raise ForeignPickleError(what)
