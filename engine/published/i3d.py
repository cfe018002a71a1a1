"""Inception-I3D as an ONNX graph, built from the arrays of a published checkpoint.

Batch norm is folded into the convolutions in float64. The graph takes snippets as they leave the
sampler, uint8 (B, L, H, W, 3), and gives the global average of ``Mixed_5c``, float32 (B, 1024).

Source: Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017); layer names and
padding as in kinetics-i3d, ``i3d.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.files.onnx_bytes import checked_model
from engine.types import FloatArray

FEATURE_DIM = 1024
SIDE_PX = 224
BATCH_NORM_EPSILON = 1e-3

# Pixels 0..255 become -1..1.
PIXEL_MEAN = 127.5
PIXEL_SCALE = 1 / 127.5

Extent = tuple[int, int, int]  # frames, rows, columns


@dataclass(frozen=True, slots=True)
class _Activation:
    """A tensor inside the graph: (B, channels, *extent)."""

    name: str
    channels: int
    extent: Extent


# Output channels of Branch_0, of Branch_1's and Branch_2's two convolutions, and of Branch_3.
_MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

_POOL_BEFORE: dict[str, tuple[Extent, Extent]] = {  # kernel, stride
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def build_backbone(
    arrays: Mapping[str, FloatArray], snippet_frames: int, side_px: int = SIDE_PX
) -> onnx.ModelProto:
    """The feature network: snippets uint8 (B, L, H, W, 3) → features float32 (B, 1024).

    Args:
        arrays: Checkpoint arrays by path, e.g. ``params/Mixed_3b/Branch_0/Conv3d_0a_1x1/Conv_0/
            kernel``, kernels as (frames, rows, columns, in, out).
        snippet_frames: L.
        side_px: Side of the square it sees; the network itself takes any.

    Raises:
        KeyError: An array is missing.
        ValueError: An array has another shape than the architecture says.
    """
    build = _Builder(arrays)
    net = build.pixels((snippet_frames, side_px, side_px))
    net = build.unit(net, "Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2))
    net = build.max_pool(net, "MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2))
    net = build.unit(net, "Conv3d_2b_1x1", 64, (1, 1, 1))
    net = build.unit(net, "Conv3d_2c_3x3", 192, (3, 3, 3))
    for name, channels in _MIXED.items():
        if name in _POOL_BEFORE:
            net = build.max_pool(net, f"{name}/MaxPool3d_before", *_POOL_BEFORE[name])
        net = build.mixed(net, name, channels)
    return build.finish(net, snippet_frames, side_px)


class _Builder:
    """Collects a graph's nodes and weights from checkpoint arrays, by path and of any shape."""

    def __init__(self, arrays: Mapping[str, FloatArray]) -> None:
        self._arrays = arrays
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []

    def pixels(self, extent: Extent) -> _Activation:
        """uint8 (B, L, H, W, 3) → float32 (B, 3, L, H, W) in [-1, 1]."""
        real = self._node("Cast", ["snippets"], "pixels/real", to=TensorProto.FLOAT)
        mean = self._weight("pixels/mean", np.array(PIXEL_MEAN, np.float32))
        scale = self._weight("pixels/scale", np.array(PIXEL_SCALE, np.float32))
        centred = self._node("Sub", [real, mean], "pixels/centred")
        scaled = self._node("Mul", [centred, scale], "pixels/scaled")
        name = self._node("Transpose", [scaled], "pixels", perm=[0, 4, 1, 2, 3])
        return _Activation(name, 3, extent)

    def unit(
        self,
        net: _Activation,
        path: str,
        channels: int,
        kernel: Extent,
        stride: Extent = (1, 1, 1),
    ) -> _Activation:
        """Convolution without bias, batch norm without scale, ReLU."""
        weight, bias = folded_convolution(self._arrays, path, (*kernel, net.channels, channels))
        inputs = [
            net.name,
            self._weight(f"{path}/weight", weight),
            self._weight(f"{path}/bias", bias),
        ]
        pads = same_padding(net.extent, kernel, stride)
        convolved = self._node(
            "Conv", inputs, f"{path}/convolved", kernel_shape=kernel, strides=stride, pads=pads
        )
        name = self._node("Relu", [convolved], path)
        return _Activation(name, channels, _strided(net.extent, stride))

    def max_pool(self, net: _Activation, path: str, kernel: Extent, stride: Extent) -> _Activation:
        """Maximum over a window; what lies outside the picture never wins."""
        pads = same_padding(net.extent, kernel, stride)
        name = self._node(
            "MaxPool", [net.name], path, kernel_shape=kernel, strides=stride, pads=pads
        )
        return _Activation(name, net.channels, _strided(net.extent, stride))

    def mixed(
        self, net: _Activation, path: str, channels: tuple[int, int, int, int, int, int]
    ) -> _Activation:
        """An Inception module: four branches side by side."""
        direct, reduced_1, out_1, reduced_2, out_2, pooled = channels
        one, three = (1, 1, 1), (3, 3, 3)
        branch_0 = self.unit(net, f"{path}/Branch_0/Conv3d_0a_1x1", direct, one)
        branch_1 = self.unit(net, f"{path}/Branch_1/Conv3d_0a_1x1", reduced_1, one)
        branch_1 = self.unit(branch_1, f"{path}/Branch_1/Conv3d_0b_3x3", out_1, three)
        branch_2 = self.unit(net, f"{path}/Branch_2/Conv3d_0a_1x1", reduced_2, one)
        branch_2 = self.unit(branch_2, f"{path}/Branch_2/Conv3d_0b_3x3", out_2, three)
        branch_3 = self.max_pool(net, f"{path}/Branch_3/MaxPool3d_0a_3x3", three, one)
        branch_3 = self.unit(branch_3, f"{path}/Branch_3/Conv3d_0b_1x1", pooled, one)
        branches = [branch_0, branch_1, branch_2, branch_3]
        name = self._node("Concat", [branch.name for branch in branches], path, axis=1)
        return _Activation(name, sum(branch.channels for branch in branches), net.extent)

    def finish(self, net: _Activation, snippet_frames: int, side_px: int) -> onnx.ModelProto:
        """Average over frames, rows and columns; check the whole."""
        pooled = self._node("GlobalAveragePool", [net.name], "features/pooled")
        self._node("Flatten", [pooled], "features", axis=1)
        snippets = helper.make_tensor_value_info(
            "snippets", TensorProto.UINT8, ["B", snippet_frames, side_px, side_px, 3]
        )
        features = helper.make_tensor_value_info(
            "features", TensorProto.FLOAT, ["B", net.channels]
        )
        graph = helper.make_graph(
            self._nodes, "i3d", [snippets], [features], initializer=self._weights
        )
        return checked_model(graph)

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _weight(self, name: str, value: FloatArray) -> str:
        """Add a weight of any shape; give its name."""
        self._weights.append(numpy_helper.from_array(value, name))
        return name


def folded_convolution(
    arrays: Mapping[str, FloatArray], path: str, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """One convolution with its batch norm inside.

    Args:
        arrays: Checkpoint arrays by path.
        path: The layer's path.
        shape: (frames, rows, columns, in, out) of the kernel.

    Returns:
        Kernel float32 (out, in, frames, rows, columns) and bias float32 (out,).
    """
    n_out = shape[-1]
    kernel = array_of(arrays, f"params/{path}/Conv_0/kernel", shape).astype(np.float64)
    shift = array_of(arrays, f"params/{path}/BatchNorm_0/bias", (n_out,)).astype(np.float64)
    statistics = f"batch_stats/{path}/BatchNorm_0"
    mean, variance = (
        array_of(arrays, f"{statistics}/{what}", (1, 1, 1, 1, n_out)).reshape(n_out)
        for what in ("mean", "var")
    )
    gain = 1 / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
    weight = np.ascontiguousarray((kernel * gain).transpose(4, 3, 0, 1, 2), np.float32)
    return weight, (shift - mean * gain).astype(np.float32)


def array_of(arrays: Mapping[str, FloatArray], path: str, shape: tuple[int, ...]) -> FloatArray:
    """One checkpoint array, float32, which must have ``shape``.

    Raises:
        KeyError: It is missing.
        ValueError: It has another shape.
    """
    if path not in arrays:
        raise KeyError(f"the checkpoint has no array {path}")
    if arrays[path].shape != shape:
        raise ValueError(f"{path} is {arrays[path].shape}, wanted {shape}")
    return arrays[path]


def same_padding(extent: Extent, kernel: Extent, stride: Extent) -> list[int]:
    """ONNX ``pads`` that give ceil(extent / stride) outputs; an odd one goes to the end."""
    total = [
        max((-(-size // step) - 1) * step + width - size, 0)
        for size, width, step in zip(extent, kernel, stride, strict=True)
    ]
    return [pad // 2 for pad in total] + [pad - pad // 2 for pad in total]


def _strided(extent: Extent, stride: Extent) -> Extent:
    frames, rows, columns = (-(-size // step) for size, step in zip(extent, stride, strict=True))
    return frames, rows, columns
