"""Where a network of convolutions can be int8, and the same network with that written into it.

A tensor that convolutions take is *quantized*: rounded to whole multiples, -128..127, of a *step*.
It comes from *sources*, the nearest tensors before it that are not mere maxima or concatenations
of others. These share one step, so that the maxima and concatenations can be of int8 too.

Quantization is written as pairs of QuantizeLinear and DequantizeLinear (QDQ) around real
arithmetic. It is symmetric (zero point 0), as TensorRT demands, and a runtime fuses the pairs into
its int8 kernels. Weights are int8 in the file, with one step for each output channel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference
from typing_extensions import override

from engine.errors import BundleError
from engine.types import FloatArray

Array = npt.NDArray[Any]

HIGHEST = 127  # int8; -128 has no counterpart and is left out for weights

# A CPU without VNNI adds two products of uint8 and int8 in 16 bits. Behind a ReLU, 2 x 127 x 127
# fits. A tensor with signs is shifted to 0..255 on the way: 2 x 255 x 64 fits, with 127 it would
# not (measured: cosine .95 of single snippets).
HIGHEST_BEHIND_SIGNS = 64

_TINY = 1e-12  # the step of a channel without weights may be anything but 0

# Rounding before these or after them gives the same, if all that they take has one step.
_TRANSPARENT = frozenset({"Concat", "MaxPool"})


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution with constant weights.

    Attributes:
        name: Name of its output tensor.
        taken: Name of its input tensor.
        weight: Name of an initializer, float32 (out, in / group, *kernel).
        bias: Name of an initializer, float32 (out,), or None.
        multiply_adds: Number of multiply-adds in a batch of one.
        highest: Largest absolute value of its weights in int8.
    """

    name: str
    taken: str
    weight: str
    bias: str | None
    multiply_adds: int
    highest: int


class ConvolutionGraph:
    """What of a network could be int8. The network is never changed.

    Args:
        model: The network in f32; its free batch dimension counts as one.

    Raises:
        BundleError: The network has no convolution.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.weights = {
            weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer
        }
        self._producers = {name: node for node in model.graph.node for name in node.output}
        shapes = _shapes(model)
        self.convolutions = tuple(
            self._described(node, shapes) for node in model.graph.node if self._counts(node)
        )
        if not self.convolutions:
            raise BundleError("the backbone has no convolution: there is nothing for int8 to gain")

    def sources(self, tensor: str) -> tuple[str, ...]:
        """Return the tensors that ``tensor`` is maxima and concatenations of, or else itself."""
        node = self._producers.get(tensor)
        if node is None or node.op_type not in _TRANSPARENT:
            return (tensor,)
        found = [source for taken in node.input for source in self.sources(taken)]
        return tuple(dict.fromkeys(found))

    def groups(self, kept: frozenset[str] = frozenset()) -> tuple[tuple[str, ...], ...]:
        """Group the sources that must share one step, for all convolutions but ``kept``."""
        merged: dict[str, set[str]] = {}
        for convolution in self.convolutions:
            if convolution.name in kept:
                continue
            group = set(self.sources(convolution.taken))
            for source in tuple(group):
                group |= merged.get(source, set())
            merged.update(dict.fromkeys(group, group))
        order = {name: i for i, name in enumerate(self._producers)}
        unique = {min(group): group for group in merged.values()}.values()
        return tuple(
            tuple(sorted(group, key=lambda name: order.get(name, -1))) for group in unique
        )

    def share(self, kept: frozenset[str] = frozenset()) -> float:
        """Return the share of multiply-adds, in [0, 1], of all convolutions but ``kept``."""
        lowered = sum(c.multiply_adds for c in self.convolutions if c.name not in kept)
        return lowered / self.multiply_adds

    @property
    def multiply_adds(self) -> int:
        """Number of multiply-adds of all convolutions in a batch of one."""
        return sum(convolution.multiply_adds for convolution in self.convolutions)

    def _counts(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Conv" and node.input[1] in self.weights

    def _described(
        self, node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]
    ) -> Convolution:
        per_output = int(np.prod(self.weights[node.input[1]].shape[1:]))
        outputs = int(np.prod(shapes.get(node.output[0], (0,))))
        sources = [self._producers.get(source) for source in self.sources(node.input[0])]
        is_positive = all(source is not None and source.op_type == "Relu" for source in sources)
        return Convolution(
            name=node.output[0],
            taken=node.input[0],
            weight=node.input[1],
            bias=node.input[2] if len(node.input) > 2 else None,  # noqa: PLR2004 - given
            multiply_adds=per_output * outputs,
            highest=HIGHEST if is_positive else HIGHEST_BEHIND_SIGNS,
        )


def with_quantization(
    graph: ConvolutionGraph,
    weights: Mapping[str, FloatArray],
    steps: Mapping[str, float],
    kept: frozenset[str] = frozenset(),
    *,
    simulated: bool = False,
) -> onnx.ModelProto:
    """Write the network with QDQ pairs.

    Args:
        graph: The network.
        weights: Name → array (...), for initializers that differ from the network's own.
        steps: Source → the value that 1 of int8 stands for.
        kept: Convolutions that stay f32.
        simulated: True rounds in f32 instead, which gives on any CPU what int8 gives where nothing
            overflows.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    pairs = _Simulated(model.graph) if simulated else _Pairs(model.graph)
    highest = {c.name: c.highest for c in graph.convolutions if c.name not in kept}
    seen = _Rounding(pairs, steps)
    known = {**graph.weights, **weights}
    for value in graph.model.graph.input:
        seen.add(value.name)
    for node in graph.model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if i == 1 and node.output[0] in highest:
                copy.input[i] = pairs.weight(name, known[name], highest[node.output[0]])
            elif name in known:
                copy.input[i] = pairs.constant(name, known[name])
            else:
                copy.input[i] = seen.name(name)
        model.graph.node.append(copy)
        for name in node.output:
            seen.add(name)
    pairs.finish()
    return model


class _Rounding:
    """It knows which tensors have a rounded form, and what that is called."""

    def __init__(self, pairs: "_Pairs", steps: Mapping[str, float]) -> None:
        self._pairs = pairs
        self._steps = steps
        self._names: dict[str, str] = {}

    def add(self, tensor: str) -> None:
        if tensor in self._steps:
            self._names[tensor] = self._pairs.activation(tensor, self._steps[tensor])

    def name(self, tensor: str) -> str:
        return self._names.get(tensor, tensor)


class _Pairs:
    """It writes pairs of QuantizeLinear and DequantizeLinear, and constants."""

    def __init__(self, onto: onnx.GraphProto) -> None:
        self._onto = onto
        self._made: dict[str, Array] = {}

    def activation(self, name: str, step: float) -> str:
        """Round a tensor; give the rounded one's name."""
        steps = self.constant(f"{name}/int8/step", np.array(step, np.float32))
        zero = self.constant("int8/zero", np.array(0, np.int8))
        whole = self.node("QuantizeLinear", [name, steps, zero], f"{name}/int8")
        return self.node("DequantizeLinear", [whole, steps, zero], f"{name}/int8/rounded")

    def weight(self, name: str, value: FloatArray, highest: int) -> str:
        """Round a weight, float32 (out, ...); give the rounded one's name."""
        levels, step = rounded_weight(value, highest)
        whole = self.constant(f"{name}/int8", levels)
        steps = self.constant(f"{name}/int8/step", step)
        zeros = self.constant(f"{name}/int8/zero", np.zeros(len(step), np.int8))
        return self.node("DequantizeLinear", [whole, steps, zeros], f"{name}/int8/rounded", axis=0)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        """Append a node; give its output's name."""
        self._onto.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Keep a constant; give its name."""
        self._made[name] = value
        return name

    def finish(self) -> None:
        """Write the constants, in the order of their first use."""
        self._onto.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in self._made.items()
        )


class _Simulated(_Pairs):
    """It writes the same roundings in f32."""

    @override
    def activation(self, name: str, step: float) -> str:
        steps = self.constant(f"{name}/int8/step", np.array(step, np.float32))
        low = self.constant("int8/lowest", np.array(-HIGHEST - 1, np.float32))
        high = self.constant("int8/highest", np.array(HIGHEST, np.float32))
        scaled = self.node("Div", [name, steps], f"{name}/int8/scaled")
        whole = self.node("Round", [scaled], f"{name}/int8/whole")
        held = self.node("Clip", [whole, low, high], f"{name}/int8/held")
        return self.node("Mul", [held, steps], f"{name}/int8/rounded")

    @override
    def weight(self, name: str, value: FloatArray, highest: int) -> str:
        """Round a weight, float32 (out, ...), and keep it in f32."""
        levels, step = rounded_weight(value, highest)
        return self.constant(name, levels * spread(step, value.ndim))


def rounded_weight(weight: FloatArray, highest: int = HIGHEST) -> tuple[Array, FloatArray]:
    """Round weights to int8.

    Args:
        weight: float32 (out, in / group, *kernel), but any shape (out, ...) will do.
        highest: Largest absolute value in int8.

    Returns:
        int8 (out, ...), and for each output channel what 1 of int8 stands for, float32 (out,).
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    step = (np.maximum(largest, _TINY) / highest).astype(np.float32)
    levels = np.rint(weight / spread(step, weight.ndim)).clip(-highest, highest)
    return levels.astype(np.int8), step


def spread(by_channel: FloatArray, n_dims: int) -> FloatArray:
    """Reshape (out,) to (out, 1, ...), to go with a weight of so many dimensions."""
    return by_channel.reshape(-1, *[1] * (n_dims - 1))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = shape_inference.infer_shapes(model)
    return {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
