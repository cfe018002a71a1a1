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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx

from engine.backends.base import Tensor
from engine.errors import BundleError, DataError
from engine.files.onnx_bytes import serialized
from engine.published.int8_graph import ConvolutionGraph
from engine.types import FloatArray, UInt8Array
from training.precision.activations import activations, levels_of, load_f32
from training.precision.int8 import OnProgress
from training.precision.separable_fit import (
    Moments,
    Split,
    Sums,
    channels_for,
    fitted,
    split_of,
)
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
        DataError: The snippets tell too little of any layer, so little work is not to be had, a
            number inside the network is not finite, or there is no room for temporary files.
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
    try:
        with TemporaryDirectory(prefix="s2net-") as folder:
            look = _Look(graph, told_of, snippets, threads, Path(folder), len(levels), on_progress)
            splits = _splits(graph, told_of, work, look.original())
            fits = _fits(levels, splits, look)
    except OSError as error:
        raise DataError(
            f"no place to keep what layers give, some 8 MB a snippet: {error}; take fewer with "
            "--snippets, or set TMPDIR to a folder with more room"
        ) from error
    model = with_fits(graph, layers, fits)
    done = ConvolutionGraph(model).multiply_adds / graph.multiply_adds
    n_split = sum(fit.spatial is not None for fit in fits.values())
    return Separable(serialized(model), done, n_split)


def _is_told_of(layer: Layer, n_snippets: int) -> bool:
    """Whether the snippets show enough places of a layer to fit it."""
    return min(layer.places, _PLACES) * n_snippets >= _PLACES_PER_VALUE * layer.n_taken


def _splits(
    graph: ConvolutionGraph, layers: Mapping[str, Layer], work: float, squares: dict[str, Float64]
) -> dict[str, Split]:
    """Channels of the layers that become two, from the covariances of what they take."""
    seen = {name: (layers[name], square) for name, square in squares.items()}
    channels = channels_for(work, graph.multiply_adds, seen)
    return {
        name: split_of(layers[name], squares[name], n)
        for name, n in channels.items()
        if n is not None
    }


def _fits(
    levels: Sequence[Sequence[Layer]], splits: Mapping[str, Split], look: "_Look"
) -> dict[str, Fit]:
    """Fit level by level, each to what those before it give."""
    fits: dict[str, Fit] = {}
    for level in levels:
        moments = look.moments(level, splits, fits)
        for layer in level:
            fits[layer.name] = fitted(layer, moments[layer.name], splits.get(layer.name))
    return fits


class _Look:
    """It looks at layers on snippets (L, H, W, 3), pass by pass.

    What the original gives is looked at once, at some places of each layer, and kept in files: it
    can be a gigabyte.
    """

    def __init__(
        self,
        graph: ConvolutionGraph,
        layers: Mapping[str, Layer],
        snippets: Sequence[UInt8Array],
        threads: int | None,
        folder: Path,
        n_levels: int,
        on_progress: OnProgress,
    ) -> None:
        self._graph = graph
        self._layers = layers
        self._snippets = snippets
        self._threads = threads
        self._given = {name: folder / str(number) for number, name in enumerate(layers)}
        self._total = (1 + n_levels) * len(snippets)
        self._done = 0
        self._on_progress = on_progress

    def original(self) -> dict[str, Float64]:
        """Look at the original; give covariances of what layers take that can be split.

        Returns:
            (frames x values, frames x values) by layer.
        """
        split = {name: layer for name, layer in self._layers.items() if layer.can_split}
        sums = {name: Sums() for name in split}
        shown = {*self._layers, *(layer.convolution.taken for layer in split.values())}
        with ExitStack() as stack:
            kept = {n: stack.enter_context(path.open("wb")) for n, path in self._given.items()}
            for number, seen in self._runs(self._graph.model, sorted(shown)):
                for name, layer in self._layers.items():
                    at = _places(layer, number)
                    given = np.ascontiguousarray(seen[name][0].reshape(layer.n_out, -1)[:, at].T)
                    kept[name].write(given.astype(np.float32).tobytes())
                    if name in split:
                        patches = _patches(seen[layer.convolution.taken][0], layer, at)
                        sums[name].add(patches, given[:, :0])  # what is given is not asked for
        return {name: found.moments().square for name, found in sums.items()}

    def moments(
        self, level: Sequence[Layer], splits: Mapping[str, Split], fits: Mapping[str, Fit]
    ) -> dict[str, Moments]:
        """Of what layers of one level take, with these fits before them, and should give."""
        found = {layer.name: Sums() for layer in level}
        taken = sorted({layer.convolution.taken for layer in level})
        lighter = with_fits(self._graph, self._layers, fits)
        with ExitStack() as stack:
            kept = {
                layer.name: stack.enter_context(self._given[layer.name].open("rb"))
                for layer in level
            }
            for number, seen in self._runs(lighter, taken):
                for layer in level:
                    at = _places(layer, number)
                    given = np.frombuffer(kept[layer.name].read(4 * len(at) * layer.n_out), "f4")
                    patches = _patches(seen[layer.convolution.taken][0], layer, at)
                    split = splits.get(layer.name)
                    patches = patches if split is None else split.channels(patches)
                    found[layer.name].add(patches, given.reshape(len(at), -1))
        return {name: sums.moments() for name, sums in found.items()}

    def _runs(
        self, model: onnx.ModelProto, tensors: Sequence[str]
    ) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        seen = activations(model, tensors, self._snippets, self._threads)
        for number, found in enumerate(seen):
            yield number, found
            self._done += 1
            self._on_progress("fitting layers", self._done, self._total)


def _places(layer: Layer, number: int) -> npt.NDArray[np.intp]:
    """Places (n,) of a layer's output to look at in a snippet of this number, in order."""
    rng = np.random.default_rng([number, layer.places])
    return np.sort(rng.choice(layer.places, min(layer.places, _PLACES), replace=False))


def _patches(taken: FloatArray, layer: Layer, places: npt.NDArray[np.intp]) -> FloatArray:
    """What a layer takes of (in, frames, rows, columns) at n places: (n, frames x values)."""
    before, top, left, behind, bottom, right = layer.pads
    padded = np.pad(taken, ((0, 0), (before, behind), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, layer.weight.shape[2:], axis=(1, 2, 3)
    )
    shape = [-(-n // step) for n, step in zip(windows.shape[1:4], layer.strides, strict=True)]
    at = np.unravel_index(places, shape)
    frame, row, column = (i * step for i, step in zip(at, layer.strides, strict=True))
    there: FloatArray = windows[:, frame, row, column]  # (in, n, frames, rows, columns)
    return there.transpose(1, 2, 0, 3, 4).reshape(len(places), -1).astype(np.float32)
