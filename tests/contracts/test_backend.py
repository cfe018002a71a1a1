"""What every inference backend owes, whichever it is."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engine.backends import open_backend
from engine.backends.base import EngineBackend, Signature, Tensor, TensorSpec
from engine.backends.openvino.backend import (
    OpenVinoBackend,
    check_arithmetic,
    formed_for,
)
from engine.backends.openvino.backend import open_openvino as open_openvino_as
from engine.backends.options import BackendOptions
from engine.backends.tensorrt.opening import open_tensorrt
from engine.errors import BundleError, DeviceError
from tests.support.error_bounds import Bounded, assert_within
from tests.support.fake_cuda import FakeGpu, mixed_up
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.i3d_parts import pulled_kinetics400
from tests.support.tiny_bundle import backbone, localizer
from tests.support.tiny_convolutions import convolutional_backbone

OpenBackend = Callable[[Path], EngineBackend]


def open_openvino(path: Path) -> EngineBackend:
    pytest.importorskip("openvino")
    return open_backend("openvino", path, precision="f32", threads=2)


def open_openvino_side_by_side(path: Path) -> EngineBackend:
    pytest.importorskip("openvino")
    options = BackendOptions(max_batch=2)
    return open_backend("openvino", path, precision="f32", threads=2, options=options)


def open_scripted(path: Path) -> EngineBackend:
    return open_backend("scripted", path)


def open_tensorrt_on_a_fake_gpu(path: Path) -> EngineBackend:
    gpu = FakeGpu(mixed_up(0))
    options = BackendOptions(max_batch=2, length=(1, 5, 24), cache_dir=path.parent / "plans")
    toolkit = FakeTensorRt(gpu).toolkit()
    return open_tensorrt(path, precision="f32", options=options, toolkit=toolkit)


@pytest.fixture(
    params=[
        pytest.param(open_openvino, marks=pytest.mark.openvino),
        pytest.param(open_openvino_side_by_side, marks=pytest.mark.openvino),
        open_scripted,
        open_tensorrt_on_a_fake_gpu,
    ],
    ids=["openvino", "openvino-side-by-side", "scripted", "tensorrt"],
)
def opened(request: pytest.FixtureRequest) -> OpenBackend:
    opener: OpenBackend = request.param
    return opener


@pytest.fixture
def backend(opened: OpenBackend, tmp_path: Path) -> Iterator[EngineBackend]:
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    backend = opened(tmp_path / "localizer.onnx")
    yield backend
    backend.close()


def question(n_rows: int, length: int = 5, seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.uniform(size=(n_rows, length, 3)).astype(np.float32),
        "valid": np.ones((n_rows, length), np.float32),
    }


def test_the_signature_is_the_file_s(backend: EngineBackend) -> None:
    assert backend.signature == Signature(
        (
            TensorSpec("features", (None, None, 3), "float32"),
            TensorSpec("valid", (None, None), "float32"),
        ),
        (
            TensorSpec("cas", (None, None, 2), "float32"),
            TensorSpec("attention", (None, None), "float32"),
            TensorSpec("video_scores", (None, 2), "float32"),
        ),
    )


@pytest.mark.parametrize("length", [1, 3, 24])
@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_answers_have_the_shapes_promised(
    backend: EngineBackend, n_rows: int, length: int
) -> None:
    answers = backend.run(question(n_rows, length))
    assert {name: (a.shape, str(a.dtype)) for name, a in answers.items()} == {
        "cas": ((n_rows, length, 2), "float32"),
        "attention": ((n_rows, length), "float32"),
        "video_scores": ((n_rows, 2), "float32"),
    }


@pytest.mark.numeric
def test_warming_up_changes_no_answer(backend: EngineBackend) -> None:
    before = backend.run(question(2))
    backend.warm_up()
    after = backend.run(question(2))
    assert all(np.array_equal(before[name], after[name]) for name in before)


# To the bit on any CPU: OpenVINO's rows run alone, the others' are computed one by one.
@pytest.mark.numeric
def test_a_row_s_answer_does_not_depend_on_its_neighbours(backend: EngineBackend) -> None:
    whole = question(4)
    together = backend.run(whole)
    for i in range(4):
        alone = backend.run({name: tensor[i : i + 1] for name, tensor in whole.items()})
        for name in together:
            assert np.array_equal(together[name][i : i + 1], alone[name])


def test_returned_arrays_are_the_caller_s(backend: EngineBackend) -> None:
    first = backend.run(question(1))
    kept = {name: answer.copy() for name, answer in first.items()}
    backend.run(question(1, seed=1))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)
    for answer in first.values():
        answer[...] = 7  # writable
    again = backend.run(question(1))
    assert all(np.array_equal(again[name], kept[name]) for name in kept)


def test_an_input_that_is_a_view_is_read_as_it_looks(backend: EngineBackend) -> None:
    plain = question(2)
    views = {name: np.asfortranarray(tensor) for name, tensor in plain.items()}
    seen, wanted = backend.run(views), backend.run(plain)
    assert all(np.array_equal(seen[name], wanted[name]) for name in wanted)


def test_a_missing_tensor_is_named(backend: EngineBackend) -> None:
    with pytest.raises(BundleError, match='no tensor "valid"; seen'):
        backend.run({"features": np.zeros((1, 2, 3), np.float32)})


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((1, 2, 4), np.float32),
        np.zeros((1, 2), np.float32),
        np.zeros((0, 2, 3), np.float32),
        np.zeros((1, 2, 3), np.float64),
        np.zeros((1, 2, 3), np.uint8),
    ],
    ids=lambda features: f"{features.dtype}{features.shape}",
)
def test_a_tensor_of_another_shape_or_dtype_is_refused_with_both(
    backend: EngineBackend, features: Tensor
) -> None:
    with pytest.raises(BundleError, match=r'"features" is .*, wanted float32 \(None, None, 3\)'):
        backend.run({"features": features, "valid": np.ones((1, 2), np.float32)})


def test_closing_twice_is_allowed(backend: EngineBackend) -> None:
    backend.close()
    backend.close()


def test_a_file_that_is_no_network_is_a_bundle_error(opened: OpenBackend, tmp_path: Path) -> None:
    (tmp_path / "nonsense.onnx").write_bytes(b"nonsense")
    for name in ("nonsense.onnx", "missing.onnx"):
        with pytest.raises(BundleError, match=name):
            opened(tmp_path / name)


@pytest.mark.numeric
@pytest.mark.openvino
def test_openvino_gives_the_numbers_the_network_means(tmp_path: Path) -> None:
    onnx.save(backbone(), tmp_path / "backbone.onnx")
    rgb = np.random.default_rng(0).integers(0, 256, (3, 4, 2, 2, 3), np.uint8)
    answer = open_openvino(tmp_path / "backbone.onnx").run({"snippets": rgb})["features"]
    # The sum of 16 whole numbers and its 16th part are exact; then 1 / 255 and a product round.
    mean = Bounded.exactly(rgb.mean(axis=(1, 2, 3)) / 255)
    assert_within(answer, mean.rounded(2))


@pytest.mark.openvino
def test_openvino_says_that_it_is_closed(tmp_path: Path) -> None:
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    backend = open_openvino(tmp_path / "localizer.onnx")
    backend.close()
    with pytest.raises(DeviceError, match="is closed"):
        backend.run(question(1))


@pytest.mark.openvino
def test_rows_that_do_not_pair_up_are_refused(tmp_path: Path) -> None:
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    uneven = {**question(2), "valid": np.ones((3, 5), np.float32)}
    with pytest.raises(BundleError, match="inputs differ in their rows"):
        open_openvino(tmp_path / "localizer.onnx").run(uneven)


NO_FLAGS: frozenset[str] = frozenset()
AVX512, AMX = frozenset({"avx2", "avx512f"}), frozenset({"avx2", "avx512f", "amx_bf16"})


def test_bf16_without_such_arithmetic_is_refused() -> None:
    with pytest.raises(DeviceError, match="precision is bf16, but this CPU has none"):
        check_arithmetic("bf16", ("FP32",))
    check_arithmetic("bf16", ("FP32", "BF16"))
    check_arithmetic("f32", ())


@pytest.mark.parametrize(
    ("precision", "flags", "n_convolutions"),
    [("f32", NO_FLAGS, 11), ("f32", AVX512, 6), ("bf16", NO_FLAGS, 6), ("bf16", AMX, 6)],
)
def test_large_convolutions_take_their_fast_form_in_f32_without_avx_512(
    precision: str, flags: frozenset[str], n_convolutions: int
) -> None:
    """Of six convolutions one is large enough, and becomes six."""
    model = onnx.load_from_string(convolutional_backbone(width=64))
    formed = formed_for(model, precision, flags) or model

    assert n_convolutions == sum(node.op_type == "Conv" for node in formed.graph.node)


@pytest.mark.openvino
@pytest.mark.parametrize("flags", [NO_FLAGS, AVX512, AMX, None], ids=["none", "512", "amx", "own"])
def test_f32_is_f32_on_every_cpu(flags: frozenset[str] | None, tmp_path: Path) -> None:
    """Left to itself, OpenVINO takes bf16 where it can."""
    pytest.importorskip("openvino")
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    path = tmp_path / "localizer.onnx"
    backend = open_openvino_as(path, precision="f32", threads=1, cpu_flags=flags)

    assert "openvino f32 CPU" == backend.description


def test_an_unknown_backend_or_precision_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"'tpu', wanted one of .*'openvino', 'tensorrt', 'scripted'"
    ):
        open_backend("tpu", tmp_path)
    with pytest.raises(BundleError, match=r"'fp8', wanted one of .*'f32', 'bf16'"):
        open_backend("openvino", tmp_path, precision="fp8")
    with pytest.raises(BundleError, match=r"'auto', wanted one of .*'f32', 'bf16'"):
        open_backend("openvino", tmp_path, precision="auto")  # it is chosen before


@pytest.mark.numeric
@pytest.mark.weights
@pytest.mark.openvino
@pytest.mark.slow
def test_i3d_answers_are_bit_identical_alone_in_a_batch_and_side_by_side() -> None:
    path = pulled_kinetics400().backbone_path
    backbone, other = open_openvino(path), open_openvino_side_by_side(path)
    rgb = np.random.default_rng(0).integers(0, 256, (3, 16, 224, 224, 3), np.uint8)
    alone = [backbone.run({"snippets": rgb[i : i + 1]})["features"] for i in (2, 0, 1)]
    for together in (backbone.run({"snippets": rgb}), other.run({"snippets": rgb})):
        assert np.array_equal(together["features"][[2, 0, 1]], np.concatenate(alone))


class _Request:
    """An infer request that answers its input, if it does not fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.data, self.is_busy, self.n_done, self._fails = np.zeros(0), False, 0, fails

    def infer(self, row: Mapping[str, Tensor]) -> None:
        self.start_async(row)

    def start_async(self, row: Mapping[str, Tensor]) -> None:
        assert not self.is_busy
        self.data, self.is_busy = row["x"].copy(), True

    def wait(self) -> None:
        self.n_done += self.is_busy
        self.is_busy = False
        if self._fails:
            raise RuntimeError("out of memory")

    def get_tensor(self, _name: str) -> "_Request":
        return self


@pytest.mark.parametrize("n_rows", range(1, 12))
def test_rows_that_fill_all_streams_run_side_by_side_and_the_rest_alone(n_rows: int) -> None:
    alone, streams = _Request(), [_Request() for _ in range(3)]
    one = TensorSpec("x", (None,), "float64")
    backend = OpenVinoBackend(alone, streams, Signature((one,), (one,)), "rows")
    rows = np.arange(1.0, n_rows + 1)
    assert backend.run({"x": rows})["x"].tolist() == rows.tolist()
    n_done = [request.n_done for request in (alone, *streams)]
    assert n_done == [n_rows % 3, *[n_rows // 3] * 3]


def test_a_row_that_fails_leaves_no_request_running() -> None:
    streams = [_Request(), _Request(fails=True), _Request()]
    one = TensorSpec("x", (None,), "float64")
    backend = OpenVinoBackend(_Request(), streams, Signature((one,), (one,)), "rows")
    for _ in range(2):
        with pytest.raises(DeviceError, match="rows: inference failed: out of memory"):
            backend.run({"x": np.ones(6)})
        assert [request.is_busy for request in streams] == [False, False, False]


@pytest.mark.openvino
@pytest.mark.parametrize("options", [None, BackendOptions(max_batch=1)], ids=["none", "one"])
def test_who_asks_for_single_rows_pays_for_no_second_network(
    options: BackendOptions | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    compile_model, compiled = openvino.Core.compile_model, []

    def counted(core: Any, *args: Any) -> Any:
        compiled.append(args)
        return compile_model(core, *args)

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    path = tmp_path / "localizer.onnx"
    open_backend("openvino", path, precision="f32", threads=2, options=options)
    assert len(compiled) == 1
    open_backend("openvino", path, threads=1, options=BackendOptions(max_batch=8))
    assert len(compiled) == 2
    open_backend("openvino", path, threads=2, options=BackendOptions(max_batch=8))
    assert len(compiled) == 4
