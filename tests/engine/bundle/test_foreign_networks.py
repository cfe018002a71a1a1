"""A bundle whose networks are not what its manifest says, as an enemy writes it: digests fit."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from engine.bundle.model_bundle import MANIFEST, ModelBundle
from engine.errors import BundleError
from tests.support.scripted import a_camera_mean
from tests.support.tiny_bundle import backbone, localizer, write_tiny_bundle

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def forge(folder: Path, name: str, network: onnx.ModelProto) -> None:
    """Put a network in another one's place; the manifest describes the old one, but its digest."""
    blob = network.SerializeToString()
    (folder / f"{name}.onnx").write_bytes(blob)
    manifest = yaml.safe_load((folder / MANIFEST).read_text())
    manifest[name]["sha256"] = hashlib.sha256(blob).hexdigest()
    (folder / MANIFEST).write_text(yaml.safe_dump(manifest))


def renamed(network: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    for value in (*network.graph.input, *network.graph.output):
        if value.name == old:
            value.name = new
    for node in network.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    return network


def with_tensor(
    network: onnx.ModelProto, name: str, elem_type: int, shape: list[object]
) -> onnx.ModelProto:
    for value in (*network.graph.input, *network.graph.output):
        if value.name == name:
            value.CopyFrom(helper.make_tensor_value_info(name, elem_type, shape))
    return network


def with_input(network: onnx.ModelProto, name: str) -> onnx.ModelProto:
    network.graph.input.append(helper.make_tensor_value_info(name, FLOAT, ["B", 3]))
    return network


OTHER_TENSORS = {
    "another input": ("backbone", lambda: renamed(backbone(), "snippets", "frames"), "snippets"),
    "another output": ("backbone", lambda: renamed(backbone(), "features", "y"), "features"),
    "input of another type": (
        "backbone",
        lambda: with_tensor(backbone(), "snippets", FLOAT, ["B", "L", "H", "W", 3]),
        "snippets",
    ),
    "input of another shape": (
        "backbone",
        lambda: with_tensor(backbone(), "snippets", TensorProto.UINT8, ["B", 99, 4, 4, 3]),
        "snippets",
    ),
    "input of another rank": (
        "backbone",
        lambda: with_tensor(backbone(), "snippets", TensorProto.UINT8, ["B", 3]),
        "snippets",
    ),
    "other features": (
        "backbone",
        lambda: with_tensor(backbone(), "features", FLOAT, ["B", 4]),
        "features",
    ),
    "features of another type": (
        "backbone",
        lambda: with_tensor(backbone(), "features", DOUBLE, ["B", 3]),
        "features",
    ),
    "features of no type": (
        "backbone",
        lambda: with_tensor(backbone(), "features", 99, ["B", 3]),
        "features",
    ),
    "features that are texts": (
        "backbone",
        lambda: with_tensor(backbone(), "features", TensorProto.STRING, ["B", 3]),
        "features",
    ),
    "an input that nobody fills": ("backbone", lambda: with_input(backbone(), "more"), "more"),
    "more classes": (
        "localizer",
        lambda: with_tensor(localizer(), "cas", FLOAT, ["B", "T", 3]),
        "cas",
    ),
    "no attention": ("localizer", lambda: renamed(localizer(), "attention", "a"), "attention"),
    "camera means that are not there": (
        "localizer",
        lambda: localizer(takes_background=True),
        "background",
    ),
    "the other network": ("localizer", backbone, "features"),
}


@pytest.mark.parametrize("what", OTHER_TENSORS)
def test_a_network_with_other_tensors_is_refused_though_its_digest_is_right(
    tiny: Path, what: str
) -> None:
    name, network, tensor = OTHER_TENSORS[what]
    forge(tiny, name, network())

    with pytest.raises(BundleError, match=rf"{name}\.onnx: .*tensor {tensor}") as refused:
        ModelBundle.load(tiny)

    assert 1 == len(str(refused.value).splitlines())


def test_a_localizer_that_leaves_camera_means_out_is_refused(tmp_path: Path) -> None:
    watched = write_tiny_bundle(tmp_path / "watched", camera_mean=a_camera_mean())
    forge(watched, "localizer", localizer())

    with pytest.raises(BundleError, match=r"localizer\.onnx: tensor background is None"):
        ModelBundle.load(watched)


def external(location: str = "weights.bin") -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_weights(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.graph.initializer.append(tensor)


def in_sparse_weights(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.graph.sparse_initializer.add().values.CopyFrom(tensor)


def in_an_attribute(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_a_list_of_attributes(network: onnx.ModelProto, tensor: TensorProto) -> None:
    node = network.graph.node.add(op_type="X", output=["c"])
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)


def in_an_inner_graph(network: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([], "inner", [], [], initializer=[tensor])
    network.graph.node.append(helper.make_node("If", ["w"], ["c"], then_branch=inner))


def in_a_function(network: onnx.ModelProto, tensor: TensorProto) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    network.functions.add(name="f", domain="d").node.append(constant)


def in_training(network: onnx.ModelProto, tensor: TensorProto) -> None:
    network.training_info.add().initialization.initializer.append(tensor)


@pytest.mark.parametrize("name", ["backbone", "localizer"])
@pytest.mark.parametrize(
    "put",
    [
        in_weights,
        in_sparse_weights,
        in_an_attribute,
        in_a_list_of_attributes,
        in_an_inner_graph,
        in_a_function,
        in_training,
    ],
)
def test_weights_in_another_file_are_refused_wherever_they_stand(
    tiny: Path, put: Callable[[onnx.ModelProto, TensorProto], None], name: str
) -> None:
    network = backbone() if name == "backbone" else localizer()
    (tiny / "weights.bin").write_bytes(bytes(4))
    put(network, external())
    forge(tiny, name, network)

    with pytest.raises(BundleError, match=rf"{name}\.onnx keeps w in another file, which no dig"):
        ModelBundle.load(tiny)


@pytest.mark.parametrize(
    "location",
    ["", "/etc/passwd", "../../secret", "backbone.onnx", "a/../../b", "*/_ORT_MEM_ADDR_/*"],
)
def test_no_place_of_such_a_file_is_better_than_another(tiny: Path, location: str) -> None:
    network = backbone()
    in_weights(network, external(location))
    forge(tiny, "backbone", network)

    with pytest.raises(BundleError, match="keeps w in another file"):
        ModelBundle.load(tiny)


def test_a_place_is_refused_even_where_it_is_said_to_be_unused(tiny: Path) -> None:
    network, tensor = backbone(), external()
    tensor.ClearField("data_location")
    in_weights(network, tensor)
    forge(tiny, "backbone", network)

    with pytest.raises(BundleError, match="keeps w in another file"):
        ModelBundle.load(tiny)


@pytest.mark.parametrize("n_bytes", [0, 1, 10, 100])
def test_a_network_that_is_cut_is_one_clear_error(tiny: Path, n_bytes: int) -> None:
    blob = backbone().SerializeToString()[:n_bytes]
    (tiny / "backbone.onnx").write_bytes(blob)
    manifest = yaml.safe_load((tiny / MANIFEST).read_text())
    manifest["backbone"]["sha256"] = hashlib.sha256(blob).hexdigest()
    (tiny / MANIFEST).write_text(yaml.safe_dump(manifest))

    with pytest.raises(BundleError, match=r"backbone\.onnx"):
        ModelBundle.load(tiny)


@pytest.mark.parametrize("name", ["backbone", "localizer"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_could_be_read_for_ever_is_no_network(tiny: Path, name: str, kind: str) -> None:
    path = tiny / f"{name}.onnx"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()

    with pytest.raises(BundleError, match=rf"{name}\.onnx is no regular file; export or pull"):
        ModelBundle.load(tiny)
