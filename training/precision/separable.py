"""A backbone for less work: f32 ONNX and real snippets → the same network, made separable.

A convolution over time and space becomes two: one over space into few channels, and one over time
out of them. Channels go where they save most of the variance that the snippets give a layer's
output, for the work that they cost, until the work allowed is done. What is lost is made up for,
from the first layer to the last, by least squares between what the lighter network gives a layer
and what the original gives behind it; so errors do not add up. Nothing is trained.

Sources: Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank Expansions
(BMVC 2014); Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and
Detection (TPAMI 2016), section 3.2, asymmetric reconstruction; space before time as in Tran et
al., A Closer Look at Spatiotemporal Convolutions for Action Recognition (CVPR 2018).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.backends.base import Tensor
from engine.errors import BundleError, DataError
from engine.files.onnx_bytes import serialized
from engine.published.int8_graph import ConvolutionGraph
from engine.types import FloatArray, UInt8Array
from training.precision.activations import activations, levels_of, load_f32
from training.precision.int8 import OnProgress
from training.precision.separable_fit import Moments, Sums, channels_for, fitted
from training.precision.separable_graph import Fit, Float64, Layer, layers_of, with_fits

_PLACES = 400  # of a layer's output, looked at in each snippet
_PLACES_PER_VALUE = 16  # that a layer takes of a moment; fewer would fit the snippets alone


@dataclass(frozen=True, slots=True)
class Separable:
    """A network made separable.

    Attributes:
        network: Serialised ONNX, f32.
        work: Multiply-adds of its convolutions, as a share of the original's.
        n_split: Number of convolutions that became two.
    """

    network: bytes
    work: float
    n_split: int


def to_separable(
    network: bytes,
    snippets: Sequence[UInt8Array],
    *,
    work: float,
    threads: int | None = None,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Separable:
    """Make every convolution separable of which the snippets tell enough.

    Args:
        network: Serialised ONNX in f32, whose one input takes a snippet.
        snippets: uint8 (L, H, W, 3) each, of footage like that which the network will see.
        work: Multiply-adds wanted, as a share of the original's, in (0, 1).
        threads: CPU threads of OpenVINO, which runs both networks here.
        on_progress: Gets the stage, how many inferences of it are done, and how many there are.

    Raises:
        BundleError: The network is not f32, or has nothing to split.
        DataError: The snippets tell too little of any layer, so little work is not to be had, or
            a number inside the network is not finite.
        DeviceError: OpenVINO is missing or failed.
    """
    graph = ConvolutionGraph(load_f32(network))
    layers = layers_of(graph)
    if not any(layer.can_split for layer in layers.values()):
        raise BundleError("the backbone has no convolution over both time and space to split")
    told_of = {n: layer for n, layer in layers.items() if _is_told_of(layer, len(snippets))}
    if not any(layer.can_split for layer in told_of.values()):
        raise DataError(
            f"{len(snippets)} snippets tell too little of any layer: take more with --snippets, "
            "of more footage"
        )
    levels = [[told_of[c.name] for c in level if c.name in told_of] for level in levels_of(graph)]
    levels = [level for level in levels if level]
    look = _Look(graph, layers, snippets, threads, len(levels) + 1, on_progress)
    squares = look.squares([layer for layer in told_of.values() if layer.can_split])
    channels = channels_for(
        work, graph.multiply_adds, {name: (layers[name], seen) for name, seen in squares.items()}
    )
    del squares  # hundreds of megabytes
    fits: dict[str, Fit] = {}
    for level in levels:
        moments = look.moments(level, fits)
        fits |= {
            layer.name: fitted(layer, moments[layer.name], channels.get(layer.name))
            for layer in level
        }
    model = with_fits(graph, layers, fits)
    done = ConvolutionGraph(model).multiply_adds / graph.multiply_adds
    n_split = sum(fit.spatial is not None for fit in fits.values())
    return Separable(serialized(model), done, n_split)


def _is_told_of(layer: Layer, n_snippets: int) -> bool:
    """Whether the snippets show enough places of a layer to fit it."""
    return min(layer.places, _PLACES) * n_snippets >= _PLACES_PER_VALUE * layer.n_taken


class _Look:
    """It looks at layers on snippets (L, H, W, 3), pass by pass."""

    def __init__(
        self,
        graph: ConvolutionGraph,
        layers: Mapping[str, Layer],
        snippets: Sequence[UInt8Array],
        threads: int | None,
        n_passes: int,
        on_progress: OnProgress,
    ) -> None:
        self._graph = graph
        self._layers = layers
        self._snippets = snippets
        self._threads = threads
        self._total = n_passes * len(snippets)
        self._done = 0
        self._on_progress = on_progress

    def squares(self, layers: Sequence[Layer]) -> dict[str, Float64]:
        """Covariances of what layers take in the original, (frames x values, frames x values)."""
        found = {layer.name: Sums() for layer in layers}
        for layer, patches, _ in self._places(layers, {}):
            found[layer.name].add(patches, patches[:, :1])
        return {name: sums.moments().square for name, sums in found.items()}

    def moments(self, level: Sequence[Layer], fits: Mapping[str, Fit]) -> dict[str, Moments]:
        """Of what layers of one level take, with these fits before them, and should give."""
        found = {layer.name: Sums() for layer in level}
        for layer, patches, given in self._places(level, fits):
            found[layer.name].add(patches, given)
        return {name: sums.moments() for name, sums in found.items()}

    def _places(
        self, level: Sequence[Layer], fits: Mapping[str, Fit]
    ) -> Iterator[tuple[Layer, FloatArray, FloatArray]]:
        """Give n places of each layer and snippet: (n, frames x values) taken, (n, out) given.

        Taken from the network with ``fits`` in it, given by the original.
        """
        rng = np.random.default_rng(0)
        for original, seen in self._runs(level, fits):
            for layer in level:
                given = original[layer.name][0]
                places = rng.choice(layer.places, min(layer.places, _PLACES), replace=False)
                at = np.unravel_index(np.sort(places), given.shape[1:])
                patches = _patches(seen[layer.convolution.taken][0], layer, at)
                yield layer, patches, np.ascontiguousarray(given[:, *at].T)
            self._done += 1
            self._on_progress("fitting layers", self._done, self._total)

    def _runs(
        self, level: Sequence[Layer], fits: Mapping[str, Fit]
    ) -> Iterator[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]:
        """What the original gives, and what the network so far has to take, by snippet."""
        names = [layer.name for layer in level]
        taken = sorted({layer.convolution.taken for layer in level})
        if not fits:  # they are one network still
            both = list(dict.fromkeys([*names, *taken]))
            for seen in activations(self._graph.model, both, self._snippets, self._threads):
                yield seen, seen
            return
        lighter = with_fits(self._graph, self._layers, fits)
        yield from zip(
            activations(self._graph.model, names, self._snippets, self._threads),
            activations(lighter, taken, self._snippets, self._threads),
            strict=True,
        )


def _patches(taken: FloatArray, layer: Layer, at: tuple[npt.NDArray[np.intp], ...]) -> FloatArray:
    """What a layer takes of (in, frames, rows, columns) at n places: (n, frames x values)."""
    before, top, left, behind, bottom, right = layer.pads
    padded = np.pad(taken, ((0, 0), (before, behind), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, layer.weight.shape[2:], axis=(1, 2, 3)
    )
    # (in, n, frames, rows, columns)
    frame, row, column = (i * step for i, step in zip(at, layer.strides, strict=True))
    there: FloatArray = windows[:, frame, row, column]
    return there.transpose(1, 2, 0, 3, 4).reshape(there.shape[1], -1).astype(np.float32)
