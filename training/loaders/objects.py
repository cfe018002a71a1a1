"""NumPy object arrays of public data sets, read without trusting the pickle inside.

THUMOS14's annotation arrays and its one-file feature package are object arrays. What comes out of
them is lists, text, numbers and float32 arrays.
"""

import io
from pathlib import Path

import numpy as np

from engine.errors import DataError
from engine.files.safe_arrays import (
    PICKLE_DAMAGE,
    ForeignPickleError,
    PickledArray,
    read_pickled,
)

_NUMBERS = ("f4", "f8", "i4", "i8")
_MAX_DEPTH = 2


def is_object_array(path: Path) -> bool:
    """Say whether a ``.npy`` holds a pickle.

    Raises:
        DataError: The file is no ``.npy``.
    """
    with _open(path) as file:
        return _header(path, file)[1].hasobject


def read_objects(path: Path) -> list[object]:
    """Read the entries of a one-dimensional object array.

    Raises:
        DataError: The file is damaged, or holds anything but lists, text, numbers and float
            arrays.
    """
    with _open(path) as file:
        shape, dtype = _header(path, file)
        if not dtype.hasobject:
            raise DataError(f"{path} holds {dtype}, wanted objects: download it again")
        try:
            tree = read_pickled(file, _NUMBERS, objects=True)
        except ForeignPickleError as error:
            raise DataError(
                f"{path} holds {error}, which no published file does: refused; download it again"
            ) from error
        except PICKLE_DAMAGE as error:
            raise DataError(
                f"{path} is damaged ({type(error).__name__}: {error!s:.80}): download it again"
            ) from error
    if not isinstance(tree, PickledArray) or tree.items is None or shape != (len(tree.items),):
        raise DataError(f"{path} holds no list of objects of shape {shape}: download it again")
    done: dict[int, list[object]] = {}
    return [_plain(path, item, done, 0) for item in tree.items]


def _plain(path: Path, item: object, done: dict[int, list[object]], depth: int) -> object:
    """Lists nest at most as deep as segments do: video, interval, time.

    Each list is converted once, however often a small pickle refers to it.
    """
    if isinstance(item, PickledArray):
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
