"""A name that is none is refused in one line, in every command, before anything is done."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
import typer

import daemon.cli
import training.cli
from engine.backends.names import BACKENDS, PRECISIONS, check_backend, check_name
from engine.bundle.model_bundle import ModelBundle
from engine.errors import BundleError, DataError
from tests.support.real_parts import missing
from tests.support.tiny_bundle import write_tiny_bundle

YAML = "here/x.yaml"
NO_BUNDLE = "no bundle nope in"
NO_F64 = "--precision is 'f64', wanted one of 'f32', "
NO_TPU = "is 'tpu', wanted one of 'openvino', 'tensorrt', 'scripted'"

# The folder has a bundle `tiny`, and `here` with a file of YAML.
S2NETD = [
    ("localize clip.mp4 --bundle nope", NO_BUNDLE),
    (
        "localize clip.mp4 --precision f64",
        "precision: Input should be 'f32', 'bf16', 'int8'",
    ),
    ("demo --bundle nope", NO_BUNDLE),
    ("demo clip.mp4 --bundle nope", NO_BUNDLE),
    ("demo --pace slow", "--pace is 'slow', wanted"),
    ("produce clip.mp4 --camera a --to dir:x --transcode maybe", "--transcode is 'maybe', wanted"),
    ("bench --bundle nope", NO_BUNDLE),
    ("bench --backend tpu", "backend: Input should be 'openvino', 'tensorrt'"),
    ("bench --precision f64", "precision: Input should be 'f32', 'bf16', 'int8'"),
    ("bench --decode tpu", "--decode is 'tpu', wanted"),
    ("bench --footage night", "--footage is 'night', wanted"),
    ("bench --rung low", "economy.rung: Input should be 'full', 'half'"),
    ("bench --under-load low", "economy.under_load: Input should be 'full', 'half'"),
    ("bench --motion-gate on", "economy.motion_gate: Input should be 'off' or 'static'"),
    ("localize clip.mp4 --rung low", "economy.rung: Input should be 'full', 'half'"),
    ("localize clip.mp4 --motion-gate on", "economy.motion_gate: Input should be 'off' or"),
    ("bench --device tpu", "--device is 'tpu', wanted one of 'cpu', 'cuda'"),
    ("bench --device cpu --bundle tiny --precision f16", "--precision is 'f16', wanted one of"),
    ("bench --device cuda --bundle tiny --precision f64", NO_F64),
    ("bench --device cpu --bundle tiny --also nope", NO_BUNDLE),
    ("engine build --bundle nope", NO_BUNDLE),
    ("engine build --bundle tiny --runtime rtx", "did you mean 'tensorrt_rtx'?"),
    ("engine verify --bundle nope", NO_BUNDLE),
    ("engine verify --bundle tiny --candidate-bundle nope", NO_BUNDLE),
    ("engine verify --bundle tiny --backend tpu", f"--backend {NO_TPU}"),
    ("engine verify --bundle tiny --backend tensort", "did you mean 'tensorrt'?"),
    ("engine verify --bundle tiny --precision f64", NO_F64),
    ("engine verify --bundle tiny --reference-backend tpu", f"--reference-backend {NO_TPU}"),
    (
        "engine verify --bundle tiny --reference-precision f64",
        NO_F64.replace("--", "--reference-"),
    ),
    ("replay --from-features --config here/daemon.yaml --bundle nope", NO_BUNDLE),
    ("features export --config here/daemon.yaml --out x --bundle nope", NO_BUNDLE),
    ("models pull nope", "no model 'nope'"),
    ("models verify nope", "no model 'nope'"),
    ("models path nope", "no model 'nope'"),
]
S2NET = [
    ("extract here --bundle nope", NO_BUNDLE),
    ("extract here --bundle tiny --precision f64", NO_F64),
    ("plant --modality flow", "--modality is 'flow', wanted"),
    ("convert nope --out x", NO_BUNDLE),
    ("convert tiny --out x --precision f64", NO_F64),
    ("separate nope --out x --calibrate here", NO_BUNDLE),
    ("evaluate nope --features here", NO_BUNDLE),
    ("evaluate nope --features here --streaming", NO_BUNDLE),
    ("evaluate tiny --features here --protocol loose", "--protocol is 'loose', wanted"),
    ("calibrate nope --features here --out x", NO_BUNDLE),
    ("bench-economy --scenes here --bundle nope", NO_BUNDLE),
]
WITH_TORCH = [
    ("train --features here --device tpu", "--device is 'tpu', wanted one of 'cpu', 'cuda'"),
    ("train --features here --online --teacher nope", "--teacher nope/checkpoint.safetensors: "),
    ("train --features here --online", "--online needs a teacher: train one first"),
    ("train --features here --teacher here", "are of an online student: give --online too"),
    ("train --features here --look-ahead 2", "are of an online student: give --online too"),
    ("export here --out x --base nope", NO_BUNDLE),
    ("export here --out x --base tiny --precision f64", NO_F64),
    ("parity here nope", NO_BUNDLE),
    ("parity here tiny --precision f64", NO_F64),
    ("compare --scenes here --features here --base nope", NO_BUNDLE),
    (
        "compare --scenes here --features here --dataset thumos15",
        "--dataset s2net-thumos15: there is no such file; shipped are",
    ),
    (
        "compare --scenes here --features here --networks s3net",
        "--networks is 's3net', wanted one of 's2net'",
    ),
    (
        "compare --scenes here --features here --supervision clicks",
        "--supervision is 'clicks', wanted one of 'tags'",
    ),
    ("bench-online --scenes here --features here --base nope", NO_BUNDLE),
    (
        "bench-online --scenes here --features here --look-aheads 1,x",
        "--look-aheads: 'x' is no number of hops",
    ),
    ("bench --bundle nope", NO_BUNDLE),
    (
        f"benchmark --scenes here --features here --config {YAML} --variants {YAML} --only s3net",
        "--only is 's3net', wanted one of 'full'",
    ),
]
NAMES = {
    *("backend", "reference_backend", "precision", "reference_precision", "device", "decode"),
    *("bundle", "candidate_bundle", "also", "base", "runtime", "pace", "transcode"),
    *("modality", "protocol", "only", "footage"),
    *("rung", "motion_gate", "under_load"),
    *("teacher", "look_aheads"),
}

DAEMON = """
source: {kind: kafka, bootstrap_servers: "127.0.0.1:1", topic: chunks, group_id: group}
sink: {kind: kafka, bootstrap_servers: "127.0.0.1:1", topic: events}
"""

# Whatever takes long, or reads more than a name.
WORK = [
    "daemon.bench.cameras.run.camera_footage",
    "daemon.demo.run.probe_video",
    "daemon.demo.run.render_scene",
    "daemon.plans.verify.render_scene",
    "daemon.produce.feed.source_files",
    "engine.published.models.download_sdist",
    "training.extract.extract_in_parallel",
]
WORK_WITH_TORCH = [
    "training.benchmarks.draws.load_draw",
    "training.data.training_set",
    "training.learning.checkpoints.load_run",
]

Refused = Callable[..., str]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Runs a command that must fail with one line; gives that."""

    def run(program: Callable[[], object], code: int, command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["program", *command.split()])
        with pytest.raises(SystemExit) as caught:
            program()
        *_progress, line = capsys.readouterr().err.splitlines()
        assert line.startswith("s2net")
        assert code == caught.value.code
        assert ["here", "tiny"] == sorted(path.name for path in tmp_path.iterdir())
        return line

    write_tiny_bundle(tmp_path / "tiny")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x.yaml").write_text("full: {}")
    (tmp_path / "here" / "daemon.yaml").write_text(DAEMON)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here" / "cache"))
    return run


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def work(*_arguments: object, **_named: object) -> None:
        raise AssertionError("this should not have been begun")

    for name in names:
        module, _, attribute = name.rpartition(".")
        monkeypatch.setattr(import_module(module), attribute, work)


@pytest.fixture
def _idle(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    del refused  # its bundle is written by then
    forbid(monkeypatch, *WORK)
    monkeypatch.setattr(ModelBundle, "load", None)


@pytest.mark.usefixtures("_idle")
@pytest.mark.parametrize(("command", "told"), S2NETD)
def test_s2netd_refuses_it_first(refused: Refused, command: str, told: str) -> None:
    assert told in refused(daemon.cli.main, 78, command)


@pytest.mark.usefixtures("_idle")
@pytest.mark.parametrize(("command", "told"), S2NET)
def test_s2net_refuses_it_first(refused: Refused, command: str, told: str) -> None:
    assert told in refused(training.cli.main, 1, command)


@pytest.mark.torch
@pytest.mark.usefixtures("_idle")
@pytest.mark.parametrize(("command", "told"), WITH_TORCH)
def test_s2net_refuses_it_before_anything_is_trained(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: str, told: str
) -> None:
    try:
        forbid(monkeypatch, *WORK_WITH_TORCH)
    except ImportError as error:
        missing(f"no torch ({error}): pip install 's2netd[training]'")

    assert told in refused(training.cli.main, 1, command)


@pytest.mark.parametrize(
    "command",
    ["localize clip.mp4 --bundle tiny --labels reed", "demo --bundle tiny --labels reed"],
)
def test_a_class_is_refused_before_a_network_is_opened_or_a_scene_drawn(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    forbid(monkeypatch, *WORK, "daemon.models.reading.open_backend")

    assert "did you mean 'red'" in refused(daemon.cli.main, 78, command)


def named_parameters(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Each command with each of its options that takes a name."""
    for name, part in getattr(command, "commands", {}).items():
        yield from named_parameters(part, (*path, name))
    for parameter in command.params:
        if parameter.name in NAMES:
            yield " ".join((*path, max(parameter.opts, key=len)))


@pytest.mark.parametrize(
    ("app", "table"), [(daemon.cli.app, S2NETD), (training.cli.app, [*S2NET, *WITH_TORCH])]
)
def test_no_command_is_left_out(app: typer.Typer, table: list[tuple[str, str]]) -> None:
    for parameter in named_parameters(typer.main.get_command(app)):
        command, _, option = parameter.rpartition(" ")
        assert [
            row
            for row, _told in table
            if row.startswith(f"{command} ") and (option in row.split() or option == "bundle")
        ], parameter


def test_every_backend_has_precisions() -> None:
    assert set(BACKENDS) == set(PRECISIONS)
    for backend in BACKENDS:
        for precision in PRECISIONS[backend]:
            assert backend == check_backend(backend, precision)


def test_what_was_probably_meant_is_told() -> None:
    with pytest.raises(BundleError, match=r"precision is 'fp16', wanted .*; did you mean 'f16'"):
        check_backend("tensorrt", "fp16")
    with pytest.raises(DataError, match=r"^--device is 'x', wanted one of 'cpu', 'cuda'$"):
        check_name("--device", "x", ("cpu", "cuda"), DataError)
