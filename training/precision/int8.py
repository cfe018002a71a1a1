"""A backbone in int8: f32 ONNX and real snippets → the same network with QDQ pairs.

QDQ is a QuantizeLinear node followed by a DequantizeLinear node. Ranges reach from the smallest
to the largest value that the snippets give, because features come from the largest activations,
and every clipping that was tried costs more than it saves. Then biases are corrected, from the
first convolution to the last: rounding shifts each channel's mean, and the bias takes the shift
out again. Nothing is trained.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction
(ICCV 2019), section 4.2, with measured instead of assumed means.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from engine.errors import DataError
from engine.published.int8 import Calibration, in_int8
from engine.published.int8_graph import HIGHEST, ConvolutionGraph, with_quantization
from engine.types import FloatArray, UInt8Array
from training.precision.activations import activations, levels_of, load_f32

OnProgress = Callable[[str, int, int], None]  # stage, done, total
Means = npt.NDArray[np.float64]  # (channels,)

# Means need fewer snippets than extremes do, and are measured once for each level of the network.
_SHARE_FOR_MEANS = 4
_LEAST_FOR_MEANS = 8


@dataclass(frozen=True, slots=True)
class Quantized:
    """A network in int8.

    Attributes:
        network: Serialised ONNX.
        int8_share: Share of the convolutions' multiply-adds that is in int8, in [0, 1].
        calibration: What was measured; with it, every machine writes the same network.
    """

    network: bytes
    int8_share: float
    calibration: Calibration


def to_int8(
    network: bytes,
    snippets: Sequence[UInt8Array],
    *,
    kept: frozenset[str] = frozenset(),
    threads: int | None = None,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Quantized:
    """Quantize every convolution but ``kept``.

    Args:
        network: Serialised ONNX in f32, whose one input takes a snippet.
        snippets: uint8 (L, H, W, 3) each, of footage like that which the network will see.
        kept: Names of convolutions' output tensors; these convolutions stay f32.
        threads: CPU threads of OpenVINO, which runs the f32 network here.
        on_progress: Gets the stage, how many inferences of it are done, and how many there are.

    Returns:
        The network; equal bytes for equal arguments on one machine.

    Raises:
        BundleError: The network is not f32, or has no convolution.
        DataError: There are no snippets, or they leave a tensor without any value but zero.
        DeviceError: OpenVINO is missing or failed.
    """
    if not snippets:
        raise DataError("int8 needs real snippets to measure ranges on: there are none")
    graph = ConvolutionGraph(load_f32(network))
    measure = _Measuring(threads)
    steps = _steps(graph, kept, measure, snippets, on_progress)
    few = list(snippets)[:: max(1, min(_SHARE_FOR_MEANS, len(snippets) // _LEAST_FOR_MEANS))]
    biases = _corrected_biases(graph, steps, kept, measure, few, on_progress)
    calibration = Calibration(steps, biases)
    return Quantized(in_int8(network, calibration, kept), graph.share(kept), calibration)


class _Measuring:
    """It runs a network on snippets, and looks at tensors inside it.

    Snippets are uint8 (L, H, W, 3) each, here as in all functions of this module.

    Args:
        threads: CPU threads of OpenVINO.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads

    def largest(
        self, model: onnx.ModelProto, tensors: Sequence[str], snippets: Iterable[UInt8Array]
    ) -> dict[str, float]:
        """Find the largest absolute value of each tensor over all snippets (L, H, W, 3)."""
        found = dict.fromkeys(tensors, 0.0)
        for seen in activations(model, tensors, snippets, self._threads):
            for name, value in seen.items():
                found[name] = max(found[name], float(np.abs(value).max()))
        return found

    def means(
        self, model: onnx.ModelProto, tensors: Sequence[str], snippets: Iterable[UInt8Array]
    ) -> dict[str, Means]:
        """Average each tensor (1, channels, ...) by channel over all snippets (L, H, W, 3)."""
        totals: dict[str, Means] = {}
        n_runs = 0
        for seen in activations(model, tensors, snippets, self._threads):
            n_runs += 1
            for name, value in seen.items():
                rows = value.reshape(value.shape[1], -1).mean(axis=1, dtype=np.float64)
                totals[name] = totals[name] + rows if name in totals else rows
        return {name: total / n_runs for name, total in totals.items()}


def _steps(
    graph: ConvolutionGraph,
    kept: frozenset[str],
    measure: _Measuring,
    snippets: Sequence[UInt8Array],
    on_progress: OnProgress,
) -> dict[str, float]:
    """Measure the int8 step of each source tensor on snippets (L, H, W, 3)."""
    groups = graph.groups(kept)
    sources = [source for group in groups for source in group]
    counted = _counted("measuring ranges", snippets, on_progress)
    largest = measure.largest(graph.model, sources, counted)
    silent = [source for source in sources if not np.isfinite(largest[source])]
    if silent:
        raise DataError(f"the network gives no finite number at {silent[0]}")
    steps: dict[str, float] = {}
    for group in groups:
        reach = max(largest[source] for source in group)
        if reach == 0:
            raise DataError(
                f"{group[0]} is zero on all of the footage: calibrate on footage of what happens"
            )
        steps.update(dict.fromkeys(group, float(np.float32(reach / HIGHEST))))
    return steps


def _corrected_biases(
    graph: ConvolutionGraph,
    steps: Mapping[str, float],
    kept: frozenset[str],
    measure: _Measuring,
    snippets: Sequence[UInt8Array],
    on_progress: OnProgress,
) -> dict[str, FloatArray]:
    """Find biases that give every channel its f32 mean, whatever was rounded before it.

    The snippets are (L, H, W, 3) each, the biases float32 (out,) by the name of their initializer.
    """
    stage = "correcting biases"
    levels = levels_of(graph)
    total = (len(levels) + 1) * len(snippets)
    names = [c.name for c in graph.convolutions]
    exact = measure.means(graph.model, names, _counted(stage, snippets, on_progress, 0, total))
    biases: dict[str, FloatArray] = {}
    for number, level in enumerate(levels, 1):
        model = with_quantization(graph, biases, steps, kept, simulated=True)
        counted = _counted(stage, snippets, on_progress, number * len(snippets), total)
        seen = measure.means(model, [c.name for c in level], counted)
        for c in level:
            if c.bias is not None:
                shift = exact[c.name] - seen[c.name]
                biases[c.bias] = (graph.weights[c.bias] + shift).astype(np.float32)
    return biases


def _counted(
    stage: str,
    snippets: Sequence[UInt8Array],
    on_progress: OnProgress,
    done: int = 0,
    total: int | None = None,
) -> Iterator[UInt8Array]:
    """Give the snippets (L, H, W, 3) one by one, and tell how many have been used."""
    for number, snippet in enumerate(snippets, 1):
        yield snippet
        on_progress(stage, done + number, total or len(snippets))
