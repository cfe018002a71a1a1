"""A network in half precision: f32 ONNX → the same network in f16 or bf16.

Heavy nodes (convolutions, matrix products), and nodes that only move their results around, are
lowered in weights and arithmetic. The precision is written into the file itself, so that a
strongly typed TensorRT network and OpenVINO read it from there. All else stays f32: pixels before
the first convolution, sums, means, softmax, logarithms. Inputs and outputs keep their types.
"""

from collections.abc import Iterable
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from engine.errors import BundleError
from engine.files.onnx_bytes import IR_VERSION, serialized

HalfPrecision = Literal["f16", "bf16"]

_TYPES = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_OPSET_BF16 = 22  # from here on ONNX lets Conv, MaxPool and AveragePool be bf16
_HIGHEST_F16 = 65504.0

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# These are exact in any precision, and all their float inputs are of one type.
_MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape"}
    | {"Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


def to_precision(network: bytes, precision: HalfPrecision) -> bytes:
    """Put the heavy part of a network into half precision.

    Args:
        network: Serialised ONNX in f32; single tensors may be of other types already.
        precision: ``f16`` has eleven bits of mantissa, but no value beyond 65504. ``bf16`` has
            eight bits and the range of f32; the file is then of opset 22.

    Returns:
        Serialised ONNX; equal bytes for equal arguments.

    Raises:
        BundleError: The network is no ONNX file, has control flow, or has a weight beyond f16's
            range.
    """
    model = _loaded(network)
    if precision == "bf16" and _opset(model) < _OPSET_BF16:
        model = version_converter.convert_version(model, _OPSET_BF16)
    lowering = _Lowering(model, _TYPES[precision])
    for node in model.graph.node:
        lowering.add(node)
    return _finished(model, lowering)


def _loaded(network: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(network)
        return shape_inference.infer_shapes(model, strict_mode=True)
    except (DecodeError, shape_inference.InferenceError) as error:
        raise BundleError(f"the network is no sound ONNX file: {error}") from error


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if not entry.domain), default=0)


def _finished(model: onnx.ModelProto, lowering: "_Lowering") -> bytes:
    graph = model.graph
    lowered = helper.make_graph(
        lowering.nodes, graph.name, graph.input, graph.output, initializer=lowering.weights()
    )
    done = helper.make_model(
        lowered,
        opset_imports=model.opset_import,
        ir_version=max(model.ir_version, IR_VERSION),
        producer_name=model.producer_name,
    )
    done.ClearField("producer_version")
    onnx.checker.check_model(done, full_check=True)
    return serialized(done)


class _Lowering:
    """It copies a graph node by node, and casts a tensor when a node wants it in the other type.

    Args:
        model: The network in f32, with shapes inferred.
        low: ONNX's number of the half-precision type.
    """

    def __init__(self, model: onnx.ModelProto, low: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._low = low
        self._suffix = helper.tensor_dtype_to_string(low).rpartition(".")[2].lower()
        graph = model.graph
        self._constants = {weight.name: weight for weight in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._f32 = _f32_tensors(graph)
        # (a tensor's name in the original, wanted type) → its name in the copy
        self._names: dict[tuple[str, int], str] = {}
        self._kept: dict[str, onnx.TensorProto] = {}

    def add(self, node: onnx.NodeProto) -> None:
        """Copy one node, in the type that it should have.

        Raises:
            BundleError: The node holds another graph, or a weight cannot be lowered.
        """
        if any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute):
            raise BundleError(
                f"node {node.name or node.op_type} holds a graph of its own: export in f32"
            )
        kind = self._type_of(node)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.ClearField("input")
        copy.input.extend(self._input(name, kind) for name in node.input)
        self.nodes.append(copy)
        for i, name in enumerate(node.output):
            if kind == self._low and name in self._f32:
                copy.output[i] = self._lowered_output(name)

    def weights(self) -> Iterable[onnx.TensorProto]:
        """Return the weights in use, in their types, in the order of their first use."""
        return self._kept.values()

    def _type_of(self, node: onnx.NodeProto) -> int:
        computed = [name for name in node.input if self._is_computed(name)]
        are_low = bool(computed) and all((name, self._low) in self._names for name in computed)
        if node.op_type in _HEAVY and computed:
            return self._low
        return self._low if node.op_type in _MOVES and are_low else TensorProto.FLOAT

    def _is_computed(self, name: str) -> bool:
        return name in self._f32 and name not in self._constants

    def _input(self, name: str, kind: int) -> str:
        if name in self._constants:
            return self._constant(name, kind)
        if name not in self._f32:
            return name
        if (name, kind) in self._names:
            return self._names[name, kind]
        if kind == TensorProto.FLOAT and (name, self._low) not in self._names:
            return name  # computed in f32, wanted in f32
        source = self._names.get((name, self._low), name)
        # An output of the graph already exists in f32 under its own name.
        cast = f"{name}/{self._suffix if kind == self._low else 'f32'}"
        self.nodes.append(helper.make_node("Cast", [source], [cast], name=cast, to=kind))
        self._names[name, kind] = cast
        return cast

    def _lowered_output(self, name: str) -> str:
        if name not in self._outputs:
            self._names[name, self._low] = name
            return name
        low = f"{name}/{self._suffix}"
        self.nodes.append(
            helper.make_node("Cast", [low], [name], name=f"{name}/f32", to=TensorProto.FLOAT)
        )
        self._names[name, self._low] = low
        self._names[name, TensorProto.FLOAT] = name
        return low

    def _constant(self, name: str, kind: int) -> str:
        weight = self._constants[name]
        if kind == TensorProto.FLOAT or weight.data_type != TensorProto.FLOAT:
            self._kept[name] = weight
            return name
        low = f"{name}/{self._suffix}"
        if low not in self._kept:
            self._kept[low] = self._rounded(weight, low)
        return low

    def _rounded(self, weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
        values = numpy_helper.to_array(weight)
        if self._low == TensorProto.BFLOAT16:
            rounded = values.astype(ml_dtypes.bfloat16)
        elif np.abs(values).max(initial=0) > _HIGHEST_F16:
            raise BundleError(
                f"weight {weight.name} reaches {np.abs(values).max():.3g}, f16 holds at most "
                f"{_HIGHEST_F16:.0f}: take bf16"
            )
        else:
            rounded = values.astype(np.float16)
        return numpy_helper.from_array(rounded, name)


def _f32_tensors(graph: onnx.GraphProto) -> frozenset[str]:
    typed = (*graph.input, *graph.output, *graph.value_info)
    computed = {v.name for v in typed if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {w.name for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    return frozenset(computed | weights)
