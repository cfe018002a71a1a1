"""A checkpoint pickled as nested dicts of NumPy arrays, read without trusting it."""

import io
from typing import NoReturn

from engine.errors import WeightsError
from engine.files.safe_arrays import (
    PICKLE_DAMAGE,
    ForeignPickleError,
    PickledArray,
    read_pickled,
)
from engine.types import FloatArray


def read_arrays(blob: bytes) -> dict[str, FloatArray]:
    """Every array, of any shape, of a pickled tree of dicts, by its path, ``/`` between keys.

    Raises:
        WeightsError: It is no pickle, or holds anything but dicts of float32 arrays.
    """
    try:
        return _flatten(read_pickled(io.BytesIO(blob), ["f4"]))
    except ForeignPickleError as error:
        _refuse(str(error))
    except PICKLE_DAMAGE as error:
        raise WeightsError(
            f"the checkpoint is damaged: {type(error).__name__}: {error}"
        ) from error


def _flatten(tree: object) -> dict[str, FloatArray]:
    """Arrays of any shape by path; no dict may be met twice, or a small pickle could grow huge."""
    arrays: dict[str, FloatArray] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", tree)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, PickledArray) and node.values is not None:
            arrays[path] = node.values
        elif isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend((f"{path}/{key}" if path else f"{key}", node[key]) for key in node)
        else:
            _refuse(f"a {type(node).__name__} at {path!r:.80}, wanted a dict of arrays")
    return arrays


def _refuse(what: str) -> NoReturn:
    raise WeightsError(f"the checkpoint holds {what}: it is not the published file")
