"""A backbone in int8 gives the features of the f32 one, on every runtime alike."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from engine.backends import open_backend
from engine.backends.openvino.cpu_form import cpu_form
from engine.errors import BundleError, DataError
from engine.published.int8_graph import ConvolutionGraph, rounded_weight, with_quantization
from tests.support.real_parts import missing
from tests.support.tiny_bundle import backbone
from tests.support.tiny_convolutions import (
    convolutional_backbone,
    some_snippets,
)
from training.precision.half import to_precision
from training.precision.int8 import to_int8

pytestmark = pytest.mark.openvino

NETWORK = convolutional_backbone()
CALIBRATION = some_snippets(16)
OTHERS = some_snippets(12, seed=1)


@pytest.fixture(scope="module")
def network() -> bytes:
    return to_int8(NETWORK, CALIBRATION).network


def graph_of(network: bytes = NETWORK) -> ConvolutionGraph:
    return ConvolutionGraph(onnx.load_from_string(network))


def tensors(
    network: bytes, names: list[str], snippets: list[np.ndarray], folder: Path
) -> dict[str, np.ndarray]:
    model = onnx.load_from_string(network)
    for name in names:
        if name not in {value.name for value in model.graph.output}:
            shown = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            model.graph.output.append(shown)
    path = folder / "shown.onnx"
    path.write_bytes(model.SerializeToString())
    backend = open_backend("openvino", path)
    seen = backend.run({"snippets": np.stack(snippets)})
    backend.close()
    return seen


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / norms


@pytest.mark.numeric
def test_features_of_snippets_that_were_not_calibrated_on_stay(network, tmp_path):
    exact = tensors(NETWORK, [], OTHERS, tmp_path)["features"]
    seen = tensors(network, [], OTHERS, tmp_path)["features"]

    # 127 steps for what is some deviations wide: errors of about 1 % a layer, so an angle of some
    # 2 %, whose cosine is 2e-4 below 1. Kernels add whole numbers, which is exact on any CPU.
    assert 0.999 < cosines(exact, seen).min()
    assert 0 < np.abs(exact - seen).max()


@pytest.mark.numeric
def test_openvino_gives_what_the_file_says(network, tmp_path):
    """Its int8 kernels against the same rounding in f32; where it is left to itself, tensors
    lose their step between a convolution and a pool."""
    written = onnx.load_from_string(network).graph
    values = {weight.name: numpy_helper.to_array(weight) for weight in written.initializer}
    steps = {  # wide enough for nothing to be clipped: uint8 would clip later than int8
        node.input[0]: 1.2 * float(values[node.input[1]])
        for node in written.node
        if node.op_type == "QuantizeLinear"
    }
    graph = graph_of()
    said = with_quantization(graph, {}, steps, simulated=True).SerializeToString()
    done = with_quantization(graph, {}, steps).SerializeToString()
    wanted = tensors(said, [], CALIBRATION, tmp_path)["features"]
    seen = tensors(done, [], CALIBRATION, tmp_path)["features"]

    # A rounding may fall the other way where f32 lies on the edge of a step: one value in twenty,
    # far more than do, would move a feature, which is their mean, by this. Left to itself,
    # OpenVINO is 0.4 off.
    last = next(w for w in onnx.load_from_string(NETWORK).graph.initializer if w.name == "last/w")
    per_feature = np.abs(numpy_helper.to_array(last)).sum(axis=(1, 2, 3, 4)).max()
    bound = steps["left"] * per_feature / 20
    assert bound < 0.04
    assert bound > np.abs(wanted - seen).max()


@pytest.mark.numeric
def test_openvino_uses_its_int8_kernels(network):
    ov = pytest.importorskip("openvino")
    formed = cpu_form(onnx.load_from_string(network))
    core = ov.Core()
    model = core.read_model(formed.SerializeToString())
    model.reshape([1, 4, 12, 12, 3])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [
        str(node.get_rt_info()["runtimePrecision"].value)
        for node in compiled.get_runtime_model().get_ordered_ops()
        if str(node.get_rt_info()["layerType"].value) == "Convolution"
    ]

    assert 6 == len(kinds)
    assert {"u8", "i8"} >= set(kinds)


def test_it_is_symmetric_as_tensorrt_wants_it(network):
    graph = onnx.load_from_string(network).graph
    values = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    zeros = [values[node.input[2]] for node in pairs]

    assert 6 + 2 * 6 == len(
        pairs
    )  # weights; pixels, stem, right/reduced, and what mixed is made of
    assert {np.dtype(np.int8)} == {zero.dtype for zero in zeros}
    assert not any(zero.any() for zero in zeros)


def test_what_is_concatenated_shares_a_step(network):
    graph = onnx.load_from_string(network).graph
    steps = {
        node.input[0]: node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"
    }
    values = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    shared = {float(values[steps[name]]) for name in ("left", "right", "pooled")}

    assert ("left", "right", "pooled") in graph_of().groups()
    assert 1 == len(shared)
    assert "last" not in steps  # only the mean takes it


def test_weights_behind_pixels_cannot_overflow_sixteen_bits(network):
    graph = onnx.load_from_string(network).graph
    largest = {
        weight.name: int(np.abs(numpy_helper.to_array(weight)).max())
        for weight in graph.initializer
        if weight.name.endswith("/w/int8")
    }

    assert 64 == largest.pop("stem/w/int8")
    assert {127} == set(largest.values())


def test_rounded_weights_are_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal((5, 3, 1, 1, 1)).astype(np.float32)
    weight[2] = 0
    levels, step = rounded_weight(weight)

    assert np.int8 == levels.dtype
    error = np.abs(levels * step.reshape(-1, 1, 1, 1, 1) - weight)
    assert (error <= step.reshape(-1, 1, 1, 1, 1) * 0.5001).all()
    assert not levels[2].any()


def test_corrected_biases_keep_every_channels_mean(network, tmp_path):
    names = ["stem/convolved", "right/convolved", "last/convolved"]
    used = CALIBRATION[::2]  # means are taken over some of the snippets
    exact = tensors(NETWORK, names, used, tmp_path)
    seen = tensors(network, names, used, tmp_path)
    graph = graph_of()
    plain = onnx.load_from_string(network)
    for weight in plain.graph.initializer:
        if weight.name.endswith("/b"):
            original = graph.weights[weight.name]
            weight.CopyFrom(numpy_helper.from_array(original, weight.name))
    uncorrected = tensors(plain.SerializeToString(), names, used, tmp_path)
    for name in names:
        away = [
            np.abs((one[name] - exact[name]).mean(axis=(0, 2, 3, 4))).max()
            for one in (seen, uncorrected)
        ]

        assert away[0] < away[1] / 4, name


def test_equal_clips_give_equal_files(network):
    assert network == to_int8(NETWORK, CALIBRATION).network


def test_a_convolution_may_stay_f32():
    kept = to_int8(NETWORK, CALIBRATION, kept=frozenset({"stem/convolved"}))
    graph = onnx.load_from_string(kept.network).graph
    weights = {weight.name: weight.data_type for weight in graph.initializer}

    assert TensorProto.FLOAT == weights["stem/w"]
    assert "pixels" not in {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    assert 0 < kept.int8_share < 1
    assert 1 == to_int8(NETWORK, CALIBRATION[:1]).int8_share


def test_the_share_counts_multiply_adds():
    graph = graph_of()
    by_name = {c.name: c.multiply_adds for c in graph.convolutions}

    assert 4 * 12 * 12 * 8 * 3 * 27 == by_name["stem/convolved"]
    assert 4 * 12 * 12 * 8 * 8 == by_name["left/convolved"]


def test_progress_reaches_its_end_in_every_stage():
    told: dict[str, list[tuple[int, int]]] = {}

    def show(stage: str, done: int, total: int) -> None:
        told.setdefault(stage, []).append((done, total))

    to_int8(NETWORK, CALIBRATION[:8], on_progress=show)

    assert ["measuring ranges", "correcting biases"] == list(told)
    for steps in told.values():
        assert list(range(1, len(steps) + 1)) == [done for done, _total in steps]
        assert {len(steps)} == {total for _done, total in steps}


@pytest.mark.parametrize(
    ("network", "snippets", "error", "message"),
    [
        (NETWORK, [], DataError, "there are none"),
        (NETWORK, [np.zeros((4, 12, 12, 3), np.uint8)] * 0, DataError, "real snippets"),
        (backbone().SerializeToString(), CALIBRATION[:1], BundleError, "has no convolution"),
        (b"\x00junk", CALIBRATION[:1], BundleError, "no ONNX file"),
        (to_precision(NETWORK, "f16"), CALIBRATION[:1], BundleError, "not f32 any more"),
    ],
)
def test_what_cannot_be_quantized_is_refused(network, snippets, error, message):
    with pytest.raises(error, match=message):
        to_int8(network, snippets)


def test_what_is_int8_already_is_refused(network):
    with pytest.raises(BundleError, match="not f32 any more"):
        to_int8(network, CALIBRATION)


def test_footage_that_leaves_a_tensor_at_zero_is_refused():
    model = onnx.load_from_string(NETWORK)
    for weight in model.graph.initializer:
        if weight.name in {"stem/w", "stem/b"}:
            weight.CopyFrom(
                numpy_helper.from_array(0 * numpy_helper.to_array(weight), weight.name)
            )
    with pytest.raises(DataError, match="stem is zero on all of the footage"):
        to_int8(model.SerializeToString(), CALIBRATION[:1])


@pytest.mark.tensorrt_rtx
def test_tensorrt_builds_it(network):
    try:
        import tensorrt_rtx as trt  # noqa: PLC0415 - large
    except ImportError as error:
        missing(f"no TensorRT for RTX ({error}): make setup-training")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(0)
    parser = trt.OnnxParser(definition, logger)

    assert parser.parse(network)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("snippets", *[(n, 4, 12, 12, 3) for n in (1, 1, 2)])
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(definition, config) is not None
