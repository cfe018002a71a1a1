"""A separable layer in numbers: how many channels it gets, and its weights by least squares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.errors import DataError
from engine.types import FloatArray
from training.precision.separable_graph import Fit, Float64, Layer

_CHANNELS_AT_ONCE = 8  # vector units take so many
_NO_SHARE = 1e-9  # of the variance: rounding
_PLACES_AT_ONCE = 2048  # adding two large squares takes longer than a product of few rows
_RIDGE = 1e-3  # of the mean variance of what a layer takes
_TINY = 1e-30  # where nothing varies at all
_LEAST = 1e-6  # of the largest variance of a direction; a smaller one counts as that much


@dataclass(frozen=True, slots=True)
class Moments:
    """What a layer takes, ``t`` values, and gives, ``g`` of them: means and covariances.

    Attributes:
        taken: Means (t,).
        given: Means (g,).
        square: Covariances of what is taken, (t, t).
        cross: Covariances of what is taken with what is given, (t, g).
    """

    taken: Float64
    given: Float64
    square: Float64
    cross: Float64


@dataclass(frozen=True, slots=True)
class Split:
    """Channels between space and time.

    Attributes:
        basis: What each channel sees of a moment, (channels, values).
        over_time: The weights behind them, (out, frames, channels).
    """

    basis: Float64
    over_time: Float64

    def channels(self, taken: FloatArray) -> FloatArray:
        """What the layer takes, (n, frames x values) → the channels, (n, frames x channels)."""
        frames = self.over_time.shape[1]
        moments = taken.reshape(len(taken), frames, -1)
        return (moments @ self.basis.T.astype(np.float32)).reshape(len(taken), -1)


class Sums:
    """It adds up what a layer takes and gives at many places."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: list[Float64] = []
        self._waiting: list[tuple[FloatArray, FloatArray]] = []

    def add(self, taken: FloatArray, given: FloatArray) -> None:
        """Count n places: float32 (n, t) and (n, g).

        Raises:
            DataError: Something is not finite.
        """
        if not (np.isfinite(taken).all() and np.isfinite(given).all()):
            raise DataError("the network gives numbers inside that are not finite")
        self._waiting.append((taken, given))
        self._n += len(taken)
        if sum(len(rows) for rows, _ in self._waiting) >= _PLACES_AT_ONCE:
            self._fold()

    def _fold(self) -> None:
        taken, given = (
            np.concatenate(rows, dtype=np.float64) for rows in zip(*self._waiting, strict=True)
        )
        self._waiting.clear()
        seen = [taken.sum(0), given.sum(0), taken.T @ taken, taken.T @ given]
        if not self._sums:
            self._sums = seen
            return
        for total, value in zip(self._sums, seen, strict=True):
            np.add(total, value, out=total)

    def moments(self) -> Moments:
        """Give the moments of all places."""
        if self._waiting:
            self._fold()
        taken, given, square, cross = (total / self._n for total in self._sums)
        return Moments(
            taken, given, square - np.outer(taken, taken), cross - np.outer(taken, given)
        )


def channels_for(
    work: float, multiply_adds: int, layers: Mapping[str, tuple[Layer, Float64]]
) -> dict[str, int | None]:
    """Share work out: channels go where they keep most variance for it, some at a time.

    Args:
        work: Multiply-adds wanted of the whole network, as a share of ``multiply_adds``.
        multiply_adds: Of the whole network as it is.
        layers: Layers that can be split, by name, and the covariance of what they take, (frames
            x values, frames x values).

    Returns:
        Channels between space and time by layer; None: it stays one convolution.

    Raises:
        DataError: So little work is not to be had.
    """
    choices = {name: _choices(layer, square) for name, (layer, square) in layers.items()}
    fixed = multiply_adds - sum(layer.convolution.multiply_adds for layer, _ in layers.values())
    left = work * multiply_adds - fixed - sum(found[0].work for found in choices.values())
    if left < 0:
        raise DataError(
            f"the work wanted is {work:.2f} of the original's, but what cannot be split and the "
            f"fewest channels for the rest are {work - left / multiply_adds:.2f}"
        )
    chosen = dict.fromkeys(choices, 0)
    while True:
        steps = {
            n: (choices[n][at], choices[n][at + 1])
            for n, at in chosen.items()
            if choices[n][at + 1 :]
        }
        gains = {
            name: (after.share - now.share) / (after.work - now.work)
            for name, (now, after) in steps.items()
            if after.work - now.work <= left and after.share - now.share > _NO_SHARE
        }
        if not gains:
            return {name: choices[name][at].channels for name, at in chosen.items()}
        best = max(gains, key=lambda name: gains[name])
        now, after = steps[best]
        left -= after.work - now.work
        chosen[best] += 1


def split_of(layer: Layer, square: Float64, n_channels: int) -> Split:
    """The channels that tell most, given the covariance of what a layer takes in the original.

    In int8 all channels have one step, and all weights of an output another. So that the weak ones
    keep digits in both, a channel's values and its weights are made equally large (Nagel et al.,
    Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section
    4.1); in f32 that changes nothing.
    """
    basis, over_time = _channels(layer, square)
    basis, over_time = basis[:n_channels], over_time[:, :, :n_channels]
    # As they come, all channels vary by one.
    size = np.sqrt(np.maximum(np.linalg.norm(over_time, axis=(0, 1)), _TINY))
    return Split(basis * size[:, None], over_time / size)


def fitted(layer: Layer, moments: Moments, split: Split | None) -> Fit:
    """Find a layer's two convolutions, or its one, that give what the original gave.

    Args:
        layer: The layer.
        moments: Of what it takes, frame by frame (frames x in x rows x columns), or of its
            channels (frames x channels), and of what the original gives.
        split: Between space and time; None: it stays one.
    """
    n_out, n_in, frames, rows, columns = layer.weight.shape
    over_time = _by_frame(layer) if split is None else split.over_time
    flat, bias = _corrected(over_time.reshape(n_out, -1), moments)
    if split is None:
        whole = flat.reshape(n_out, frames, n_in, rows, columns).transpose(0, 2, 1, 3, 4)
        return Fit(None, whole, bias)
    weight = flat.reshape(n_out, frames, -1, 1, 1).transpose(0, 2, 1, 3, 4)
    return Fit(split.basis.reshape(-1, n_in, 1, rows, columns), weight, bias)


@dataclass(frozen=True, slots=True)
class _Choice:
    channels: int | None
    share: float  # of the variance of what is given
    work: int  # multiply-adds


def _choices(layer: Layer, square: Float64) -> list[_Choice]:
    """From the fewest channels to the whole, each more work than the one before."""
    n_out, _, frames, _, _ = layer.weight.shape
    each = layer.places * (layer.strides[0] * layer.n_taken + frames * n_out)
    whole = layer.convolution.multiply_adds
    basis, _ = _channels(layer, square)
    n_most = min(len(basis), (whole - 1) // each)
    shares = _shares(layer, square, basis[:n_most])
    found = [
        _Choice(n, float(shares[n - 1]), n * each)
        for n in range(_CHANNELS_AT_ONCE, n_most + 1, _CHANNELS_AT_ONCE)
    ]
    return [*found, _Choice(None, 1.0, whole)]


def _shares(layer: Layer, square: Float64, basis: Float64) -> Float64:
    """Share of the variance of what a layer gives that so many first channels tell, (channels,).

    With the channels in turn, every step of a Cholesky factorization adds what one tells beyond
    those before it.
    """
    n_out, _, frames, _, _ = layer.weight.shape
    weight = _by_frame(layer).reshape(n_out, -1)
    # channel by channel, frame by frame
    through = np.einsum("cv,fg->cfgv", basis, np.eye(frames)).reshape(-1, frames * layer.n_taken)
    given = square @ weight.T
    seen = through @ square @ through.T
    seen[np.diag_indices_from(seen)] += max(_LEAST * seen.diagonal().max(initial=0.0), _TINY)
    told = np.linalg.solve(np.linalg.cholesky(seen), through @ given)
    by_channel = (told**2).sum(axis=1).reshape(-1, frames).sum(axis=1)
    total = float((weight * given.T).sum())
    return np.cumsum(by_channel) / max(total, np.finfo(np.float64).tiny)


def _channels(layer: Layer, square: Float64) -> tuple[Float64, Float64]:
    """Channels between space and time, those that tell most first, and the weights behind them.

    The covariance of what a layer takes is near to a product of one over time and one over space
    (places of a still picture change together, those of a moving one do not); with that, singular
    vectors of the weights lose least.

    Args:
        layer: The layer.
        square: Covariance of what it takes, (frames x values, frames x values).

    Returns:
        (channels, values), and (out, frames, channels).
    """
    weight = _by_frame(layer)
    n_out, frames, n_values = weight.shape
    by_frame = square.reshape(frames, n_values, frames, n_values)
    over_space = np.mean([by_frame[frame, :, frame] for frame in range(frames)], axis=0)
    heeded = np.einsum("ofv,ofw->vw", weight, weight)
    over_time = np.einsum("fvgw,vw->fg", by_frame, heeded)
    over_time /= max(np.trace(over_time) / frames, np.finfo(np.float64).tiny)
    variances, axes = _positive(over_space)
    of_time, time_axes = _positive(over_time)
    root = (time_axes * np.sqrt(of_time)) @ time_axes.T
    whitened = weight @ (axes * np.sqrt(variances))
    mixed = np.einsum("fg,ogv->ofv", root, whitened).reshape(n_out * frames, n_values)
    _, _, right = np.linalg.svd(mixed, full_matrices=False)
    return right @ (axes / np.sqrt(variances)).T, whitened @ right.T


def _positive(square: Float64) -> tuple[Float64, Float64]:
    """Variances along axes, none of them too small to divide by, and the axes, (n, n)."""
    variances, axes = np.linalg.eigh(square)
    return np.maximum(variances, max(float(variances[-1]) * _LEAST, _TINY)), axes


def _by_frame(layer: Layer) -> Float64:
    """The weights as (out, frames, values)."""
    n_out, _, frames, _, _ = layer.weight.shape
    by_frame = layer.weight.astype(np.float64).transpose(0, 2, 1, 3, 4)
    return by_frame.reshape(n_out, frames, -1)


def _corrected(weight: Float64, moments: Moments) -> tuple[Float64, Float64]:
    """Least squares around (g, t) weights, held to them where the snippets tell little.

    Returns:
        Weights (g, t) and biases (g,).
    """
    ridge = max(_RIDGE * np.trace(moments.square) / len(moments.square), _TINY)
    left_over = moments.cross - moments.square @ weight.T
    step = np.linalg.solve(moments.square + ridge * np.eye(len(moments.square)), left_over)
    found = weight + step.T
    return found, moments.given - found @ moments.taken
