"""Backends and precisions by their names, and how a name that is none is refused.

Whoever takes a name from a person checks it here first: before a scene is drawn, a bundle is read
or a device is opened.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Literal, cast, get_args

from engine.errors import BundleError, S2netdError

BackendKind = Literal["openvino", "tensorrt", "scripted"]
Precision = Literal["f32", "bf16", "int8", "auto"]
TensorRtPrecision = Literal["f32", "f16", "bf16", "int8", "auto"]

BACKENDS: tuple[str, ...] = get_args(BackendKind)
# What OpenVINO computes in where a network's file leaves it open.
ARITHMETICS = ("f32", "bf16")
# What a person may ask for.
PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "openvino": get_args(Precision),
    "tensorrt": get_args(TensorRtPrecision),
    "scripted": get_args(Precision),
}


def check_backend(
    backend: str, precision: str, *, options: tuple[str, str] = ("backend", "precision")
) -> BackendKind:
    """A backend by its name, which knows a precision of that name.

    Args:
        backend: One of ``BACKENDS``.
        precision: One of the backend's ``PRECISIONS``.
        options: What both are called where they come from.

    Raises:
        BundleError: There is none of such a name; it says which there are.
    """
    check_name(options[0], backend, BACKENDS)
    check_name(options[1], precision, PRECISIONS[backend])
    return cast("BackendKind", backend)


def check_name(
    what: str, name: str, known: Collection[str], error: type[S2netdError] = BundleError
) -> None:
    """Refuse a name that is not known.

    Args:
        what: What it names, e.g. ``--device``.
        name: As it was given.
        known: All there are.
        error: What to raise.

    Raises:
        S2netdError: ``error``, with all that are known and the one that was probably meant.
    """
    if name not in known:
        wanted = ", ".join(map(repr, known))
        raise error(f"{what} is {name!r}, wanted one of {wanted}{did_you_mean(name, known, 1)}")


def did_you_mean(name: str, known: Collection[str], at_most: int = 3) -> str:
    """``; did you mean 'this'?``, or nothing.

    Args:
        name: As it was given.
        known: All there are.
        at_most: How many to offer.
    """
    like = difflib.get_close_matches(name, known, n=at_most, cutoff=0.4)
    return f"; did you mean {', '.join(map(repr, like))}?" if like else ""
