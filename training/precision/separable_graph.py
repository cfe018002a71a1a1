"""Which convolutions of a network could be separable, and the same network with them so."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from engine.published.int8_graph import Convolution, ConvolutionGraph
from engine.types import FloatArray

Float64 = npt.NDArray[np.float64]

_N_DIMS = 5  # out, in, frames, rows, columns
_SPATIAL = "/spatial"


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution over frames, rows and columns.

    Attributes:
        convolution: Its names and its work.
        bias: Name of an initializer, float32 (out,).
        weight: float32 (out, in, frames, rows, columns).
        strides: Over frames, rows and columns.
        pads: Before all three, then behind them.
    """

    convolution: Convolution
    bias: str
    weight: FloatArray
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of its output."""
        return self.convolution.name

    @property
    def places(self) -> int:
        """Number of places of its output in one snippet."""
        return self.convolution.multiply_adds // self.weight.size

    @property
    def n_out(self) -> int:
        """Number of its output's channels."""
        return len(self.weight)

    @property
    def n_taken(self) -> int:
        """Number of values it takes of one moment: in x rows x columns."""
        return int(np.prod(self.weight.shape[1:2] + self.weight.shape[3:]))

    @property
    def can_split(self) -> bool:
        """Whether it reaches over both time and space."""
        _, _, frames, rows, columns = self.weight.shape
        return bool(frames > 1 and rows * columns > 1)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a layer becomes.

    Attributes:
        spatial: The convolution over space, (channels, in, 1, rows, columns); None: it stays one.
        weight: Of the convolution over time, (out, channels, frames, 1, 1), or of the whole.
        bias: (out,).
    """

    spatial: Float64 | None
    weight: Float64
    bias: Float64


def layers_of(graph: ConvolutionGraph) -> dict[str, Layer]:
    """The convolutions that a fit can take the place of, by the name of their output."""
    nodes = {node.output[0]: node for node in graph.model.graph.node}
    uses = Counter(taken for node in nodes.values() for taken in node.input)
    found = {}
    for convolution in graph.convolutions:
        attributes = {
            attribute.name: helper.get_attribute_value(attribute)
            for attribute in nodes[convolution.name].attribute
        }
        weight = graph.weights[convolution.weight]
        is_plain = (
            weight.ndim == _N_DIMS
            and attributes.get("group", 1) == 1
            and all(step == 1 for step in attributes.get("dilations", ()))
            and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        )
        is_plain &= uses[convolution.weight] == 1  # else a fit would change another layer too
        if is_plain and convolution.bias is not None and uses[convolution.bias] == 1:
            strides, pads = attributes.get("strides", (1, 1, 1)), attributes.get("pads", (0,) * 6)
            found[convolution.name] = Layer(
                convolution, convolution.bias, weight, tuple(strides), tuple(pads)
            )
    return found


def with_fits(
    graph: ConvolutionGraph, layers: Mapping[str, Layer], fits: Mapping[str, Fit]
) -> onnx.ModelProto:
    """Write the network with each fit in its layer's place."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.value_info[:]
    changed: dict[str, Float64] = {}
    for node in graph.model.graph.node:
        fit = fits.get(node.output[0])
        if fit is None:
            model.graph.node.append(node)
            continue
        layer = layers[node.output[0]]
        changed[layer.convolution.weight], changed[layer.bias] = fit.weight, fit.bias
        if fit.spatial is None:
            model.graph.node.append(node)
            continue
        changed[layer.convolution.weight + _SPATIAL] = fit.spatial
        model.graph.node.extend(_in_two(layer, fit.spatial.shape[3:]))
    kept = [weight for weight in graph.model.graph.initializer if weight.name not in changed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        for name, value in changed.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _in_two(layer: Layer, space: tuple[int, ...]) -> list[onnx.NodeProto]:
    """Write it over space, without a bias so that a padded frame stays zero, then over time."""
    over_space, (before, top, left, behind, bottom, right) = layer.name + _SPATIAL, layer.pads
    weight = layer.convolution.weight
    return [
        helper.make_node(
            "Conv",
            [layer.convolution.taken, weight + _SPATIAL],
            [over_space],
            name=over_space,
            kernel_shape=[1, *space],
            strides=[1, *layer.strides[1:]],
            pads=[0, top, left, 0, bottom, right],
        ),
        helper.make_node(
            "Conv",
            [over_space, weight, layer.bias],
            [layer.name],
            name=layer.name,
            kernel_shape=[layer.weight.shape[2], 1, 1],
            strides=[layer.strides[0], 1, 1],
            pads=[before, 0, 0, behind, 0, 0],
        ),
    ]
