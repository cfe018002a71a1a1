"""NumPy object arrays of public data sets, read without trusting the pickle inside.

THUMOS14's annotation arrays and its one-file feature package are object arrays: a pickle can call
anything its reader can import. As in `engine.published.checkpoint`, only the names that an array
needs are resolved, and none of them to NumPy's own code. What comes out is lists, text, numbers
and float32 arrays.
"""

import io
import math
import pickle
from pathlib import Path
from typing import NoReturn

import numpy as np
from typing_extensions import override

from engine.errors import DataError
from engine.types import FloatArray

_STATE_FIELDS = 5  # version, shape, dtype, Fortran order, bytes or a list of objects
_MODULES = frozenset({"numpy.core.multiarray", "numpy._core.multiarray"})
_CODES = {"f4": "<f4", "f8": "<f8", "i8": "<i8", "i4": "<i4"}
_OBJECT_CODE = "O8"
_MAX_DEPTH = 2


def is_object_array(path: Path) -> bool:
    """Does this ``.npy`` hold a pickle?

    Raises:
        DataError: It is no ``.npy``.
    """
    with _open(path) as file:
        return _header(path, file)[1].hasobject


def read_objects(path: Path) -> list[object]:
    """The entries of a one-dimensional object array.

    Raises:
        DataError: It is damaged, or holds anything but lists, text, numbers and float arrays.
    """
    with _open(path) as file:
        shape, dtype = _header(path, file)
        if not dtype.hasobject:
            raise DataError(f"{path} holds {dtype}, wanted objects: download it again")
        try:
            tree = _ArrayUnpickler(file, encoding="bytes").load()
        except _ForeignError as error:
            raise DataError(
                f"{path} holds {error}, which no published file does: refused; download it again"
            ) from error
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
            raise DataError(
                f"{path} is damaged ({type(error).__name__}: {error!s:.80}): download it again"
            ) from error
    if not isinstance(tree, _Array) or tree.items is None or shape != (len(tree.items),):
        raise DataError(f"{path} holds no list of objects of shape {shape}: download it again")
    done: dict[int, list[object]] = {}
    return [_plain(path, item, done, 0) for item in tree.items]


class _ForeignError(Exception):
    """The pickle names something that no array needs."""


class _ArrayClass:
    """Stands for ``numpy.ndarray`` where a pickle names the class of an array."""


class _Dtype:
    """Stands for ``numpy.dtype``; numbers and objects only."""

    def __init__(self, code: object, *_flags: object) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code
        if self.code not in _CODES and self.code != _OBJECT_CODE:
            _refuse(f"an array of dtype {code!r:.80}")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or state[1:2] not in {("<",), ("|",), (b"<",), (b"|",)}:
            _refuse(f"a dtype state {state!r:.80}")


class _Array:
    """Stands for an array until its bytes or its objects arrive."""

    def __init__(self) -> None:
        self.values: FloatArray | None = None
        self.items: list[object] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != _STATE_FIELDS:
            _refuse("an array whose state is not (version, shape, dtype, order, content)")
        _version, shape, dtype, fortran, content = state
        if not _is_shape(shape) or not isinstance(dtype, _Dtype):
            _refuse("an array without a plain shape and dtype")
        if dtype.code == _OBJECT_CODE:
            if not isinstance(content, list) or math.prod(shape) != len(content):
                _refuse(f"an object array of shape {shape} without its objects")
            self.items = content
        else:
            self.values = _numbers(shape, _CODES[str(dtype.code)], fortran, content)


def _numbers(shape: tuple[int, ...], code: str, fortran: object, content: object) -> FloatArray:
    if not isinstance(content, bytes) or math.prod(shape) * int(code[-1]) != len(content):
        _refuse(f"an array of shape {shape} without its bytes")
    flat = np.frombuffer(content, code).astype(np.float32)  # a copy, as bytes are read-only
    return flat.reshape(shape, order="F" if fortran else "C")


def _new_array(*_class_shape_code: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        _refuse("bytes that are not latin-1 text")
    return text.encode("latin-1")


class _ArrayUnpickler(pickle.Unpickler):
    @override
    def find_class(self, module: str, name: str) -> object:
        known: dict[tuple[str, str], object] = {
            ("numpy", "ndarray"): _ArrayClass,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): _encode,
        }
        if module in _MODULES and name == "_reconstruct":
            return _new_array
        if (module, name) in known:
            return known[module, name]
        return _refuse(f"{module}.{name}")

    @override
    def persistent_load(self, pid: object) -> object:
        _refuse(f"a reference to something outside it, {pid!r:.80}")


def _plain(path: Path, item: object, done: dict[int, list[object]], depth: int) -> object:
    """Lists nest at most as deep as segments do: video, interval, time.

    Each list is converted once, however often a small pickle refers to it.
    """
    if isinstance(item, _Array):
        if item.values is not None:
            return item.values
        item = item.items or []
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, str | int | float):
        return item
    if not isinstance(item, list | tuple) or depth == _MAX_DEPTH:
        raise DataError(
            f"{path} holds a {type(item).__name__} where text or a number should be: refused; "
            "download it again"
        )
    if id(item) not in done:
        done[id(item)] = [_plain(path, entry, done, depth + 1) for entry in item]
    return done[id(item)]


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)


def _open(path: Path) -> io.BytesIO:
    try:
        return io.BytesIO(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error


def _header(path: Path, file: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _fortran, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no .npy file ({error!s:.80}): download it again") from error
    return shape, dtype


def _refuse(what: str) -> NoReturn:
    raise _ForeignError(what)
