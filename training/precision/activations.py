"""What tensors inside a backbone are on real snippets."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from engine.backends import open_backend
from engine.backends.base import Tensor
from engine.errors import BundleError
from engine.published.int8_graph import Convolution, ConvolutionGraph
from engine.types import UInt8Array


def load_f32(network: bytes) -> onnx.ModelProto:
    """Read a network that has not been converted.

    Raises:
        BundleError: It is no ONNX file, or not f32.
    """
    try:
        model = onnx.load_from_string(network)
    except DecodeError as error:
        raise BundleError(f"the network is no ONNX file: {error}") from error
    types = {weight.data_type for weight in model.graph.initializer}
    if types & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT8}:
        raise BundleError("the backbone is not f32 any more: start from the f32 bundle")
    return model


def network_input(model: onnx.ModelProto) -> str:
    """Return the name of the one input.

    Raises:
        BundleError: There is more than one.
    """
    weights = {weight.name for weight in model.graph.initializer}
    names = [str(value.name) for value in model.graph.input if value.name not in weights]
    if len(names) != 1:
        raise BundleError(f"the backbone takes {names}, wanted snippets alone")
    return names[0]


def activations(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    snippets: Iterable[UInt8Array],
    threads: int | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Run snippets (L, H, W, 3) one by one in OpenVINO; give tensors (1, channels, ...) of each.

    What lies behind all of ``tensors`` is not run.

    Raises:
        BundleError: The network takes more than snippets.
        DeviceError: OpenVINO is missing or failed.
    """
    taken = network_input(model)
    with tempfile.TemporaryDirectory(prefix="s2net-") as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(_showing(model, tensors).SerializeToString())
        backend = open_backend("openvino", path, precision="f32", threads=threads)
        try:
            for snippet in snippets:
                yield backend.run({taken: snippet[None]})
        finally:
            backend.close()


def levels_of(graph: ConvolutionGraph) -> list[list[Convolution]]:
    """Group convolutions by how many lie on the longest way to them; none feeds its own level."""
    depth: dict[str, int] = {}
    levels: dict[int, list[Convolution]] = {}
    known = {c.name: c for c in graph.convolutions}
    for node in graph.model.graph.node:
        before = max((depth.get(name, 0) for name in node.input), default=0)
        own = known.get(node.output[0])
        depth.update(dict.fromkeys(node.output, before + (own is not None)))
        if own is not None:
            levels.setdefault(before, []).append(own)
    return [levels[n] for n in sorted(levels)]


def _showing(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Copy the network, with these tensors as its outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:], shown.graph.value_info[:]
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    return shown
