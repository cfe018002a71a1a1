"""How far floating point may stray from the exact answer, on any CPU: bounds instead of guesses.

A test computes the exact answer in float64, carries the bound along with it, and holds what the
code under test computed in float32 against both. The bounds hold whatever the order of a sum, its
blocks, its vector width, and with or without fused multiply-add; so no CPU and no library's choice
of a kernel can break them, and a real fault is caught as soon as it is larger than rounding.

Where numbers are so chosen that nothing rounds (whole numbers below 2^24, powers of two), a test
asks for equality to the bit instead, which is stronger.

Not here: float64's own rounding, 2^-29 of float32's, which the factor ``1 + 2^-20`` on each sum
pays for; underflow, which no test comes near.

Source: Higham, Accuracy and Stability of Numerical Algorithms (2nd ed., SIAM 2002): the model
fl(a op b) = (a op b)(1 + d), |d| <= u (section 2.2); gamma_n = n u / (1 - n u) and the bound of an
inner product in any order, gamma_n |x|.|y| (section 3.1, 3.5); errors carried along a computation
(section 3.3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

HALF_ULP = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
U = HALF_ULP["float32"]

# Roundings that one exp, log, tanh or sigmoid of float32 counts for. No standard says; measured
# over [-20, 20] in numpy, torch and OpenVINO, none was off by more than 4.6 u.
FUNCTION_ROUNDINGS = 8

_FLOAT64_PAYS = 1 + 2.0**-20


def gamma(n: int, unit: float = U) -> float:
    """What n roundings may do to a number, as a share of it."""
    if n * unit >= 1:
        raise ValueError(f"{n} roundings of {unit} leave nothing")
    return n * unit / (1 - n * unit)


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """What is computed, exactly, and how far float32 may be off it, element by element.

    Attributes:
        value: The exact answer.
        error: |computed - value| <= error.
    """

    value: F64
    error: F64

    @classmethod
    def exactly(cls, values: npt.ArrayLike) -> "Bounded":
        """Numbers as they are given: nothing was rounded yet."""
        array = np.asarray(values, np.float64)
        return cls(array, np.zeros_like(array))

    @property
    def most(self) -> F64:
        """The largest magnitude the computed number may have."""
        return np.abs(self.value) + self.error

    def rounded(self, n: int = 1, unit: float = U) -> "Bounded":
        """After n more roundings."""
        return Bounded(self.value, self.error + gamma(n, unit) * self.most)

    def __add__(self, other: "Bounded") -> "Bounded":
        return Bounded(self.value + other.value, self.error + other.error).rounded()

    def __sub__(self, other: "Bounded") -> "Bounded":
        return Bounded(self.value - other.value, self.error + other.error).rounded()

    def __mul__(self, other: "Bounded") -> "Bounded":
        error = self.most * other.most - np.abs(self.value * other.value)
        return Bounded(self.value * other.value, error).rounded()

    def __truediv__(self, other: "Bounded") -> "Bounded":
        """Where the divisor keeps its sign."""
        least = np.abs(other.value) - other.error
        if (least <= 0).any():
            raise ValueError("the divisor may be zero")
        value = self.value / other.value
        error = (self.error + np.abs(value) * other.error) / least
        return Bounded(value, error).rounded()

    def __matmul__(self, other: "Bounded") -> "Bounded":
        """n products and their sum: at most n roundings a term (the first sum is none)."""
        n = self.value.shape[-1]
        exact = self.value @ other.value
        most = self.most @ other.most
        carried = most - np.abs(self.value) @ np.abs(other.value)
        return Bounded(exact, (np.maximum(carried, 0) + gamma(n) * most) * _FLOAT64_PAYS)

    def __getitem__(self, where: object) -> "Bounded":
        return Bounded(self.value[where], self.error[where])  # type: ignore[index]

    def sum(self, axis: int | tuple[int, ...], *, keepdims: bool = False) -> "Bounded":
        value = self.value.sum(axis=axis, keepdims=keepdims)
        n = self.value.size // max(value.size, 1)
        most = self.most.sum(axis=axis, keepdims=keepdims)
        error = self.error.sum(axis=axis, keepdims=keepdims) + gamma(max(n - 1, 0)) * most
        return Bounded(value, error * _FLOAT64_PAYS)

    def mean(self, axis: int | tuple[int, ...], *, keepdims: bool = False) -> "Bounded":
        """A sum, then a division or a product with 1/n: two more roundings."""
        total = self.sum(axis, keepdims=keepdims)
        n = self.value.size // total.value.size
        return Bounded(total.value / n, total.error / n).rounded(2)

    def through(self, function: Callable[[F64], F64], *, slope: float = 1.0) -> "Bounded":
        """A function that float32 computes well, and that is nowhere steeper than ``slope``."""
        value = function(self.value)
        return Bounded(value, slope * self.error).rounded(FUNCTION_ROUNDINGS)

    def exp(self) -> "Bounded":
        value = np.exp(self.value)
        return Bounded(value, value * np.expm1(self.error)).rounded(FUNCTION_ROUNDINGS)

    def relu(self) -> "Bounded":
        """Exact itself, and no steeper than 1."""
        return Bounded(np.maximum(self.value, 0), self.error)


def convolved(
    x: Bounded,
    weight: npt.NDArray[np.float32],
    *,
    pads: Sequence[int],
    strides: Sequence[int] = (1, 1, 1),
) -> Bounded:
    """ONNX's Conv of (B, channels, T, H, W) without a bias, as products of its windows."""
    before, after = pads[:3], pads[3:]
    around = [(0, 0), (0, 0), *zip(before, after, strict=True)]
    kernel = weight.shape[2:]

    def windows(values: F64) -> F64:
        seen = np.lib.stride_tricks.sliding_window_view(np.pad(values, around), kernel, (2, 3, 4))
        seen = seen[:, :, :: strides[0], :: strides[1], :: strides[2]]
        moved = np.moveaxis(seen, 1, 4)  # (B, t, h, w, channels, *kernel)
        return moved.reshape(*moved.shape[:4], -1)

    flat = Bounded.exactly(weight.reshape(len(weight), -1).T)
    made = Bounded(windows(x.value), windows(x.error)) @ flat
    return Bounded(np.moveaxis(made.value, -1, 1), np.moveaxis(made.error, -1, 1))


def assert_within(seen: npt.ArrayLike, wanted: Bounded) -> None:
    """What was computed lies within its bound everywhere; NaN never does."""
    computed = np.asarray(seen, np.float64)
    assert computed.shape == wanted.value.shape
    off = np.abs(computed - wanted.value)
    inside = off <= wanted.error
    if not inside.all():
        worst = np.unravel_index(np.argmax(np.where(inside, -1.0, off)), off.shape)
        raise AssertionError(
            f"{int((~inside).sum())} of {inside.size} are out of bounds; at {worst}: "
            f"{computed[worst]!r}, wanted {wanted.value[worst]!r} +- {wanted.error[worst]:.3g}"
        )
