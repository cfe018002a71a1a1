"""The one door to inference: named tensors in, named tensors out, all shapes checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError, DeviceError

Tensor = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, shape and NumPy dtype; ``None`` in the shape is any length >= 1."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def admits(self, tensor: Tensor) -> bool:
        """Is ``tensor``, which may have any shape, of this shape and dtype?"""
        return (
            str(tensor.dtype) == self.dtype
            and len(tensor.shape) == len(self.shape)
            and all(
                want == seen or (want is None and seen > 0)
                for want, seen in zip(self.shape, tensor.shape, strict=True)
            )
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """What a network takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class EngineBackend(Protocol):
    """A compiled network. Called from one thread; returned arrays are the caller's.

    The answer for one row of a batch does not depend on the other rows.
    """

    @property
    def signature(self) -> Signature:
        """What ``run`` takes and gives."""

    @property
    def description(self) -> str:
        """Backend, precision and device, for logs and reports, e.g. ``openvino f32 CPU``."""

    def warm_up(self) -> None:
        """Run once on zeros, so that the first real call does not pay for compilation."""

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Infer: tensors by name, with the shapes and dtypes that ``signature`` says.

        Raises:
            BundleError: A tensor is missing or of the wrong shape or dtype.
            DeviceError: The runtime failed.
        """

    def close(self) -> None:
        """Free the device; may be called twice."""


def check_tensors(specs: tuple[TensorSpec, ...], tensors: Mapping[str, Tensor], who: str) -> None:
    """Refuse tensors, by name and of any shape, that are not what their specs say.

    Raises:
        BundleError: A tensor does not fit; the message says what was seen and what was wanted.
    """
    for spec in specs:
        if spec.name not in tensors:
            raise BundleError(f'{who}: no tensor "{spec.name}"; seen {sorted(tensors)}')
        tensor = tensors[spec.name]
        if not spec.admits(tensor):
            raise BundleError(
                f'{who}: "{spec.name}" is {tensor.dtype} {tensor.shape}, '
                f"wanted {spec.dtype} {spec.shape}"
            )


__all__ = ["DeviceError", "EngineBackend", "Signature", "Tensor", "TensorSpec", "check_tensors"]
