"""A bundle's backbone run by torch, to compare runtimes on one and the same network.

It interprets the few ONNX operators that the I3D graph uses. It is for measuring and for parity,
not for training. Values inside are (B, channels, L, H, W).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from engine.types import FloatArray, UInt8Array

Attributes = dict[str, list[int] | int]
Operator = Callable[[list[torch.Tensor], Attributes], torch.Tensor]


class TorchBackbone:
    """A backbone ONNX file as a torch function.

    Args:
        path: ``backbone.onnx``.
        threads: CPU threads of torch, for the whole process; None leaves them as they are.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        graph = onnx.load(path).graph
        self._nodes = list(graph.node)
        self._weights = {
            weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy())
            for weight in graph.initializer
        }

    def run(self, snippets: UInt8Array) -> FloatArray:
        """Turn snippets uint8 (B, L, H, W, 3) into features float32 (B, D).

        Raises:
            KeyError: The file uses an operator that is not known here.
        """
        values = {"snippets": torch.from_numpy(snippets), **self._weights}
        with torch.inference_mode():
            for node in self._nodes:
                inputs = [values[name] for name in node.input if name]
                values[node.output[0]] = OPERATORS[node.op_type](inputs, _attributes(node))
        return np.asarray(values["features"].numpy(), np.float32)


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _padded(net: torch.Tensor, attributes: Attributes) -> torch.Tensor:
    """Pad (B, ..., L, H, W) with zeros on its last axes as ``pads`` says.

    TensorFlow's SAME padding may be uneven, which torch's own arguments cannot say.
    """
    pads = attributes.get("pads")
    if not isinstance(pads, list) or not any(pads):
        return net
    n = len(pads) // 2
    torch_order = [pad for i in reversed(range(n)) for pad in (pads[i], pads[n + i])]
    return F.pad(net, torch_order)


def _conv(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    net, weight, bias = inputs  # (B, in, L, H, W), (out, in, ...), (out,)
    return F.conv3d(_padded(net, attributes), weight, bias, _triple(attributes["strides"]))


def _max_pool(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    # Zeros beyond the border never win, because what is pooled has been through a ReLU.
    net = _padded(inputs[0], attributes)  # (B, channels, L, H, W)
    return F.max_pool3d(net, _triple(attributes["kernel_shape"]), _triple(attributes["strides"]))


def _triple(values: list[int] | int) -> tuple[int, int, int]:
    if not isinstance(values, list):
        raise TypeError(f"wanted three numbers, seen {values!r}")
    first, second, third = values
    return first, second, third


def _axis(attributes: Attributes) -> int:
    axis = attributes.get("axis", 0)
    if not isinstance(axis, int):
        raise TypeError(f"wanted an axis, seen {axis!r}")
    return axis


def _reduce_mean(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    axes = [int(axis) for axis in inputs[1]]  # inputs: (B, ...), int64 (N,)
    return inputs[0].mean(dim=axes, keepdim=bool(attributes.get("keepdims", 1)))


OPERATORS: dict[str, Operator] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Cast": lambda inputs, _: inputs[0].float(),
    "Concat": lambda inputs, attributes: torch.cat(inputs, dim=_axis(attributes)),
    "Conv": _conv,
    "Flatten": lambda inputs, _: inputs[0].flatten(1),
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean(dim=(2, 3, 4), keepdim=True),
    "MaxPool": _max_pool,
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Reshape": lambda inputs, _: inputs[0].reshape([int(n) for n in inputs[1]]),
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Transpose": lambda inputs, attributes: inputs[0].permute(attributes["perm"]),
}
