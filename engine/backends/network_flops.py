"""How much arithmetic a network is: what a measured speed is to be compared with."""

from collections.abc import Mapping
from math import prod
from typing import Any

from engine.errors import BundleError

Shape = tuple[int, ...]

_PER_MULTIPLY_ADD = 2


def network_flops(model: Any, shapes: Mapping[str, Shape]) -> int:
    """Floating-point operations of a network's convolutions and matrix products.

    All else (activations, pooling, normalisation) is left out: it is little, and bound by memory.
    A multiplication with its addition counts as two.

    Args:
        model: An ONNX model.
        shapes: The shape of every input, by name.

    Raises:
        BundleError: The shapes inside the network cannot be told from those of its inputs.
    """
    inside = _shapes(model, shapes)
    return sum(_node_flops(node, inside) for node in model.graph.node)


def _node_flops(node: Any, shapes: Mapping[str, Shape]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    try:
        first, second, out = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    except KeyError as error:
        raise BundleError(f"{node.op_type} {node.name!r}: no shape is known of {error}") from error
    return _PER_MULTIPLY_ADD * _multiply_adds(node, first, second, out)


def _multiply_adds(node: Any, first: Shape, second: Shape, out: Shape) -> int:
    if node.op_type == "Conv":  # weights (out, in / groups, *kernel), a dot product per output
        return prod(out) * prod(second[1:])
    if node.op_type == "ConvTranspose":  # weights (in, out / groups, *kernel), one per input
        return prod(first) * prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return prod(out) * first[0 if transposed else 1]
    return prod(out) * first[-1]


def _shapes(model: Any, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of every tensor whose shape can be told, by name."""
    import onnx  # noqa: PLC0415 - heavy

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    for value in fixed.graph.input:
        if value.name in weights:
            continue
        if value.name not in given:
            raise BundleError(f'no shape was given for input "{value.name}"')
        for dim, length in zip(value.type.tensor_type.shape.dim, given[value.name], strict=True):
            dim.dim_value = length
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = [*inferred.input, *inferred.value_info, *inferred.output]
    return {**weights, **{value.name: _fixed(value) for value in known if _is_fixed(value)}}


def _is_fixed(value: Any) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)


def _fixed(value: Any) -> Shape:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
