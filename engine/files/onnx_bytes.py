"""ONNX models as this project writes them: one opset, checked, the same bytes on every machine."""

import onnx
from onnx import helper

OPSET = 18
IR_VERSION = 10


def checked_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of the one opset this project writes, with its shapes inferred and checked."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="s2netd",
    )
    model.ClearField("producer_version")  # with one, every release would change every digest
    onnx.checker.check_model(model, full_check=True)
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    """The file of a model: the same bytes on every machine.

    Bundles name their networks by SHA-256, so what is converted twice must be equal. Versions of
    the format are written by ``checked_model`` and not left to the library; attributes are sorted
    by ``make_node``; weights are little-endian raw data; folding uses only float64 operations
    that IEEE 754 rounds exactly (+, -, x, /, square root).
    """
    blob: bytes = model.SerializeToString(deterministic=True)
    return blob
