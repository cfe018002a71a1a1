"""Half precision is written into the network, and changes nothing else about it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.backends import open_backend
from engine.backends.openvino.cpu_form import cpu_form
from engine.backends.signatures import read_signature
from engine.errors import BundleError
from engine.files.cache import shipped_dir
from tests.support.error_bounds import HALF_ULP, gamma
from tests.support.real_parts import missing
from tests.support.tiny_convolutions import convolutional_backbone, some_snippets
from training.precision.half import to_precision

HALVES = pytest.mark.parametrize(
    ("precision", "low"), [("f16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)]
)
NAMES = pytest.mark.parametrize("precision", ["f16", "bf16"])


def types_of(network: bytes) -> dict[str, int]:
    """Element type of every tensor that a node computes."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(network))
    values = (*inferred.graph.value_info, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def features(network: bytes, snippets: list[np.ndarray], folder: Path) -> np.ndarray:
    path = folder / "network.onnx"
    path.write_bytes(network)
    backend = open_backend("openvino", path)
    seen = backend.run({"snippets": np.stack(snippets)})["features"]
    backend.close()
    return seen


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / norms


@HALVES
def test_convolutions_are_lowered_and_pixels_and_means_are_not(precision, low):
    network = to_precision(convolutional_backbone(), precision)
    types = types_of(network)

    assert [low] * 6 == [types[name] for name in types if name.endswith("/convolved")]
    assert low == types["mixed"] == types["stem/pooled"]
    assert TensorProto.FLOAT == types["pixels"] == types["mean_of_all"] == types["features"]


@NAMES
def test_inputs_and_outputs_keep_their_types(tmp_path, precision):
    before, after = tmp_path / "f32.onnx", tmp_path / "low.onnx"
    before.write_bytes(convolutional_backbone())
    after.write_bytes(to_precision(convolutional_backbone(), precision))

    assert read_signature(before)[0] == read_signature(after)[0]


@HALVES
def test_weights_take_half_the_room(precision, low):
    original = convolutional_backbone(width=64)
    network = to_precision(original, precision)

    assert 0.52 > len(network) / len(original)
    kinds = {w.name: w.data_type for w in onnx.load_from_string(network).graph.initializer}
    assert {low} == {kind for name, kind in kinds.items() if "/w" in name or "/b" in name}


@NAMES
def test_equal_networks_give_equal_files(precision):
    network = convolutional_backbone()

    assert to_precision(network, precision) == to_precision(network, precision)


@pytest.mark.numeric
@pytest.mark.openvino
@NAMES
def test_openvino_gives_the_same_features(tmp_path, precision):
    snippets = some_snippets(3)
    exact = features(convolutional_backbone(), snippets, tmp_path)
    seen = features(to_precision(convolutional_backbone(), precision), snippets, tmp_path)

    assert np.float32 == seen.dtype
    # The file's weights are rounded once, by at most u each, and a feature lies four layers deep:
    # so is the angle at most 4 u (signs are mixed alike in what is summed and in its errors). The
    # CPU computes both in f32 and adds no more than 1e-6 of that.
    angle = 4 * HALF_ULP[{"f16": "float16", "bf16": "bfloat16"}[precision]]
    assert 1 - angle**2 / 2 < cosines(exact.astype(float), seen.astype(float)).min() < 1


@pytest.mark.numeric
@NAMES
def test_the_file_itself_computes_in_half_precision(precision):
    """ONNX's own evaluator knows no other precision than the file's."""
    rng = np.random.default_rng(0)
    network = (shipped_dir() / "scenes/localizer.onnx").read_bytes()
    given = {
        "features": rng.random((1, 8, 1024), np.float32),
        "valid": np.ones((1, 8), np.float32),
        "background": rng.random((1, 1024), np.float32),
    }
    exact = ReferenceEvaluator(network).run(["cas"], given)[0]
    seen = ReferenceEvaluator(to_precision(network, precision)).run(["cas"], given)[0]

    assert np.float32 == seen.dtype
    assert 0 < np.abs(exact - seen).max() < 0.01


@HALVES
def test_sums_and_softmax_of_a_localizer_stay_f32(precision, low):
    network = (shipped_dir() / "scenes/localizer.onnx").read_bytes()
    types = types_of(to_precision(network, precision))
    nodes = onnx.load_from_string(to_precision(network, precision)).graph.node
    delicate = [n for n in nodes if n.op_type in {"Softmax", "ReduceSum", "ReduceL2", "Sigmoid"}]
    products = [n for n in nodes if n.op_type == "MatMul"]

    assert {TensorProto.FLOAT} == {types[node.output[0]] for node in delicate}
    assert {low} == {types[node.output[0]] for node in products}


@pytest.mark.numeric
@pytest.mark.openvino
@NAMES
def test_a_localizer_gives_the_same_scores(tmp_path, precision):
    network = (shipped_dir() / "scenes/localizer.onnx").read_bytes()
    rng = np.random.default_rng(0)
    given = {
        "features": rng.random((1, 24, 1024), np.float32),
        "valid": np.ones((1, 24), np.float32),
        "background": rng.random((1, 1024), np.float32),
    }
    seen = {}
    for name, blob in (("f32", network), ("low", to_precision(network, precision))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(blob)
        backend = open_backend("openvino", path)
        seen[name] = backend.run(given)["cas"]
        backend.close()

    # Weights off by 2^-8 of themselves at most (bf16), a sigmoid no steeper than 1/4, scores of
    # at most 1: the file's own rounding, beside which that of a CPU's f32, 1e-6, is nothing.
    assert 0.01 > np.abs(seen["f32"] - seen["low"]).max()


def a_product(weight: np.ndarray) -> bytes:
    """x (1, 1) times a weight (1, 1); it is the graph's output, too."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        initializer=[numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    blob: bytes = model.SerializeToString()
    return blob


def test_an_output_that_a_lowered_node_makes_is_f32():
    network = to_precision(a_product(np.array([[1 / 3]])), "f16")
    seen = ReferenceEvaluator(network).run(None, {"x": np.array([[3]], np.float32)})[0]

    assert np.float32 == seen.dtype
    assert np.float16(1 / 3) * np.float16(3) == seen[0, 0]


def test_a_weight_that_f16_cannot_hold_is_refused_and_bf16_holds_it():
    network = a_product(np.array([[7e4]]))
    with pytest.raises(BundleError, match=r"weight w reaches 7e\+04, .*take bf16"):
        to_precision(network, "f16")
    seen = ReferenceEvaluator(to_precision(network, "bf16"))

    assert 7e4 == pytest.approx(
        float(seen.run(None, {"x": np.ones((1, 1), np.float32)})[0][0, 0]),
        rel=gamma(1, HALF_ULP["bfloat16"]),  # the weight's; one product with 1
    )


def test_what_is_no_network_is_refused():
    with pytest.raises(BundleError, match="no sound ONNX file"):
        to_precision(b"\x00not onnx", "f16")


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])],
        "branch",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node],
        "flow",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(BundleError, match="holds a graph of its own"):
        to_precision(model.SerializeToString(), "f16")


@pytest.mark.openvino
@NAMES
def test_on_the_cpu_it_is_widened_and_keeps_its_fast_convolutions(tmp_path, precision):
    """64 channels and 3x3x3: where the CPU is without AVX-512, this is one that is rewritten."""
    network = to_precision(convolutional_backbone(width=64), precision)
    formed = cpu_form(onnx.load_from_string(network))

    assert {TensorProto.FLOAT} == {weight.data_type for weight in formed.graph.initializer}
    assert (1, 6) == features(network, some_snippets(1), tmp_path).shape


def test_a_plain_network_is_left_as_it_is_for_the_cpu():
    assert cpu_form(onnx.load_from_string(convolutional_backbone())) is None


def test_half_constants_inside_of_nodes_are_widened_too(tmp_path):
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["half"], to=onnx.TensorProto.FLOAT16),
        onnx.helper.make_node(
            "Constant", [], ["two"], value=onnx.numpy_helper.from_array(np.array(2, np.float16))
        ),
        onnx.helper.make_node("Mul", ["half", "two"], ["twice"]),
        onnx.helper.make_node("Cast", ["twice"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", 3]) for name in "xy"
    ]
    graph = onnx.helper.make_graph(nodes, "doubled", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "m.onnx"
    )
    backend = open_backend("openvino", tmp_path / "m.onnx", threads=1)
    assert [[1, 2, 3]] == backend.run({"x": np.array([[0.5, 1, 1.5]], np.float32)})["y"].tolist()
    backend.close()


@pytest.mark.weights
@pytest.mark.openvino
@pytest.mark.slow
@NAMES
def test_the_real_backbone_keeps_its_features(tmp_path, kinetics400, precision):
    network = (kinetics400 / "backbone.onnx").read_bytes()
    larger = np.ones((4, 19, 19, 1), np.uint8)  # 4 frames of 12 x 12 → 16 of 228 x 228
    snippets = [np.kron(snippet, larger)[:, :224, :224] for snippet in some_snippets(1)]
    exact = features(network, snippets, tmp_path)
    seen = features(to_precision(network, precision), snippets, tmp_path)

    assert 0.999 < cosines(exact, seen).min()


@pytest.mark.tensorrt_rtx
@NAMES
def test_tensorrt_builds_it(precision):
    """Strongly typed: what the parser cannot type, it refuses."""
    try:
        import tensorrt_rtx as trt  # noqa: PLC0415 - large
    except ImportError as error:
        missing(f"no TensorRT for RTX ({error}): make setup-training")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)

    assert parser.parse(to_precision(convolutional_backbone(), precision))
    assert (trt.uint8, trt.float32) == (network.get_input(0).dtype, network.get_output(0).dtype)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("snippets", *[(n, 4, 12, 12, 3) for n in (1, 1, 2)])
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
