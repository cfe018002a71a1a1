"""Plans that are built beforehand are those that opening the same configuration looks up."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemon.config import ModelConfig, load
from daemon.models.reading import build_plans, open_read, read_model
from daemon.plans.build import configured_model
from engine.backends.options import BackendOptions
from engine.backends.tensorrt import cuda_pycuda, opening
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.library import TensorRt, find_tensorrt
from engine.backends.tensorrt.opening import Toolkit
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache, PlanKey
from engine.backends.tensorrt.plan_recipe import PlanRecipe
from engine.errors import DeviceError
from tests.support.checkout import CHECKOUT
from tests.support.cli import Cli, in_process
from tests.support.fake_cuda import FakeCuda, FakeGpu
from tests.support.fake_tensorrt import FakeTensorRt, fake_plan
from tests.support.real_parts import missing
from tests.support.tiny_bundle import write_fixed_bundle

SIZES = [{}, {"max_batch": 5}, {"max_batch": 3, "one_batch_size": True}]
CONFIG = """
model: {{bundle: tiny, backend: {backend}, max_batch: 3, one_batch_size: true, gpu: 2}}
source: {{kind: directory, path: chunks}}
sink: {{kind: jsonl, path: events.jsonl}}
journal: {{path: journal.sqlite}}
"""


@dataclass
class Machine:
    """One with a GPU that runs nothing but fake plans.

    Attributes:
        trt: Really builds.
        gpu: Fake.
        opened: Which GPUs were.
        looked_up: Keys, and whether the cache had the plan.
    """

    trt: TensorRt
    gpu: FakeGpu = field(default_factory=FakeGpu)
    opened: list[int] = field(default_factory=list)
    looked_up: list[tuple[PlanKey, bool]] = field(default_factory=list)

    def open(self, index: int) -> FakeCuda:
        self.opened.append(index)
        return self.gpu.open()

    def toolkit(self) -> Toolkit:
        return Toolkit(self.trt, self.open, self.look_up, FakeTensorRt(self.gpu).load)

    def look_up(
        self,
        trt: TensorRt,
        gpu: GpuIdentity,
        cache: PlanCache,
        wanted: PlanRecipe,
        _options: BackendOptions,
    ) -> Obtained:
        """Whatever is in the cache, a plan for the fake GPU."""
        key = wanted.key(trt, gpu)
        is_there = any(entry.key == key for entry in cache.entries())
        self.looked_up.append((key, is_there))
        plan = fake_plan(wanted.onnx, len(wanted.profiles))
        return Obtained(plan, is_from_cache=is_there, build_s=0.0)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """In a folder with a bundle, with an empty cache."""
    try:
        machine = Machine(find_tensorrt("tensorrt_rtx"))
    except DeviceError as error:
        missing(f"{error}; or make setup-training")
    write_fixed_bundle(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_pycuda, "open_pycuda", machine.open)
    monkeypatch.setattr(opening, "installed_toolkit", machine.toolkit)
    return machine


@pytest.fixture
def cli(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    del machine  # it sets the scene
    return in_process(monkeypatch, capsys)


def open_once(config: ModelConfig) -> None:
    for backend in open_read(read_model(config)).backends:
        backend.close()


def kept() -> set[object]:
    return {entry.key for entry in PlanCache().entries()}


@pytest.mark.tensorrt_rtx
@pytest.mark.parametrize("sizes", SIZES, ids=repr)
def test_opening_finds_both_plans_that_were_built(machine, sizes):
    config = ModelConfig.model_validate(
        {"bundle": "tiny", "backend": "tensorrt", "gpu": 2, **sizes}
    )
    steps: list[str] = []
    build_plans(read_model(config), lambda phase, _done, _total: steps.append(phase))
    open_once(config)

    assert [True, True] == [is_there for _key, is_there in machine.looked_up]
    assert {key for key, _is_there in machine.looked_up} == kept()
    assert [2] * 3 == machine.opened  # once to build, then for each network
    assert len(set(steps)) > 1
    assert not +machine.gpu.live
    assert [] == machine.gpu.stack


@pytest.mark.tensorrt_rtx
def test_what_progress_raises_ends_the_build_and_lets_the_gpu_go(machine):
    def stop(_phase: str, _done: int, _total: int) -> None:
        raise LookupError

    config = ModelConfig(bundle="tiny", backend="tensorrt")
    with pytest.raises(LookupError):
        build_plans(read_model(config), stop)

    assert set() == kept()
    assert not +machine.gpu.live


@pytest.mark.tensorrt_rtx
def test_the_command_builds_what_a_daemon_with_that_configuration_opens(cli, machine, tmp_path):
    path = tmp_path / "hall.yaml"
    path.write_text(CONFIG.format(backend="tensorrt"))
    built = cli("engine", "build", "--config", path)
    open_once(load(path).model)

    assert 0 == built.code, built.err
    assert [True, True] == [is_there for _key, is_there in machine.looked_up]
    assert {key for key, _is_there in machine.looked_up} == kept()
    assert {2} == set(machine.opened)


@pytest.mark.tensorrt_rtx
def test_options_say_the_same_as_a_configuration(cli, machine, tmp_path):
    path = tmp_path / "hall.yaml"
    path.write_text(CONFIG.format(backend="tensorrt"))
    options = ["--bundle", "tiny", "--max-batch", 3, "--one-batch-size", "--gpu", 2]
    built = cli("engine", "build", *options)
    open_once(load(path).model)

    assert 0 == built.code, built.err
    assert [True, True] == [is_there for _key, is_there in machine.looked_up]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--bundle", "tiny"], "leave out --bundle"),
        (["--bundle", "kinetics400", "--gpu", 0], "leave out --bundle, --gpu"),
        (["--max-batch", 8], "leave out --max-batch"),
        (["--one-batch-size"], "leave out --one-batch-size"),
    ],
)
def test_a_configuration_and_options_that_it_holds_are_refused(
    tmp_path, monkeypatch, capsys, more, told
):
    path = tmp_path / "hall.yaml"
    path.write_text(CONFIG.format(backend="tensorrt"))
    answer = in_process(monkeypatch, capsys)("engine", "build", "--config", path, *more)

    assert 78 == answer.code
    assert answer.complaint.endswith(f"--config says that already; {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CONFIG.format(backend="openvino"), "model.backend is openvino; only tensorrt has plans"),
        ("model: {bundel: tiny}", "model.bundel: unknown key"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_configuration_that_wants_no_plans_is_one_line(
    tmp_path, monkeypatch, capsys, text, told
):
    path = tmp_path / "hall.yaml"
    if text is not None:
        path.write_text(text)
    answer = in_process(monkeypatch, capsys)("engine", "build", "--config", path)

    assert 78 == answer.code
    assert f"s2netd: {path}: " in answer.err
    assert told in answer.err


def test_the_shipped_configuration_wants_plans() -> None:
    model = configured_model(CHECKOUT / "configs" / "daemon" / "gpu.yaml")

    assert ("scenes", "tensorrt", 16) == (model.bundle, model.backend, model.max_batch)


def test_the_example_builds_as_the_services_user_and_into_its_cache() -> None:
    unit = (CHECKOUT / "systemd" / "s2netd@.service").read_text().splitlines()
    (command,) = [line.partition("=")[2] for line in unit if line.startswith("ExecStart=")]
    build = command.replace(" run ", " engine build ").replace("%i", "hall")
    example = (CHECKOUT / "systemd" / "s2netd.env.example").read_text()

    assert {"User=s2netd", "Environment=XDG_CACHE_HOME=%C"} <= set(unit)  # %C is /var/cache
    assert f"#   runuser -u s2netd -- env XDG_CACHE_HOME=/var/cache {build}\n" in example
