"""A separable backbone gives the original's features at less work."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.backends import open_backend
from engine.errors import BundleError, DataError
from engine.files.onnx_bytes import checked_model, serialized
from engine.published.int8_graph import ConvolutionGraph
from tests.support.tiny_convolutions import convolutional_backbone, some_snippets
from training.precision import separable
from training.precision.separable import to_separable
from training.precision.separable_fit import split_of
from training.precision.separable_graph import Fit, layers_of, with_fits

pytestmark = pytest.mark.openvino

SEEN = some_snippets(24)
OTHERS = some_snippets(12, seed=1)
EPSILON = 2.0**-24  # half a unit in the last place of f32


def features(network: bytes, folder: Path, snippets: list[np.ndarray] = OTHERS) -> np.ndarray:
    path = folder / "network.onnx"
    path.write_bytes(network)
    backend = open_backend("openvino", path, precision="f32")
    seen = backend.run({"snippets": np.stack(snippets)})["features"]
    backend.close()
    return seen.astype(np.float64)


def lost(network: bytes, original: bytes, folder: Path) -> float:
    """Share of the features' variance over snippets that is not as it was."""
    wanted, seen = features(original, folder), features(network, folder)
    return float(np.mean((wanted - seen) ** 2) / np.mean((wanted - wanted.mean(axis=0)) ** 2))


def of_few_channels(network: bytes, n_channels: int) -> bytes:
    """The network with weights that are a product of so many channels over space and time."""
    model = onnx.load_from_string(network)
    rng = np.random.default_rng(5)
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.ndim == 5 and value.shape[2] > 1:
            out, taken, frames, rows, columns = value.shape
            over_time = rng.standard_normal((out, frames, n_channels))
            over_space = rng.standard_normal((n_channels, taken, rows, columns))
            product = np.einsum("ofc,cirs->oifrs", over_time, over_space)
            product *= value.std() / product.std()
            weight.CopyFrom(numpy_helper.from_array(product.astype(np.float32), weight.name))
    return serialized(model)


@pytest.mark.numeric
def test_what_is_separable_already_is_split_without_a_loss(tmp_path):
    original = of_few_channels(convolutional_backbone(width=32), 8)
    found = to_separable(original, SEEN, work=0.4)

    # Every layer rounds sums of up to 27 x 32 products, and three such layers lie in a row; the
    # ridge leaves a thousandth of what is no error at all.
    assert lost(found.network, original, tmp_path) < (3 * 27 * 32 * EPSILON) ** 2 * 1e3
    assert 2 == found.n_split
    assert found.work < 0.4


@pytest.mark.numeric
def test_more_work_loses_less_on_snippets_not_seen_before(tmp_path):
    original = convolutional_backbone(width=32)
    light, heavy = (to_separable(original, SEEN, work=work) for work in (0.3, 0.7))

    assert light.work <= 0.3
    assert 0.3 < heavy.work <= 0.7
    assert lost(heavy.network, original, tmp_path) < lost(light.network, original, tmp_path) < 0.5


@pytest.mark.numeric
def test_least_squares_make_up_for_much_of_what_is_lost(tmp_path):
    """Against the same channels, with the weights that come nearest to the original's."""
    original = convolutional_backbone(width=32)
    found = to_separable(original, SEEN, work=0.3)
    graph = ConvolutionGraph(onnx.load_from_string(original))
    layers = layers_of(graph)
    written = {
        weight.name: numpy_helper.to_array(weight).astype(np.float64)
        for weight in onnx.load_from_string(found.network).graph.initializer
    }
    alone = {}
    for layer in layers.values():
        spatial = written.get(layer.convolution.weight + "/spatial")
        if spatial is not None:
            basis = spatial.reshape(len(spatial), -1)
            whole = layer.weight.astype(np.float64).transpose(0, 2, 1, 3, 4)
            flat = whole.reshape(*whole.shape[:2], -1) @ np.linalg.pinv(basis)
            over_time = flat.transpose(0, 2, 1)[..., None, None]
            alone[layer.name] = Fit(spatial, over_time, graph.weights[layer.bias])
    projected = serialized(with_fits(graph, layers, alone))

    assert alone
    assert lost(found.network, original, tmp_path) < 0.5 * lost(projected, original, tmp_path)


def test_a_channel_and_the_weights_behind_it_are_equally_large():
    """One step for all channels in int8, and one for all weights of an output, then serve both."""
    layer = layers_of(ConvolutionGraph(onnx.load_from_string(convolutional_backbone(width=32))))[
        "left/convolved"
    ]
    frames = layer.weight.shape[2]
    rows = np.random.default_rng(3).standard_normal((9000, frames * layer.n_taken)) @ np.diag(
        np.geomspace(0.1, 10, frames * layer.n_taken)
    )
    split = split_of(layer, np.cov(rows.T, bias=True), 8)

    channels = split.channels(rows).reshape(len(rows), frames, 8)
    spread = np.sqrt(channels.var(axis=0).mean(axis=0))
    np.testing.assert_allclose(spread, np.linalg.norm(split.over_time, axis=(0, 1)), rtol=1e-4)
    assert spread.max() > 1.5 * spread.min()  # they are not equal to begin with


def single(strides: tuple[int, ...], pads: tuple[int, ...], weight: np.ndarray) -> bytes:
    """One convolution of pixels as a backbone."""
    snippets = helper.make_tensor_value_info("snippets", TensorProto.UINT8, ["B", 8, 12, 12, 3])
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", len(weight)])
    kernel = list(weight.shape[2:])
    nodes = [
        helper.make_node("Cast", ["snippets"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["pixels"], perm=[0, 4, 1, 2, 3]),
        helper.make_node(
            "Conv",
            ["pixels", "w", "b"],
            ["convolved"],
            kernel_shape=kernel,
            strides=list(strides),
            pads=list(pads),
        ),
        helper.make_node("Relu", ["convolved"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"], axis=1),
    ]
    bias = np.linspace(-1, 1, len(weight), dtype=np.float32)
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "single", [snippets], [given], initializer=weights)
    return serialized(checked_model(graph))


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1, 1, 1, 1)),
        ((7, 7, 7), (2, 2, 2), (2, 2, 2, 3, 3, 3)),
        ((2, 3, 1), (1, 2, 1), (0, 1, 0, 1, 0, 0)),
        ((3, 1, 5), (2, 1, 3), (2, 0, 0, 0, 0, 4)),
    ],
)
def test_two_convolutions_do_what_one_did_at_any_stride_and_border(
    tmp_path, kernel, strides, pads
):
    rng = np.random.default_rng(0)
    frames, rows, columns = kernel
    over_time = rng.standard_normal((64, 8, frames, 1, 1))
    over_space = rng.standard_normal((8, 3, 1, rows, columns))
    product = np.einsum("ocfxy,ciyrs->oifrs", over_time, over_space).astype(np.float32)
    network = single(strides, pads, product)
    graph = ConvolutionGraph(onnx.load_from_string(network))
    layers = layers_of(graph)
    fit = Fit(over_space, over_time, graph.weights["b"])
    snippets = list(rng.integers(0, 256, (3, 8, 12, 12, 3), np.uint8))
    split = serialized(with_fits(graph, layers, {"convolved": fit}))
    wanted, seen = (features(each, tmp_path, snippets) for each in (network, split))

    # Each value is a sum of products of a pixel (up to 255) and weights, rounded at every step.
    n_products = product[0].size + 8 * frames
    largest = 255 * np.abs(product).sum(axis=(1, 2, 3, 4)).max()
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=2 * n_products * EPSILON * largest)

    noise = list(rng.integers(0, 256, (64, 8, 12, 12, 3), np.uint8))
    found = to_separable(network, noise, work=0.99)
    assert 1 == found.n_split
    # The channels are found anew, through covariances of which a millionth is made up.
    np.testing.assert_allclose(
        features(found.network, tmp_path, snippets), wanted, rtol=1e-3, atol=1e-3 * wanted.max()
    )


def test_a_weight_that_two_layers_share_is_left_alone():
    model = onnx.load_from_string(convolutional_backbone(width=32))
    reduced = next(node for node in model.graph.node if node.output[0] == "right/convolved")
    twin = onnx.NodeProto()
    twin.CopyFrom(reduced)
    twin.output[0] = twin.name = "twin"
    model.graph.node.append(twin)
    layers = layers_of(ConvolutionGraph(model))

    assert {"stem/convolved", "left/convolved"} < set(layers)
    assert not {"right/convolved", "twin"} & set(layers)


def test_equal_snippets_give_equal_bytes():
    original = convolutional_backbone(width=32)
    first, second = (to_separable(original, SEEN, work=0.4, threads=1) for _ in range(2))

    assert first.network == second.network


def test_what_cannot_be_is_said():
    original = convolutional_backbone(width=32)
    with pytest.raises(DataError, match="1 snippets tell too little of any layer: take more"):
        to_separable(original, SEEN[:1], work=0.4)
    with pytest.raises(
        DataError, match=r"the work wanted is 0.05 of the original's, but .* are 0"
    ):
        to_separable(original, SEEN, work=0.05)
    flat = single((1, 1, 1), (0,) * 6, np.ones((8, 3, 1, 3, 3), np.float32))
    with pytest.raises(BundleError, match="no convolution over both time and space to split"):
        to_separable(flat, SEEN, work=0.5)


def test_footage_of_nothing_at_all_leaves_a_network_that_works(tmp_path):
    """Lens caps happen: where nothing varies, a layer keeps what it can of its weights."""
    original = convolutional_backbone(width=32)
    found = to_separable(original, [np.zeros_like(SEEN[0])] * 24, work=0.4)

    assert np.isfinite(features(found.network, tmp_path)).all()


def test_a_network_of_no_numbers_is_told():
    broken = onnx.load_from_string(convolutional_backbone(width=32))
    for weight in broken.graph.initializer:
        if weight.name == "stem/w":
            value = numpy_helper.to_array(weight).copy()
            value[0] = np.inf
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    with pytest.raises(DataError, match="numbers inside that are not finite"):
        to_separable(serialized(broken), SEEN, work=0.4)


def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    for number in range(10):
        (tmp_path / str(number)).symlink_to("/dev/full")
    monkeypatch.setattr(separable, "TemporaryDirectory", lambda **_: nullcontext(tmp_path))
    with pytest.raises(DataError, match=r"No space left on device.* set TMPDIR"):
        to_separable(convolutional_backbone(width=32), SEEN, work=0.4)
