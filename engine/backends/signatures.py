"""What an ONNX file takes and gives, read without a runtime."""

from pathlib import Path

from engine.backends.base import Signature, TensorSpec
from engine.errors import BundleError


def read_signature(path: Path) -> tuple[Signature, int]:
    """Inputs and outputs of an ONNX file, and its opset; named (free) dimensions become None.

    Raises:
        BundleError: It cannot be read, is no ONNX file, or keeps weights in other files.
    """
    import onnx  # noqa: PLC0415 - reading a bundle's YAML alone needs no protobuf
    from google.protobuf.message import (  # type: ignore[import-untyped] # noqa: PLC0415
        DecodeError,
    )

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"{path} is not an ONNX file") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    graph = model.graph
    external = [w.name for w in graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        raise BundleError(
            f"{path} keeps {external[0]} and others in another file, which no digest covers; "
            "save it as one file"
        )
    weights = {weight.name for weight in graph.initializer}
    inputs = [_tensor_spec(value) for value in graph.input if value.name not in weights]
    outputs = tuple(_tensor_spec(value) for value in graph.output)
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    return Signature(tuple(inputs), outputs), opset


def _tensor_spec(value: object) -> TensorSpec:
    import onnx  # noqa: PLC0415

    tensor = value.type.tensor_type  # type: ignore[attr-defined]
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, shape, str(dtype))  # type: ignore[attr-defined]
