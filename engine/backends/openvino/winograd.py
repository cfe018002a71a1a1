"""A faster form of 3-D convolutions over time: the same sums with half the multiplications.

Where a network has a 3x3x3 convolution of stride 1, four output frames need six products instead
of twelve: six fixed combinations of the input frames are each convolved in the plane, and four
combinations of the results are the answer. It is exact but for rounding (features of I3D move by
4e-6), and bundles stay plain: a backend applies it to its own copy where it pays.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016), F(4, 3).
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

TILE = 4  # output frames of a tile
SEEN = 6  # input frames of a tile
MIN_CHANNELS = 64  # with fewer, the combinations cost more than they save

INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
) / np.array([[24]])
OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)

_FRAME_AXIS = 2  # (B, channels, frames, rows, columns)


def with_fast_convolutions(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The same network with its large 3x3x3 convolutions rewritten; None if it has none."""
    frames = _frames_by_tensor(model)
    weights = {weight.name: weight for weight in model.graph.initializer}
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.graph.node[:]
    for node in model.graph.node:
        n_frames = frames.get(node.input[0] if node.input else "", 0)
        if _pays(node, weights, n_frames):
            _Rewriter(rewritten.graph, node, weights).rewrite(n_frames // TILE)
        else:
            rewritten.graph.node.append(node)
    return rewritten if len(rewritten.graph.node) > len(model.graph.node) else None


def _frames_by_tensor(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.value_info}
    return {
        name: dims[_FRAME_AXIS].dim_value
        for name, dims in shapes.items()
        if len(dims) == 5  # noqa: PLR2004
    }


def _pays(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], n_frames: int) -> bool:
    if node.op_type != "Conv" or node.input[1] not in weights or n_frames == 0 or n_frames % TILE:
        return False
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    _out, channels, *kernel = weights[node.input[1]].dims
    return (
        channels >= MIN_CHANNELS
        and kernel == [3, 3, 3]
        and given.get("pads") == [1] * 6
        and given.get("strides", [1, 1, 1]) == [1, 1, 1]
        and given.get("dilations", [1, 1, 1]) == [1, 1, 1]
        and given.get("group", 1) == 1
    )


class _Rewriter:
    """Replaces one convolution; everything it adds is named after the convolution's output."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        convolution: onnx.NodeProto,
        weights: dict[str, onnx.TensorProto],
    ) -> None:
        self._graph = graph
        self._convolution = convolution
        self._weights = weights

    def rewrite(self, n_tiles: int) -> None:
        source, kernel_name, *bias = self._convolution.input
        kernel = numpy_helper.to_array(self._weights[kernel_name]).astype(np.float64)
        pads = self._constant("pads", np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 0]))
        padded = self._node("Pad", [source, pads], "padded")
        # seen[k]: frame k of every tile, so n_tiles frames
        seen = [self._frames(padded, k, n_tiles, TILE, f"seen{k}") for k in range(SEEN)]
        products = []
        for i in range(SEEN):
            mixed = self._combine(INPUT[i], seen, f"mixed{i}")
            plane = np.einsum("k,oikyx->oiyx", KERNEL[i], kernel)[:, :, None]
            weight = self._constant(f"kernel{i}", np.ascontiguousarray(plane, np.float32))
            products.append(
                self._node("Conv", [mixed, weight], f"product{i}", pads=[0, 1, 1, 0, 1, 1])
            )
        made = [self._combine(OUTPUT[k], products, f"made{k}") for k in range(TILE)]
        in_time = [
            self._frames(made[k], tile, 1, 1, f"frame{TILE * tile + k}")
            for tile in range(n_tiles)
            for k in range(TILE)
        ]
        self._finish(in_time, bias)

    def _finish(self, frames: Sequence[str], bias: Sequence[str]) -> None:
        output = self._convolution.output[0]
        if not bias:
            self._graph.node.append(
                helper.make_node("Concat", frames, [output], name=output, axis=_FRAME_AXIS)
            )
            return
        joined = self._node("Concat", frames, "joined", axis=_FRAME_AXIS)
        values = numpy_helper.to_array(self._weights[bias[0]])
        column = self._constant("bias", values.reshape(1, -1, 1, 1, 1))
        self._graph.node.append(helper.make_node("Add", [joined, column], [output], name=output))

    def _frames(self, source: str, first: int, count: int, step: int, name: str) -> str:
        end = first + (count - 1) * step + 1
        bounds = [("first", first), ("end", end), ("axis", _FRAME_AXIS), ("step", step)]
        inputs = [self._constant(f"{name}/{what}", np.array([value])) for what, value in bounds]
        return self._node("Slice", [source, *inputs], name)

    def _combine(self, shares: np.ndarray, tensors: Sequence[str], name: str) -> str:
        """The sum of six ``tensors``, each times its number in ``shares`` (6,)."""
        terms = []
        for i, (share, tensor) in enumerate(zip(shares, tensors, strict=True)):
            if share == 1:
                terms.append(tensor)
            elif share:
                factor = self._constant(f"{name}/share{i}", np.array(share, np.float32))
                terms.append(self._node("Mul", [tensor, factor], f"{name}/term{i}"))
        total = terms[0]
        for i, term in enumerate(terms[1:]):
            total = self._node("Add", [total, term], f"{name}/sum{i}")
        return total

    def _node(self, kind: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        output = f"{self._convolution.output[0]}/{name}"
        self._graph.node.append(
            helper.make_node(kind, inputs, [output], name=output, **attributes)
        )
        return output

    def _constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant of any shape; give its name."""
        full = f"{self._convolution.output[0]}/{name}"
        self._graph.initializer.append(numpy_helper.from_array(value, full))
        return full
