"""What a network's file computes in."""

from pathlib import Path
from typing import Literal

import onnx
from onnx import TensorProto

from engine.errors import BundleError

FilePrecision = Literal["f32", "f16", "bf16", "int8"]


def precision_of(model: onnx.ModelProto) -> FilePrecision:
    """The lowest precision that a network's weights and arithmetic are in."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    types = {weight.data_type for weight in model.graph.initializer}
    if TensorProto.FLOAT16 in types:
        return "f16"
    return "bf16" if TensorProto.BFLOAT16 in types else "f32"


def read_precision(path: Path) -> FilePrecision:
    """The same of a file.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return precision_of(onnx.load(path))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
