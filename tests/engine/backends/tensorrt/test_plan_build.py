"""Plans are really built, by the TensorRT that needs no GPU; what cannot be built is explained."""

import importlib
import itertools
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.parser
import pytest

from engine.backends.onnx_precision import precision_of
from engine.backends.options import BackendOptions
from engine.backends.profiles import Profiles, profiles_for
from engine.backends.signatures import read_signature
from engine.backends.tensorrt.gpu_identity import NO_GPU
from engine.backends.tensorrt.library import TensorRt, find_tensorrt
from engine.backends.tensorrt.plan_build import build_plan
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.backends.tensorrt.plan_recipe import obtain_plan, recipe
from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.errors import BundleError, DeviceError
from engine.published.int8_graph import ConvolutionGraph, with_quantization
from tests.support.real_parts import missing, missing_gpu_part
from tests.support.tiny_bundle import localizer
from training.precision.half import to_precision

SEVERITIES = {"internal_error", "error", "warning", "info", "verbose"}

_CONVOLUTION = """
<ir_version: 10, opset_import: ["": 18]>
convolution (uint8[B,4,8,8,3] snippets) => (float[B,4] features) {
  pixels = Cast<to = 1>(snippets)
  channels_first = Transpose<perm = [0, 4, 1, 2, 3]>(pixels)
  seen = Conv<pads = [1, 1, 1, 1, 1, 1]>(channels_first, kernel)
  active = Relu(seen)
  frames_rows_columns = Constant<value = int64[3] {2, 3, 4}>()
  features = ReduceMean<keepdims = 0>(active, frames_rows_columns)
}
"""


def convolution() -> bytes:
    """A small backbone of the real kind: bytes in, a 3-D convolution, a mean."""
    model = onnx.parser.parse_model(_CONVOLUTION)
    kernel = [i / 400 for i in range(4 * 3**4)]
    model.graph.initializer.append(onnx.helper.make_tensor("kernel", 1, [4, *[3] * 4], kernel))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _found(kind: str) -> TensorRt:
    try:
        return find_tensorrt(kind)  # type: ignore[arg-type]
    except DeviceError as error:
        if kind == "tensorrt":
            missing_gpu_part(str(error))
        missing(f"{error}; or make setup-training")


@pytest.fixture(scope="module")
def rtx() -> TensorRt:
    return _found("tensorrt_rtx")


def profiles_of(
    network: bytes, folder: Path, batch_sizes: tuple[int, ...] = (1, 4), n_snippets: int = 6
) -> Profiles:
    path = folder / "network.onnx"
    path.write_bytes(network)
    signature, _opset = read_signature(path)
    return profiles_for(
        signature, batch_sizes=batch_sizes, length=(n_snippets, n_snippets, n_snippets)
    )


TINY = {
    "localizer": localizer().SerializeToString(),
    "localizer-with-background": localizer(takes_background=True).SerializeToString(),
    "convolution": convolution(),
}


@pytest.mark.tensorrt_rtx
@pytest.mark.parametrize("network", TINY.values(), ids=TINY)
def test_a_network_becomes_a_plan_with_a_kernel_for_each_profile(rtx, network, tmp_path):
    one = build_plan(rtx, network, profiles_of(network, tmp_path, (1,)))
    two = build_plan(rtx, network, profiles_of(network, tmp_path, (1, 4)))

    assert len(one.plan) < len(two.plan)
    assert one.timing_cache is None  # RTX times nothing


@pytest.mark.tensorrt_rtx
def test_progress_rises_in_every_phase_and_the_log_has_severities(rtx, tmp_path):
    steps: list[tuple[str, int, int]] = []
    log: list[tuple[str, str]] = []
    build_plan(
        rtx,
        TINY["localizer"],
        profiles_of(TINY["localizer"], tmp_path),
        on_log=lambda severity, message: log.append((severity, message)),
        on_progress=lambda phase, done, total: steps.append((phase, done, total)),
    )
    phases = {phase for phase, _done, _total in steps}

    assert len(phases) > 1
    for phase in phases:
        done = [at for name, at, _total in steps if name == phase]
        # a phase may come again, for another part of the network
        assert all(after >= before or after == 0 for before, after in itertools.pairwise(done))
    assert all(0 <= done <= total for _phase, done, total in steps)
    # every phase ended
    assert phases == {phase for phase, done, total in steps if done == total}
    assert {severity for severity, _message in log} <= SEVERITIES
    assert any("cas" in message for severity, message in log if severity == "verbose")


class StopError(Exception):
    """What a caller's callback raises."""


@pytest.mark.tensorrt_rtx
@pytest.mark.parametrize("raised", [StopError("enough"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("callback", ["on_log", "on_progress"])
def test_what_a_callback_raises_ends_the_build_and_is_raised(rtx, tmp_path, raised, callback):
    calls = itertools.count()

    def stop(*_arguments: object) -> None:
        if next(calls) == 5:
            raise raised

    with pytest.raises(type(raised)) as caught:
        build_plan(
            rtx,
            TINY["localizer"],
            profiles_of(TINY["localizer"], tmp_path),
            **{callback: stop},
        )
    assert raised is caught.value
    assert 6 == next(calls)  # it was not called again


@pytest.mark.tensorrt_rtx
def test_a_kept_error_keeps_nothing_of_tensorrt(rtx, tmp_path):
    with pytest.raises(BundleError) as caught:
        build_plan(rtx, b"no network", profiles_of(TINY["localizer"], tmp_path))
    frames = [frame for frame, _line in traceback.walk_tb(caught.value.__traceback__)]
    kept = [
        value
        for frame in frames
        for value in frame.f_locals.values()
        if type(value).__module__.startswith("tensorrt")
    ]

    assert len(frames) > 2
    assert [] == kept


_COLLECT = """
import gc, sys
from pathlib import Path
from engine.backends.options import BackendOptions
from engine.backends.profiles import profiles_for
from engine.backends.signatures import read_signature
from engine.backends.tensorrt.plan_build import build_plan
from engine.backends.tensorrt.log import listening
from engine.backends.tensorrt.library import find_tensorrt
from engine.errors import BundleError

path = Path(sys.argv[1])
trt = find_tensorrt("tensorrt_rtx")
profiles = profiles_for(read_signature(path)[0], batch_sizes=(1,), length=(6, 6, 6))

n_heard = 0

def collect(_severity, _message):
    global n_heard
    n_heard += 1
    if n_heard < 20:
        gc.collect()

with listening(trt.module, lambda *_: None) as logger:
    for _ in range(3):
        garbage = [trt.module.Builder(logger)]  # only a collection frees it
        garbage.append(garbage)
        del garbage
        try:
            build_plan(trt, b"no network", profiles)
        except BundleError as error:
            error.itself = error
        n_heard = 0
        build_plan(trt, path.read_bytes(), profiles, on_log=collect)
"""


@pytest.mark.tensorrt_rtx
@pytest.mark.slow
@pytest.mark.usefixtures("rtx")
def test_collecting_old_builders_in_the_middle_of_a_build_does_not_hang(tmp_path):
    path = tmp_path / "localizer.onnx"
    path.write_bytes(TINY["localizer"])
    done = subprocess.run(
        [sys.executable, "-c", _COLLECT, path], capture_output=True, timeout=120, check=False
    )

    assert (0, b"") == (done.returncode, done.stderr)


@pytest.mark.tensorrt_rtx
@pytest.mark.parametrize(
    "damaged",
    [b"", b"this is no network", b"\x00" * 100, TINY["localizer"][:-40], TINY["localizer"][:20]],
    ids=["empty", "text", "zeros", "cut-off", "a-few-bytes"],
)
def test_what_is_no_network_is_refused(rtx, tmp_path, damaged):
    profiles = profiles_of(TINY["localizer"], tmp_path)

    with pytest.raises(BundleError, match=f"{rtx.kind} .*cannot read the network: "):
        build_plan(rtx, damaged, profiles)


@pytest.mark.tensorrt_rtx
def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(rtx, tmp_path):
    model = localizer()
    model.graph.node[-1].op_type = "Bernoulli"
    model.graph.node[-1].name = "coin"
    del model.graph.node[-1].input[1:]
    profiles = profiles_of(TINY["localizer"], tmp_path)

    with pytest.raises(BundleError) as caught:
        build_plan(rtx, model.SerializeToString(), profiles)
    assert "Bernoulli node 'coin'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.tensorrt_rtx
def test_profiles_of_another_network_are_refused_by_input(rtx, tmp_path):
    wanted = profiles_of(TINY["convolution"], tmp_path)

    with pytest.raises(BundleError, match=r"inputs are \['features', 'valid'\], wanted"):
        build_plan(rtx, TINY["localizer"], wanted)


@pytest.mark.tensorrt_rtx
def test_shapes_that_the_network_does_not_take_are_refused(rtx, tmp_path):
    path = tmp_path / "other.onnx"
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["": 18]>
        other (float[B,T,7] features, float[B,T] valid) => (float[B,T,7] same) {
          same = Identity(features)
        }
        """
    )
    path.write_bytes(model.SerializeToString())
    signature, _opset = read_signature(path)
    of_another = profiles_for(signature, batch_sizes=(1,), length=(5, 5, 5))

    with pytest.raises(BundleError, match=r"\"features\" is \(-1, -1, 3\), wanted \(\(1, 5, 7\)"):
        build_plan(rtx, TINY["localizer"], of_another)


@pytest.mark.tensorrt_rtx
def test_a_recipe_and_the_cache_build_a_networks_plan_once(rtx, tmp_path):
    path = tmp_path / "localizer.onnx"
    path.write_bytes(TINY["localizer"])
    cache = PlanCache(tmp_path / "plans")
    options = BackendOptions(max_batch=2, length=(6, 6, 6))
    wanted = recipe(path, options)
    key = wanted.key(rtx, NO_GPU)
    first, second = (obtain_plan(rtx, NO_GPU, cache, wanted, options) for _ in range(2))

    assert [False, True] == [first.is_from_cache, second.is_from_cache]
    assert first.plan == second.plan
    assert key == cache.entries()[0].key
    assert str(rtx) == key.tensorrt


def test_a_recipe_of_a_network_that_fits_nothing_names_the_file(tmp_path):
    path = tmp_path / "localizer.onnx"
    path.write_bytes(TINY["localizer"])

    with pytest.raises(BundleError, match=r'localizer.onnx: input "features" .* wanted a length'):
        recipe(path, BackendOptions())
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        recipe(tmp_path / "none.onnx", BackendOptions())


def test_a_networks_precision_is_read_from_its_weights():
    half, brain, plain = (
        onnx.parser.parse_model(
            f"""
            <ir_version: 10, opset_import: ["": 22]>
            net (float[B,3] x) => ({kind}[B,3] y) <{kind}[3] shift = {{1, 2, 3}}> {{
              low = Cast<to = {number}>(x)
              y = Add(low, shift)
            }}
            """
        )
        for kind, number in (("float16", 10), ("bfloat16", 16), ("float", 1))
    )
    quantized = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["": 22]>
        net (float[B,3] x) => (float[B,3] y) <float scale = {0.1}> {
          q = QuantizeLinear(x, scale)
          y = DequantizeLinear(q, scale)
        }
        """
    )
    seen = [precision_of(model.SerializeToString()) for model in (half, brain, plain, quantized)]

    assert ["f16", "bf16", "f32", "int8"] == seen


def in_precision(network: bytes, precision: str) -> bytes:
    """The network as export writes it; int8's steps are made up, for only its form counts."""
    if precision == "f32":
        return network
    if precision != "int8":
        return to_precision(network, precision)  # type: ignore[arg-type]
    graph = ConvolutionGraph(onnx.load_from_string(network))
    steps = {source: 0.05 for group in graph.groups() for source in group}
    return bytes(with_quantization(graph, {}, steps).SerializeToString())


def build_in_precision(trt: TensorRt, network: bytes, precision: str, folder: Path) -> int:
    """Build a network in a precision; give the size of its plan in bytes."""
    converted = in_precision(network, precision)
    assert precision == precision_of(converted)
    return len(build_plan(trt, converted, profiles_of(converted, folder, (1, 8), 96)).plan)


@pytest.mark.tensorrt_rtx
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "int8"])
def test_a_small_backbone_becomes_a_plan_in_every_precision(rtx, precision, tmp_path):
    assert build_in_precision(rtx, TINY["convolution"], precision, tmp_path) > 0


@pytest.fixture(scope="module")
def scenes(kinetics400: Path) -> ModelBundle:
    """The shipped bundle; its backbone is that of a pulled model."""
    del kinetics400
    try:
        return ModelBundle.load(resolve_bundle("scenes"))
    except BundleError as error:
        missing(f"no real weights: {error}")


@pytest.mark.tensorrt_rtx
@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_the_shipped_localizer_becomes_a_plan_in_every_precision(rtx, scenes, precision, tmp_path):
    network = scenes.localizer_path.read_bytes()

    assert build_in_precision(rtx, network, precision, tmp_path) > len(network) / 2


@pytest.mark.tensorrt_rtx
@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "int8"])
def test_the_real_backbone_becomes_a_plan_in_every_precision(rtx, scenes, precision, tmp_path):
    network = scenes.backbone_path.read_bytes()

    assert build_in_precision(rtx, network, precision, tmp_path) > len(network) / 2


@pytest.mark.tensorrt
def test_the_genuine_builder_without_a_gpu_says_that_it_needs_one(tmp_path):
    trt = _found("tensorrt")
    if _has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=r"cannot build here: .*the GPU that will run them"):
        build_plan(trt, TINY["localizer"], profiles_of(TINY["localizer"], tmp_path))


@pytest.mark.gpu
@pytest.mark.parametrize("hostile", [None, b"", b"noise" * 100])
def test_on_a_gpu_timings_are_kept_and_damaged_ones_ignored(tmp_path, hostile):
    if not _has_gpu():
        pytest.skip("no NVIDIA GPU")
    trt = find_tensorrt("tensorrt")
    network = TINY["convolution"]
    profiles = profiles_of(network, tmp_path)
    first = build_plan(trt, network, profiles, timing_cache=hostile)
    assert first.timing_cache
    second = build_plan(trt, network, profiles, timing_cache=first.timing_cache)

    assert second.plan
    assert len(first.timing_cache) <= len(second.timing_cache or b"")


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


# What is installed is what the interpreter finds: these put packages of odd kinds in its way.


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that come before all others; no TensorRT but what is put there."""
    names = ("tensorrt", "tensorrt_bindings", "tensorrt_rtx")
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


_TENSORRT = """
__version__ = {version!r}
class Builder: ...
class BuilderFlag: ...
class NetworkDefinitionCreationFlag: ...
"""


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, r"\(not installed\): pip install 's2netd\[gpu\]'"),
        (
            {"tensorrt_bindings": "raise ImportError('libnvinfer.so.10: cannot open')"},
            r"tensorrt_bindings: libnvinfer.so.10: cannot open",
        ),
        ({"tensorrt": "raise OSError('libnvinfer.so.10')"}, "tensorrt: libnvinfer.so.10"),
        ({"tensorrt": "import tensorrt_libs"}, "tensorrt: No module named 'tensorrt_libs'"),
        ({"tensorrt": "__version__ = '10.0'"}, "tensorrt: holds no builder"),
        ({"tensorrt": "class Builder: ..."}, "tensorrt: holds no builder"),
        ({"tensorrt": _TENSORRT.format(version="8.6.1")}, "is 8.6.1, wanted 10 or newer"),
        ({"tensorrt": _TENSORRT.format(version="ten")}, "is ten, wanted 10 or newer"),
    ],
)
def test_what_keeps_tensorrt_from_being_used_is_told(installed, files, complaint):
    for name, text in files.items():
        (installed / f"{name}.py").write_text(text)
    importlib.invalidate_caches()

    with pytest.raises(DeviceError, match=f"TensorRT cannot be imported .*{complaint}"):
        find_tensorrt()


def test_the_full_package_is_preferred_and_rtx_is_the_last(installed):
    for name, version in (("tensorrt", "11.2"), ("tensorrt_rtx", "1.7")):
        (installed / f"{name}.py").write_text(_TENSORRT.format(version=version))
    importlib.invalidate_caches()

    assert "tensorrt 11.2" == str(find_tensorrt())
    assert "tensorrt_rtx 1.7" == str(find_tensorrt("tensorrt_rtx"))
    (installed / "tensorrt.py").write_text("raise ModuleNotFoundError(name='tensorrt')")
    sys.modules.pop("tensorrt")
    importlib.invalidate_caches()
    assert "tensorrt_rtx 1.7" == str(find_tensorrt())
    with pytest.raises(DeviceError, match="wanted one of"):
        find_tensorrt("tensorflow")  # type: ignore[arg-type]


def test_flags_are_asked_for_only_where_they_exist(installed):
    (installed / "tensorrt.py").write_text(_TENSORRT.format(version="12.0"))
    importlib.invalidate_caches()
    trt = find_tensorrt()

    assert 0 == trt.network_flags  # nothing but strong typing is possible there
    assert trt.user_allocation_flag is None
    assert trt.has_timing_cache
    assert not trt.builds_without_gpu


@pytest.mark.tensorrt_rtx
def test_rtx_is_asked_for_what_cuda_graphs_need(rtx):
    assert rtx.network_flags == 1 << int(rtx.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert rtx.user_allocation_flag == rtx.module.BuilderFlag.REQUIRE_USER_ALLOCATION
    assert not rtx.has_timing_cache
    assert rtx.builds_without_gpu
