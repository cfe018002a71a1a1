"""What an ONNX file takes and gives, read without a runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends.base import Signature, TensorSpec
from engine.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto


def read_signature(path: Path) -> tuple[Signature, int]:
    """Inputs and outputs of an ONNX file, and its opset; named (free) dimensions become None.

    Raises:
        BundleError: It cannot be read, is no ONNX file, or keeps weights in other files.
    """
    _content, model = read_network(path)
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    return signature_of(model), opset


def read_network(path: Path) -> "tuple[bytes, ModelProto]":
    """An ONNX file: its bytes, and what they say.

    Raises:
        BundleError: See ``read_signature``.
    """
    import onnx  # noqa: PLC0415 - reading a bundle's YAML alone needs no protobuf
    from google.protobuf.message import (  # type: ignore[import-untyped] # noqa: PLC0415
        DecodeError,
    )

    try:
        content = path.read_bytes()
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise BundleError(f"{path} is not an ONNX file") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    external = [
        weight.name
        for weight in model.graph.initializer
        if weight.data_location == onnx.TensorProto.EXTERNAL
    ]
    if external:
        raise BundleError(
            f"{path} keeps {external[0]} and others in another file, which no digest covers; "
            "save it as one file"
        )
    return content, model


def signature_of(model: "ModelProto") -> Signature:
    """Inputs and outputs of a network that was read; named (free) dimensions become None."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = (_tensor_spec(value) for value in model.graph.input if value.name not in weights)
    return Signature(tuple(inputs), tuple(map(_tensor_spec, model.graph.output)))


def _tensor_spec(value: object) -> TensorSpec:
    import onnx  # noqa: PLC0415

    tensor = value.type.tensor_type  # type: ignore[attr-defined]
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, shape, str(dtype))  # type: ignore[attr-defined]
