"""Which shapes a plan is built for: one optimization profile for each batch size.

In a profile the batch is fixed. A call is padded to the smallest profile that holds it, so every
call has one of a few shapes, and each of them can be recorded once as a CUDA graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.backends.base import Signature, TensorSpec
from engine.errors import BundleError

Shape = tuple[int, ...]
LengthRange = tuple[int, int, int]

_BATCH_AXIS = 0
_LENGTH_AXIS = 1


@dataclass(frozen=True, slots=True)
class InputShapes:
    """The shapes of one input within a profile.

    Attributes:
        name: Of the input.
        min: Smallest in every dimension.
        opt: What the plan is tuned for.
        max: Largest in every dimension.
    """

    name: str
    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max) > 0:
            raise ValueError(f"{self.name}: {self.min}, {self.opt}, {self.max} differ in rank")
        for low, best, high in zip(self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= best <= high:
                raise ValueError(
                    f"{self.name}: {self.min}, {self.opt}, {self.max}, wanted 1 <= min <= opt "
                    "<= max in every dimension"
                )

    def admits(self, shape: Shape) -> bool:
        """Does ``shape`` lie between min and max?"""
        return len(shape) == len(self.min) and all(
            low <= seen <= high for low, seen, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """One optimization profile: the shapes of every input of a network."""

    inputs: tuple[InputShapes, ...]

    def __post_init__(self) -> None:
        names = [shapes.name for shapes in self.inputs]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"inputs are {names}, wanted at least one, each once")

    def __getitem__(self, name: str) -> InputShapes:
        """The shapes of an input; KeyError if it has none of that name."""
        for shapes in self.inputs:
            if shapes.name == name:
                return shapes
        raise KeyError(name)

    @property
    def batch_size(self) -> int:
        """Rows of every call that runs under this profile."""
        return self.inputs[0].max[_BATCH_AXIS]

    def admits(self, shapes: Mapping[str, Shape]) -> bool:
        """Do these shapes, one for each input, lie between min and max?"""
        return set(shapes) == {given.name for given in self.inputs} and all(
            given.admits(shapes[given.name]) for given in self.inputs
        )


Profiles = tuple[ShapeProfile, ...]


def batch_sizes_up_to(max_batch: int) -> tuple[int, ...]:
    """Powers of two below ``max_batch``, and itself: padding at most doubles a call.

    Args:
        max_batch: At least 1.
    """
    if max_batch < 1:
        raise ValueError(f"max_batch is {max_batch}, wanted at least 1")
    powers = [1 << exponent for exponent in range(max_batch.bit_length())]
    return (*(size for size in powers if size < max_batch), max_batch)


def profiles_for(
    signature: Signature, *, batch_sizes: tuple[int, ...], length: LengthRange | None
) -> Profiles:
    """One profile for each batch size.

    Args:
        signature: The network's; the first dimension of every input is its batch (B), and a free
            second one is the length of a window (T, in snippets).
        batch_sizes: Rising, at least 1.
        length: (min, opt, max) of T; None for a network without a free one.

    Raises:
        BundleError: The network has a free dimension that nothing here gives a length, or its
            batch is fixed at another size.
    """
    if not batch_sizes or list(batch_sizes) != sorted({n for n in batch_sizes if n >= 1}):
        raise ValueError(f"batch_sizes are {batch_sizes}, wanted rising numbers from 1")
    return tuple(
        ShapeProfile(tuple(_shapes(spec, n_rows, length) for spec in signature.inputs))
        for n_rows in batch_sizes
    )


def smallest_profile(profiles: Profiles, n_rows: int) -> int:
    """Index of the profile of the smallest batch that holds ``n_rows``; the last if none does."""
    fitting = (i for i, profile in enumerate(profiles) if profile.batch_size >= n_rows)
    return next(fitting, len(profiles) - 1)


def _shapes(spec: TensorSpec, n_rows: int, length: LengthRange | None) -> InputShapes:
    low, best, high = length or (None, None, None)
    return InputShapes(
        spec.name,
        _filled(spec, n_rows, low),
        _filled(spec, n_rows, best),
        _filled(spec, n_rows, high),
    )


def _filled(spec: TensorSpec, n_rows: int, n_snippets: int | None) -> Shape:
    if not spec.shape or spec.shape[_BATCH_AXIS] not in (None, n_rows):
        raise BundleError(
            f'input "{spec.name}" is {spec.shape}, wanted a free first dimension to run batches '
            f"of {n_rows}: export the network again"
        )
    return (n_rows, *(_length(spec, axis, n_snippets) for axis in range(1, len(spec.shape))))


def _length(spec: TensorSpec, axis: int, n_snippets: int | None) -> int:
    fixed = spec.shape[axis]
    if fixed is not None:
        return fixed
    if axis != _LENGTH_AXIS or n_snippets is None:
        wanted = "a length for it" if axis == _LENGTH_AXIS else "a fixed one"
        raise BundleError(
            f'input "{spec.name}" is {spec.shape}: dimension {axis} is free, wanted {wanted}'
        )
    return n_snippets
