"""A backbone like I3D in small: convolutions over time, branches side by side, pools between."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle.model_bundle import write_bundle
from engine.files.onnx_bytes import checked_model, serialized
from tests.support.tiny_bundle import localizer, tiny_card

LENGTH, SIDE_PX = 4, 12


def convolutional_backbone(
    side_px: int = SIDE_PX, feature_dim: int = 6, width: int = 8, seed: int = 0
) -> bytes:
    """uint8 (B, 4, side_px, side_px, 3) → float32 (B, feature_dim); six convolutions."""
    build = _Build(seed)
    build.node("Cast", ["snippets"], "real", to=TensorProto.FLOAT)
    build.node("Sub", ["real", build.constant("mean", np.array(127.5, np.float32))], "centred")
    build.node("Mul", ["centred", build.constant("scale", np.array(1 / 127.5, np.float32))], "sc")
    build.node("Transpose", ["sc"], "pixels", perm=[0, 4, 1, 2, 3])
    build.unit("pixels", "stem", 3, width, 3)
    build.pool("stem", "stem/pooled")
    build.unit("stem/pooled", "left", width, width, 1)
    build.unit("stem/pooled", "right/reduced", width, width, 1)
    build.unit("right/reduced", "right", width, width, 3)
    build.pool("stem/pooled", "pooled/pooled")
    build.unit("pooled/pooled", "pooled", width, width, 1)
    build.node("Concat", ["left", "right", "pooled"], "mixed", axis=1)
    build.pool("mixed", "mixed/pooled")
    build.unit("mixed/pooled", "last", 3 * width, feature_dim, 1)
    build.node("GlobalAveragePool", ["last"], "mean_of_all")
    build.node("Flatten", ["mean_of_all"], "features", axis=1)
    snippets = helper.make_tensor_value_info(
        "snippets", TensorProto.UINT8, ["B", LENGTH, side_px, side_px, 3]
    )
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", feature_dim])
    graph = helper.make_graph(
        build.nodes, "tiny", [snippets], [features], initializer=build.weights
    )
    return serialized(checked_model(graph))


def write_convolutional_bundle(folder: Path, side_px: int = 2) -> Path:
    """A bundle with it, of the sizes of ``tiny_card``; gives its folder back."""
    card = tiny_card()
    return write_bundle(
        folder,
        card,
        backbone=convolutional_backbone(side_px, card.feature_dim),
        localizer=localizer().SerializeToString(),
    )


def some_snippets(count: int, side_px: int = SIDE_PX, seed: int = 0) -> list[np.ndarray]:
    """uint8 (4, side_px, side_px, 3) each: smooth, as pictures are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, LENGTH, 3, 3, 3), np.uint8)
    large = coarse.repeat(-(-side_px // 3), axis=2).repeat(-(-side_px // 3), axis=3)
    return list(np.ascontiguousarray(large[:, :, :side_px, :side_px]))


class _Build:
    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def unit(self, taken: str, name: str, channels: int, width: int, kernel: int) -> None:
        shape = (width, channels, kernel, kernel, kernel)
        scale = (2 / (channels * kernel**3)) ** 0.5
        weight = (self._rng.standard_normal(shape) * scale).astype(np.float32)
        bias = (self._rng.standard_normal(width) * 0.1 + 0.2).astype(np.float32)
        inputs = [taken, self.constant(f"{name}/w", weight), self.constant(f"{name}/b", bias)]
        self.node(
            "Conv",
            inputs,
            f"{name}/convolved",
            kernel_shape=[kernel] * 3,
            strides=[1, 1, 1],
            pads=[kernel // 2] * 6,
        )
        self.node("Relu", [f"{name}/convolved"], name)

    def pool(self, taken: str, name: str) -> None:
        self.node("MaxPool", [taken], name, kernel_shape=[3] * 3, strides=[1] * 3, pads=[1] * 6)
