"""The TensorRT backend on a real GPU: the numbers of OpenVINO, and nothing left behind."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.backends import open_backend
from engine.backends.base import Tensor
from engine.backends.options import BackendOptions
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.backends.tensorrt.cuda import CudaError
from engine.backends.tensorrt.opening import Toolkit, open_tensorrt
from engine.backends.tensorrt.plan import load_plan
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.bundle.model_bundle import ModelBundle
from tests.support.i3d_parts import pulled_kinetics400
from tests.support.tiny_bundle import localizer
from tests.support.tiny_convolutions import convolutional_backbone, some_snippets
from training.precision.half import HalfPrecision, to_precision
from training.precision.int8 import to_int8

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
MIB = 1 << 20


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture
def tiny(toolkit: Toolkit, plans: Path, tmp_path: Path) -> Iterator[TensorRtBackend]:
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    options = BackendOptions(max_batch=4, length=(1, 5, 24), cache_dir=plans)
    path = tmp_path / "localizer.onnx"
    with closing(
        open_tensorrt(path, precision="f32", options=options, toolkit=toolkit)
    ) as backend:
        yield backend


@pytest.fixture
def convolutions(toolkit: Toolkit, plans: Path, tmp_path: Path) -> Iterator[TensorRtBackend]:
    path = tmp_path / "convolutions.onnx"
    path.write_bytes(convolutional_backbone())
    options = BackendOptions(max_batch=4, cache_dir=plans)
    with closing(
        open_tensorrt(path, precision="f32", options=options, toolkit=toolkit)
    ) as backend:
        yield backend


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return pulled_kinetics400()


def windows(n_rows: int, length: int = 5, seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.uniform(size=(n_rows, length, 3)).astype(np.float32),
        "valid": np.ones((n_rows, length), np.float32),
    }


def cosines(seen: Tensor, wanted: Tensor) -> Tensor:
    a, b = (np.asarray(tensor, np.float64) for tensor in (seen, wanted))
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / scale)


def test_answers_are_right_for_every_batch_and_length(tiny: TensorRtBackend) -> None:
    tiny.warm_up()
    for n_rows in (1, 2, 3, 4, 11):
        for length in (5, 1, 24, 5, 5, 5):
            question = windows(n_rows, length)
            cas = tiny.run(question)["cas"]
            np.testing.assert_allclose(cas, question["features"][..., :2], atol=1e-6)


def in_precision(precision: str) -> bytes:
    """A small backbone, converted by the project's own code: no torch, and no file."""
    network = convolutional_backbone()
    match precision:
        case "int8":
            return to_int8(network, some_snippets(16)).network
        case "f16" | "bf16":
            return to_precision(network, precision)
        case _:
            return network


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("precision", "least_cosine"),
    [("f32", 0.9999), ("f16", 0.999), ("bf16", 0.99), ("int8", 0.99)],
)
def test_convolutions_give_the_features_of_openvino_in_every_precision(
    precision: str, least_cosine: float, toolkit: Toolkit, plans: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    exact, path = tmp_path / "f32.onnx", tmp_path / f"in-{precision}.onnx"
    exact.write_bytes(convolutional_backbone())
    path.write_bytes(in_precision(precision))
    question: dict[str, Tensor] = {"snippets": np.stack(some_snippets(11, seed=1))}
    with closing(open_backend("openvino", exact, precision="f32")) as reference:
        wanted = reference.run(question)["features"]
    options = BackendOptions(max_batch=4, cache_dir=plans)
    with closing(
        open_tensorrt(path, precision=precision, options=options, toolkit=toolkit)
    ) as backend:
        backend.warm_up()
        seen = backend.run(question)["features"]
        assert f" {precision} " in backend.description
    assert cosines(seen, wanted).min() > least_cosine


@pytest.mark.parametrize(("precision", "least_cosine"), [("f16", 0.999), ("bf16", 0.99)])
def test_the_backbone_in_half_precision_gives_the_features_of_openvino(
    precision: HalfPrecision,
    least_cosine: float,
    toolkit: Toolkit,
    bundle: ModelBundle,
    plans: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / f"backbone-{precision}.onnx"
    path.write_bytes(to_precision(bundle.backbone_path.read_bytes(), precision))
    rgb = np.random.default_rng(0).integers(0, 256, (5, 16, 224, 224, 3), np.uint8)
    with closing(open_backend("openvino", bundle.backbone_path, precision="f32")) as reference:
        wanted = reference.run({"snippets": rgb})["features"]
    options = BackendOptions(max_batch=4, cache_dir=plans)
    with closing(
        open_tensorrt(path, precision=precision, options=options, toolkit=toolkit)
    ) as backend:
        backend.warm_up()
        seen = backend.run({"snippets": rgb})["features"]
    assert cosines(seen, wanted).min() > least_cosine


def test_the_backbone_gives_the_features_of_openvino(
    toolkit: Toolkit, bundle: ModelBundle, plans: Path
) -> None:
    pytest.importorskip("openvino")
    rgb = np.random.default_rng(0).integers(0, 256, (5, 16, 224, 224, 3), np.uint8)
    with closing(open_backend("openvino", bundle.backbone_path, precision="f32")) as reference:
        wanted = reference.run({"snippets": rgb})["features"]
    options = BackendOptions(max_batch=4, cache_dir=plans)
    with closing(
        open_tensorrt(bundle.backbone_path, precision="f32", options=options, toolkit=toolkit)
    ) as backend:
        backend.warm_up()
        seen = backend.run({"snippets": rgb})["features"]
        # The same company size, other company: bit for bit the same answer.
        other = np.concatenate([rgb[:1], rgb[2:5]])
        assert np.array_equal(seen[:1], backend.run({"snippets": other})["features"][:1])
    assert cosines(seen, wanted).min() > 0.9999


def test_the_localizer_gives_the_scores_of_openvino(
    toolkit: Toolkit, bundle: ModelBundle, plans: Path
) -> None:
    pytest.importorskip("openvino")
    n, d = bundle.spec.window.window_snippets, bundle.spec.feature_dim
    rng = np.random.default_rng(0)
    question: dict[str, Tensor] = {
        "features": rng.uniform(0, 1, (3, n, d)).astype(np.float32),
        "valid": np.ones((3, n), np.float32),
    }
    with closing(open_backend("openvino", bundle.localizer_path, precision="f32")) as reference:
        wanted = reference.run(question)
    options = BackendOptions(max_batch=4, length=(n, n, n), cache_dir=plans)
    with closing(
        open_tensorrt(bundle.localizer_path, precision="f32", options=options, toolkit=toolkit)
    ) as backend:
        seen = backend.run(question)
    for name in ("cas", "attention", "video_scores"):
        np.testing.assert_allclose(seen[name], wanted[name], atol=1e-3)


def assert_ten_thousand_batches_leak_nothing(
    backend: TensorRtBackend, question: Mapping[str, Tensor]
) -> None:
    """Each call is ten batches of four."""
    backend.warm_up()
    for _ in range(100):
        backend.run(question)
    before = backend.memory().free
    for _ in range(1000):
        backend.run(question)
    assert abs(before - backend.memory().free) < 4 * MIB  # another process may come and go


def test_ten_thousand_batches_leak_nothing(tiny: TensorRtBackend) -> None:
    assert_ten_thousand_batches_leak_nothing(tiny, windows(40))


def test_ten_thousand_batches_of_convolutions_leak_nothing(convolutions: TensorRtBackend) -> None:
    snippets = np.stack(some_snippets(40))
    assert_ten_thousand_batches_leak_nothing(convolutions, {"snippets": snippets})


def test_opening_and_closing_leaks_nothing(
    toolkit: Toolkit, plans: Path, tmp_path: Path, tiny: TensorRtBackend
) -> None:
    onnx.save(localizer(), tmp_path / "again.onnx")
    options = BackendOptions(max_batch=4, length=(5, 5, 5), cache_dir=plans)
    free = []
    for _ in range(6):
        with closing(
            open_tensorrt(
                tmp_path / "again.onnx", precision="f32", options=options, toolkit=toolkit
            )
        ) as backend:
            backend.warm_up()
        free.append(tiny.memory().free)
    assert abs(free[1] - free[-1]) < 4 * MIB


def test_it_runs_with_and_without_graphs_and_overlap(
    toolkit: Toolkit, plans: Path, tmp_path: Path
) -> None:
    onnx.save(localizer(), tmp_path / "localizer.onnx")
    notes: list[str] = []
    plain = BackendOptions(
        max_batch=4,
        length=(5, 5, 5),
        cache_dir=plans,
        on_log=lambda _severity, text: notes.append(text),
    )
    question, answers = windows(11), []
    for options in (
        plain,
        replace(plain, cuda_graphs=False),
        replace(plain, overlap=False),
    ):
        with closing(
            open_tensorrt(
                tmp_path / "localizer.onnx", precision="f32", options=options, toolkit=toolkit
            )
        ) as backend:
            backend.warm_up()
            answers.append(backend.run(question)["cas"])
    assert all(np.array_equal(answers[0], other) for other in answers[1:])
    assert not [note for note in notes if "without a CUDA graph" in note]


def test_it_lives_beside_torch(tiny: TensorRtBackend) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA")
    square = torch.eye(64, device="cuda")
    tiny.warm_up()
    for seed in range(20):
        question = windows(4, seed=seed)
        product = (square @ square).sum().item()
        assert 64 == product
        cas = tiny.run(question)["cas"]
        np.testing.assert_allclose(cas, question["features"][..., :2], atol=1e-6)
    tiny.close()
    assert 64 == (square @ square).sum().item()


def test_too_much_memory_is_told_as_that(toolkit: Toolkit) -> None:
    cuda = toolkit.open_cuda(0)
    with cuda.current():
        total = cuda.memory().total
        with pytest.raises(CudaError) as caught:
            cuda.allocate(2 * total)
    cuda.close()
    assert "memory" == caught.value.fault


def test_a_plan_cut_short_does_not_load(
    toolkit: Toolkit, tiny: TensorRtBackend, plans: Path
) -> None:
    assert tiny.description
    entry = next(entry for entry in PlanCache(plans).entries() if entry.path.suffix == ".plan")
    content = entry.path.read_bytes()
    cuda = toolkit.open_cuda(0)
    with cuda.current():
        for damaged in (b"", content[-1000:], bytes(1000)):
            assert load_plan(toolkit.trt, damaged, lambda _severity, _text: None) is None
    cuda.close()
