"""What can be held against a real TensorRT without a GPU: that its API is the one we call."""

import subprocess
import sys
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from engine.backends.options import OnLog
from engine.backends.profiles import profiles_for
from engine.backends.signatures import read_signature
from engine.backends.tensorrt.cuda import CudaError, PlanTensor
from engine.backends.tensorrt.library import TensorRt, TensorRtKind, find_tensorrt
from engine.backends.tensorrt.plan import _DTYPES, load_plan
from engine.backends.tensorrt.plan_build import build_plan
from engine.errors import DeviceError
from tests.support.checkout import CHECKOUT
from tests.support.fake_cuda import FakeGpu
from tests.support.real_parts import missing, missing_gpu_part
from tests.support.tiny_bundle import localizer

CALLED = {
    "Builder": [
        "build_serialized_network",
        "create_builder_config",
        "create_network",
        "create_optimization_profile",
    ],
    "BuilderFlag": ["TF32"],
    "IBuilderConfig": [
        "add_optimization_profile",
        "clear_flag",
        "create_timing_cache",
        "progress_monitor",
        "set_flag",
        "set_memory_pool_limit",
        "set_timing_cache",
    ],
    "ILogger": ["Severity", "log"],
    "INetworkDefinition": ["get_input", "num_inputs", "num_outputs"],
    "IOptimizationProfile": ["set_shape"],
    "IProgressMonitor": ["phase_finish", "phase_start", "step_complete"],
    "ITensor": ["name", "shape"],
    "ITimingCache": ["serialize"],
    "MemoryPoolType": ["WORKSPACE"],
    "OnnxParser": ["get_error", "num_errors", "parse"],
    "ParserError": ["desc", "node_name", "node_operator"],
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        "create_execution_context",
        "get_tensor_dtype",
        "get_tensor_location",
        "get_tensor_mode",
        "get_tensor_name",
        "get_tensor_shape",
        "num_io_tensors",
        "num_optimization_profiles",
    ],
    "IExecutionContext": [
        "execute_async_v3",
        "get_tensor_shape",
        "set_input_shape",
        "set_optimization_profile_async",
        "set_tensor_address",
    ],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "TensorLocation": ["DEVICE"],
    "TensorIOMode": ["INPUT"],
}
CALLED_OF_RTX = {
    "BuilderFlag": ["REQUIRE_USER_ALLOCATION"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "ICudaEngine": ["create_runtime_config"],
    "IRuntimeConfig": [
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
    ],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
}
SEVERITIES = {"internal_error", "error", "warning", "info", "verbose"}
OLDEST_WITHOUT_CHOICE = 11


@pytest.fixture(
    params=[
        pytest.param("tensorrt_rtx", marks=pytest.mark.tensorrt_rtx),
        pytest.param("tensorrt", marks=pytest.mark.tensorrt),
    ]
)
def trt(request: pytest.FixtureRequest) -> TensorRt:
    kind: TensorRtKind = request.param
    try:
        return find_tensorrt(kind)
    except DeviceError as error:
        if kind == "tensorrt":
            missing_gpu_part(str(error))
        missing(f"no {kind}: {error}")


@pytest.fixture
def rtx() -> TensorRt:
    """TensorRT itself starts on a GPU only: tests/gpu."""
    try:
        return find_tensorrt("tensorrt_rtx")
    except DeviceError as error:
        missing(f"no tensorrt_rtx: {error}")


_LOADING = """
from engine.backends.tensorrt.library import find_tensorrt
from engine.backends.tensorrt.plan import load_plan
from engine.errors import DeviceError
try:
    print(load_plan(find_tensorrt("tensorrt"), b"no plan at all", lambda severity, text: None))
except DeviceError as error:
    print(error)
"""


def quiet() -> tuple[list[tuple[str, str]], OnLog]:
    said: list[tuple[str, str]] = []
    return said, lambda severity, message: said.append((severity, message))


def absent(trt: TensorRt, called: dict[str, list[str]]) -> list[str]:
    return [
        f"{kind}.{name}"
        for kind, names in called.items()
        for name in names
        if not hasattr(getattr(trt.module, kind, None), name)
    ]


def test_every_name_we_call_is_there(trt: TensorRt) -> None:
    assert [] == absent(trt, CALLED)
    assert [] == (absent(trt, CALLED_OF_RTX) if trt.kind == "tensorrt_rtx" else [])
    assert SEVERITIES == {name.lower() for name in trt.module.ILogger.Severity.__members__}
    engine, context = trt.module.ICudaEngine, trt.module.IExecutionContext
    old = hasattr(engine, "get_device_memory_size_for_profile")
    new = hasattr(engine, "get_device_memory_size_for_profile_v2")
    assert old or new
    assert hasattr(context, "device_memory" if old else "set_device_memory")


def test_networks_are_strongly_typed_whether_one_asks_or_not(trt: TensorRt) -> None:
    flags = trt.module.NetworkDefinitionCreationFlag.__members__
    major = int(trt.version.partition(".")[0])
    has_a_choice = trt.kind == "tensorrt" and major < OLDEST_WITHOUT_CHOICE
    assert "STRONGLY_TYPED" in flags or not has_a_choice
    wanted = 1 << int(flags["STRONGLY_TYPED"]) if "STRONGLY_TYPED" in flags else 0
    assert wanted == trt.network_flags


def test_what_we_name_in_a_call_is_named_so(trt: TensorRt) -> None:
    config = trt.module.IBuilderConfig
    assert "ignore_mismatch: bool" in config.set_timing_cache.__doc__
    assert "uffer" in config.create_timing_cache.__doc__  # bytes, not a list of numbers


def test_its_types_are_those_we_know(trt: TensorRt) -> None:
    for name, dtype in _DTYPES.items():
        assert np.dtype(dtype) == np.dtype(trt.module.nptype(getattr(trt.module.DataType, name)))


@pytest.mark.tensorrt_rtx
def test_what_is_no_plan_does_not_load_and_the_reason_is_passed_on(
    rtx: TensorRt,
) -> None:
    said, on_log = quiet()
    assert load_plan(rtx, b"no plan at all", on_log) is None
    assert any(severity == "error" for severity, _ in said)


@pytest.mark.tensorrt_rtx
def test_a_plan_without_a_gpu_does_not_load_and_does_not_crash(
    rtx: TensorRt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("plan") / "localizer.onnx"
    onnx.save(localizer(), path)
    signature, _ = read_signature(path)
    profiles = profiles_for(signature, batch_sizes=(1, 2), length=(3, 3, 3))
    plan = build_plan(rtx, path.read_bytes(), profiles).plan
    said, on_log = quiet()
    loaded = load_plan(rtx, plan, on_log)
    if loaded is None:  # no GPU here
        assert any(severity == "error" for severity, _ in said)
    else:
        assert 2 == loaded.n_profiles
        assert {"features", "valid", "cas", "attention", "video_scores"} == {
            tensor.name for tensor in loaded.tensors
        }
        loaded.free()


@pytest.mark.tensorrt
def test_without_a_driver_it_says_so_and_the_process_lives() -> None:
    try:
        find_tensorrt("tensorrt")
    except DeviceError as error:
        missing_gpu_part(str(error))
    done = subprocess.run(
        [sys.executable, "-c", _LOADING],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr  # none of its objects ends the process
    assert "cannot start on this NVIDIA driver" in done.stdout or "None" in done.stdout


# What TensorRT answers on a GPU, played by objects that have the names checked above.


class PlayedLogger:
    class Severity(IntEnum):
        ERROR = 1
        VERBOSE = 4


class PlayedModule(SimpleNamespace):
    __hash__ = object.__hash__  # as modules have it


class Played:
    """A TensorRT with one plan; ``refuses`` names the call that says no, and logs why."""

    def __init__(
        self,
        *,
        refuses: str = "",
        kind: str = "FLOAT",
        has_v1: bool = True,
        raises: bool = False,
    ) -> None:
        self.refuses = refuses
        self.raises = raises
        self.kind = kind
        self.loggers: list[Any] = []
        self.did: list[tuple[Any, ...]] = []
        v1 = {"get_device_memory_size_for_profile": lambda _self, profile: 100 * profile}
        v2 = {"get_device_memory_size_for_profile_v2": lambda _self, profile: 1000 * profile}
        self.engine = type("Engine", (PlayedEngine,), v1 if has_v1 else v2)(self)

    def says(self, name: str) -> bool:
        self.did.append((name,))
        if name == self.refuses:
            self.loggers[0].log(PlayedLogger.Severity.ERROR, f" {name}: because \n")
            self.loggers[0].log(PlayedLogger.Severity.ERROR, "an echo")
            self.loggers[0].log(PlayedLogger.Severity.VERBOSE, "chatter")
        return name != self.refuses

    def trt(self) -> TensorRt:
        def runtime(logger: Any) -> Any:
            self.loggers.append(logger)
            if not self.says("Runtime"):
                if self.raises:
                    raise TypeError("pybind11::init(): factory function returned nullptr")
                return None  # around nothing: no use may be made of it

            def load(plan: bytes) -> Any:
                if plan == b"large":
                    logger.log(PlayedLogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested")
                return self.engine if plan == b"plan" else None

            return SimpleNamespace(deserialize_cuda_engine=load)

        module = PlayedModule(
            ILogger=PlayedLogger,
            Runtime=runtime,
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="by the user"),
            TensorLocation=SimpleNamespace(DEVICE="device"),
            TensorIOMode=SimpleNamespace(INPUT="input"),
        )
        # A name of its own: the log of a kind is one for the whole process.
        return TensorRt(module, f"played {id(self)}", "0")  # type: ignore[arg-type]


class PlayedEngine:
    num_io_tensors = 2
    num_optimization_profiles = 3

    def __init__(self, played: Played) -> None:
        self._played = played

    def get_tensor_name(self, index: int) -> str:
        return ("features", "cas")[index]

    def get_tensor_shape(self, _name: str) -> list[int]:
        return [-1, 4]

    def get_tensor_dtype(self, _name: str) -> Any:
        return SimpleNamespace(name=self._played.kind)

    def get_tensor_location(self, _name: str) -> str:
        return "device"

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "features" else "output"

    def create_execution_context(self, strategy: str) -> Any:
        assert strategy == "by the user"
        return PlayedContext(self._played) if self._played.says("create") else None


class PlayedContext:
    def __init__(self, played: Played) -> None:
        self._played = played

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._played.did.append((name, value))
        super().__setattr__(name, value)

    def set_device_memory(self, address: int, n_bytes: int) -> None:
        self._played.did.append(("set_device_memory", address, n_bytes))

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._played.did.append((profile, stream))
        return self._played.says("profile")

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        assert isinstance(shape, tuple)
        return self._played.says("shape")

    def get_tensor_shape(self, _name: str) -> list[int]:
        return [2, 4]

    def set_tensor_address(self, _name: str, _address: int) -> bool:
        return self._played.says("address")

    def execute_async_v3(self, _stream: int) -> bool:
        return self._played.says("enqueue")


def use(played: Played, said: list[tuple[str, str]]) -> None:
    """Everything a backend does with a plan."""
    gpu = FakeGpu()
    cuda = gpu.open()
    with cuda.current():
        stream, scratch = cuda.stream(), cuda.allocate(256)
        plan = load_plan(
            played.trt(), b"plan", lambda severity, text: said.append((severity, text))
        )
        assert plan is not None
        context = plan.context(2, scratch, stream)
        assert gpu.calls.count("synchronize stream") == 1  # before the context is used
        context.set_shape("features", (2, 4))
        assert (2, 4) == context.shape("cas")
        context.set_address("features", 512)
        context.enqueue(stream)
        context.free()
        plan.free()


def test_a_plan_is_described_and_used() -> None:
    played = Played()
    use(played, [])
    plan = load_plan(played.trt(), b"plan", lambda _severity, _text: None)
    assert plan is not None
    assert (3, 200) == (plan.n_profiles, plan.scratch_bytes)
    assert (
        PlanTensor("features", (-1, 4), "float32", is_input=True),
        PlanTensor("cas", (-1, 4), "float32", is_input=False),
    ) == plan.tensors
    assert any(done[0] == "device_memory" for done in played.did)


def test_newer_ones_are_asked_for_memory_in_the_newer_way() -> None:
    played = Played(has_v1=False)
    use(played, [])
    plan = load_plan(played.trt(), b"plan", lambda _severity, _text: None)
    assert plan is not None
    assert 2000 == plan.scratch_bytes
    assert any(done[0] == "set_device_memory" and done[2] == 256 for done in played.did)


@pytest.mark.parametrize("call", ["create", "profile", "shape", "address", "enqueue"])
def test_what_it_refuses_is_an_error_with_its_own_first_reason(call: str) -> None:
    said: list[tuple[str, str]] = []
    with pytest.raises(CudaError, match=f"could not .*: {call}: because$"):
        use(Played(refuses=call), said)
    assert [("error", f"{call}: because"), ("error", "an echo")] == said


@pytest.mark.parametrize("raises", [False, True])
def test_a_driver_too_old_is_told_as_that(raises: bool) -> None:  # noqa: FBT001
    with pytest.raises(CudaError, match=r"cannot start on this NVIDIA driver .*Runtime: because"):
        use(Played(refuses="Runtime", raises=raises), [])


def test_types_that_numpy_lacks_do_not_cross_the_edge() -> None:
    with pytest.raises(CudaError, match='"features" of the plan is BF16'):
        use(Played(kind="BF16"), [])


def test_a_gpu_that_is_full_says_nothing_about_the_plan() -> None:
    with pytest.raises(
        CudaError, match=r"could not put the plan on the GPU: .*OutOfMemory"
    ) as told:
        load_plan(Played().trt(), b"large", lambda _severity, _text: None)
    assert "memory" == told.value.fault


def test_what_it_does_not_load_is_none() -> None:
    assert load_plan(Played().trt(), b"another", lambda _severity, _text: None) is None
