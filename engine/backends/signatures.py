"""What an ONNX file takes and gives, read without a runtime."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.backends.base import Signature, TensorSpec
from engine.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


def read_signature(path: Path) -> tuple[Signature, int]:
    """Inputs and outputs of an ONNX file, and its opset; named (free) dimensions become None.

    Raises:
        BundleError: It cannot be read, is no ONNX file, or keeps weights in other files.
    """
    _content, model = read_network(path)
    try:
        signature = signature_of(model)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    return signature, opset


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
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(
                f"{path} keeps {tensor.name or 'a tensor'} in another file, which no digest "
                "covers; save it as one file"
            )
    return content, model


def signature_of(model: "ModelProto") -> Signature:
    """Inputs and outputs of a network that was read; named (free) dimensions become None.

    Raises:
        BundleError: One of them is no tensor of numbers.
    """
    weights = {weight.name for weight in model.graph.initializer}
    inputs = (_tensor_spec(value) for value in model.graph.input if value.name not in weights)
    return Signature(tuple(inputs), tuple(map(_tensor_spec, model.graph.output)))


def _tensors(message: Any) -> "Iterator[TensorProto]":
    """The tensors anywhere in a network: weights, attributes, inner graphs, functions."""
    import onnx  # noqa: PLC0415

    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def _tensor_spec(value: Any) -> TensorSpec:
    import onnx  # noqa: PLC0415

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError as error:
        raise BundleError(f"tensor {value.name} is no tensor of numbers") from error
    return TensorSpec(value.name, shape, str(dtype))
