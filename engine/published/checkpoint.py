"""A checkpoint pickled as nested dicts of NumPy arrays, read without trusting it.

A pickle can call anything its reader can import. This reader resolves three names only, and none
to NumPy's own code: array headers and bytes are checked here and become float32 arrays.
"""

import io
import math
import pickle
from typing import NoReturn

import numpy as np
from typing_extensions import override

from engine.errors import WeightsError
from engine.types import FloatArray

# ndarray.__reduce__ names its module differently in NumPy 1 and 2.
_RECONSTRUCT = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)
_ARRAY_STATE_FIELDS = 5  # version, shape, dtype, Fortran order, bytes
_DTYPE_STATE_BYTE_ORDER = 1


def read_arrays(blob: bytes) -> dict[str, FloatArray]:
    """Every array of a pickled tree of dicts, by its path, ``/`` between keys.

    Raises:
        WeightsError: It is no pickle, or holds anything but dicts of float32 arrays.
    """
    try:
        tree = _ArrayUnpickler(io.BytesIO(blob)).load()
        return _flatten(tree)
    except WeightsError:
        raise
    except (  # what pickle documents that damaged data may raise, and what our own checks do
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
    ) as error:
        raise WeightsError(
            f"the checkpoint is damaged: {type(error).__name__}: {error}"
        ) from error


class _ArrayClass:
    """Stands for ``numpy.ndarray`` where a pickle names the class of an array."""


class _Dtype:
    """Stands for ``numpy.dtype``; float32 is the only one."""

    def __init__(self, code: object, *_flags: object) -> None:
        if code != "f4":
            _refuse(f"an array of dtype {code!r}, wanted float32")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or state[_DTYPE_STATE_BYTE_ORDER:2] != ("<",):
            _refuse(f"a dtype state {state!r:.80}, wanted little-endian float32")


class _Array:
    """Stands for an array until its bytes arrive."""

    def __init__(self) -> None:
        self.values: FloatArray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != _ARRAY_STATE_FIELDS:
            _refuse("an array whose state is not (version, shape, dtype, order, bytes)")
        _version, shape, dtype, fortran, data = state
        if not _is_shape(shape) or not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            _refuse("an array that is not float32 bytes of a plain shape")
        if math.prod(shape) * 4 != len(data):
            _refuse(f"an array of shape {shape} in {len(data)} bytes")
        self.values = np.frombuffer(data, "<f4").reshape(shape, order="F" if fortran else "C")


def _new_array(*_class_shape_code: object) -> _Array:
    return _Array()


class _ArrayUnpickler(pickle.Unpickler):
    @override
    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _RECONSTRUCT:
            return _new_array
        if (module, name) == ("numpy", "ndarray"):
            return _ArrayClass
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        return _refuse(f"{module}.{name}")

    @override
    def persistent_load(self, pid: object) -> object:
        _refuse(f"a reference to something outside it, {pid!r:.80}")


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)


def _flatten(tree: object) -> dict[str, FloatArray]:
    """No dict may be met twice, or a small pickle could unfold into a huge tree."""
    arrays: dict[str, FloatArray] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", tree)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, _Array) and node.values is not None:
            arrays[path] = node.values
        elif isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend((f"{path}/{key}" if path else f"{key}", node[key]) for key in node)
        else:
            _refuse(f"a {type(node).__name__} at {path!r:.80}, wanted a dict of arrays")
    return arrays


def _refuse(what: str) -> NoReturn:
    raise WeightsError(f"the checkpoint holds {what}: it is not the published file")
