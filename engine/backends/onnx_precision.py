"""The precision that a network's file computes in."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto

FilePrecision = Literal["f32", "f16", "bf16", "int8"]


def precision_of(network: bytes) -> FilePrecision:
    """The lowest precision that a network's weights and arithmetic are in.

    Args:
        network: A serialised network that was read before.
    """
    from onnx import load_from_string  # noqa: PLC0415 - heavy

    return precision_in(load_from_string(network))


def precision_in(model: "ModelProto") -> FilePrecision:
    """As ``precision_of``, for a network that is parsed already."""
    from onnx import TensorProto  # noqa: PLC0415 - heavy

    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    types = {weight.data_type for weight in model.graph.initializer}
    if TensorProto.FLOAT16 in types:
        return "f16"
    return "bf16" if TensorProto.BFLOAT16 in types else "f32"


def read_precision(path: Path) -> FilePrecision:
    """As ``precision_of``, for a file.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return precision_of(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
