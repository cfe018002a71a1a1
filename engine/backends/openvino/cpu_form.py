"""A network in the form in which OpenVINO's CPU plugin runs it best. Bundles stay plain.

- Half precision is widened to f32: a CPU without such arithmetic widens it anyway, and then finds
  its fast convolutions. A CPU that has bf16 is told so by its precision hint.
- Int8 behind a ReLU becomes uint8. TensorRT wants int8 with zero point 0. OpenVINO 2026.4 shifts
  that by 128 on the way to its kernels, and loses the step of tensors that go through a MaxPool
  on the way to a concatenation (features of I3D: cosine .89 to f32, where the file says .997).
  Values below zero do not occur, so uint8 with the same step and zero point 0 is the same number
  up to 127 steps, the calibrated range; beyond it int8 clips, and uint8 not yet.
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_KEEP_THE_SIGN = frozenset({"Concat", "MaxPool"})
_ZERO = "uint8/zero"


def cpu_form(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The network with half precision as f32, int8 above zero as uint8; None: it has neither."""
    formed = onnx.ModelProto()
    formed.CopyFrom(model)
    is_changed = _widen(formed.graph) | _drop_signs(formed.graph)
    if not is_changed:
        return None
    del formed.graph.value_info[:]  # it would still tell the old types
    return formed


def _widen(graph: onnx.GraphProto) -> bool:
    widened = False
    for weight in graph.initializer:
        if weight.data_type in _HALVES:
            values = numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
            widened = True
    for node in graph.node:
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i in _HALVES:
                item.i = TensorProto.FLOAT
                widened = True
            elif item.name == "value" and item.t.data_type in _HALVES:  # Constant, ConstantOfShape
                values = numpy_helper.to_array(item.t).astype(np.float32)
                item.t.CopyFrom(numpy_helper.from_array(values, item.t.name))
                widened = True
    return widened


def _drop_signs(graph: onnx.GraphProto) -> bool:
    producers = {name: node for node in graph.node for name in node.output}
    weights = {weight.name: weight for weight in graph.initializer}
    changed = set()
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and _may_drop(node, producers, weights):
            node.input[2] = _ZERO
            changed.add(node.output[0])
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in changed:
            node.input[2] = _ZERO
    if changed:
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), _ZERO))
    return bool(changed)


def _may_drop(
    node: onnx.NodeProto,
    producers: dict[str, onnx.NodeProto],
    weights: dict[str, onnx.TensorProto],
) -> bool:
    if len(node.input) < 3 or node.input[2] not in weights:  # noqa: PLR2004 - no zero point
        return False
    zero = weights[node.input[2]]
    is_symmetric = zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any()
    return is_symmetric and _is_positive(node.input[0], producers)


def _is_positive(tensor: str, producers: dict[str, onnx.NodeProto]) -> bool:
    """Can no value be below zero? Only what a network of convolutions has is known here."""
    node = producers.get(tensor)
    if node is None or node.op_type not in _KEEP_THE_SIGN:
        return node is not None and node.op_type == "Relu"
    return all(_is_positive(name, producers) for name in node.input)
