"""`s2netd bench --device` on a bundle too small to be slow: does it measure what it says?"""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console
from typing_extensions import override

from daemon.bench.networks.measure import _figures
from daemon.bench.networks.opening import (
    DeviceBench,
    DeviceBenchOptions,
    DeviceKind,
    Open,
    OpenNetwork,
    opened,
)
from daemon.bench.networks.report import DeviceFigures, NetworkFigures, markdown, table
from daemon.bench.networks.run import run_device_bench
from daemon.bench.networks.turns import Gains, beside_matmul, gains
from daemon.errors import ConfigError
from engine.backends.base import EngineBackend, Tensor
from engine.backends.onnx_precision import precision_of
from engine.backends.options import BackendOptions
from engine.backends.rates import MatMul, Timing, matmul_network, random_question
from engine.backends.scripted import ScriptedBackend, open_dry_run
from engine.backends.tensorrt.opening import open_tensorrt
from engine.bundle.model_bundle import write_bundle
from engine.errors import BundleError
from tests.support.fake_cuda import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.tiny_bundle import backbone, localizer, tiny_card

SMALL = MatMul(rows=4, width=4, n_products=1)
QUICK = {"max_batch": 2, "seconds": 0.01, "leak_batches": 3, "threads": 1}


def measured(
    options: DeviceBenchOptions, opening: Open | None = None, report: Path | None = None
) -> tuple[DeviceFigures, list[dict[str, object]]]:
    out = io.StringIO()
    console = Console(file=out, width=200)
    (figures,) = run_device_bench(options, console, as_json=True, report=report, opening=opening)
    return figures, json.loads(out.getvalue())


def a_bundle(folder: Path) -> Path:
    return write_bundle(
        folder,
        tiny_card(),
        backbone=sized_backbone().SerializeToString(),
        localizer=localizer().SerializeToString(),
    )


@pytest.mark.openvino
@pytest.mark.slow
def test_every_figure_is_there_on_the_cpu(tmp_path: Path) -> None:
    bundle, report = a_bundle(tmp_path / "tiny"), tmp_path / "cpu.md"
    options = DeviceBenchOptions((str(bundle),), precision="f32", **QUICK)  # type: ignore[arg-type]
    figures, printed = measured(options, report=report)
    assert "openvino f32 CPU" == figures.description == printed[0]["description"]
    for _name, network in figures.networks:
        assert [1, 2] == [timing.batch for timing in network.timings]
        assert all(timing.rows_per_s > 0 for timing in network.timings)
        assert ("f32", "") == (network.precision, network.origin)
        assert network.open_s > 0
        assert 0 < network.before_mib <= network.after_mib + 1
    assert (1, 2) == (figures.backbone.leak_rows, figures.localizer.leak_rows)
    assert ("f32", 3) == (figures.matmul_precision, figures.leak_batches)
    assert figures.matmul_tflops > 0
    assert (0.0, 0.0) == (figures.graph_gain, figures.overlap_gain)
    assert markdown([figures]) == report.read_text(encoding="utf-8")
    assert "| backbone | 2 | " in report.read_text(encoding="utf-8")


def test_every_figure_is_there_on_a_gpu_and_the_gpu_is_given_back(tmp_path: Path) -> None:
    gpu = FakeGpu()
    toolkit = FakeTensorRt(gpu).toolkit()
    seen: list[tuple[str, BackendOptions]] = []

    def opening(path: Path, options: BackendOptions) -> EngineBackend:
        seen.append((path.name, options))
        if path.name.startswith("backbone"):  # the fake one tells no progress
            options.on_progress("building", 1, 1)
        else:
            options.on_progress("waiting", 0, 0)
        return open_tensorrt(path, precision="auto", options=options, toolkit=toolkit)

    def known_gains(*given: Any) -> Gains:
        real = gains(*given)
        assert real.graphs > 0
        assert real.overlap > 0
        return Gains(graphs=2.0, overlap=4.0)

    bundle = a_bundle(tmp_path / "tiny")
    options = DeviceBenchOptions((str(bundle),), device="cuda", **QUICK)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.bench.networks.measure.gains", known_gains)
        patch.setattr("daemon.bench.networks.turns._MATMUL", {"cuda": SMALL})
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        figures, _printed = measured(options, opening)
    assert "tensorrt 10.0.fake f32 Fake 1" == figures.description
    assert (2.0, 4.0) == (figures.graph_gain, figures.overlap_gain)
    assert figures.memory_mib > 0
    assert ("built", "from the cache") == (figures.backbone.origin, figures.localizer.origin)
    for _name, network in figures.networks:
        assert 2 == network.leak_rows
        assert 0 < network.before_mib == network.after_mib
    assert "gain of CUDA graphs" in markdown([figures])
    assert 1 == sum(not options.cuda_graphs for _name, options in seen)
    assert 1 == sum(not options.overlap for _name, options in seen)
    assert not +gpu.live


class Ticking:
    """A clock that goes on by what is spent."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Costly(ScriptedBackend):
    """A dry run; each call costs the same."""

    def __init__(self, path: Path, clock: Ticking, cost_s: float) -> None:
        scripted = open_dry_run(path)
        super().__init__(scripted.signature, scripted._answer)
        self._clock = clock
        self._cost_s = cost_s
        self.n_calls = 0

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._clock.now_s += self._cost_s
        self.n_calls += 1
        return super().run(tensors)


def a_bench(opening: Open, clock: Ticking, device: DeviceKind) -> DeviceBench:
    options = DeviceBenchOptions(
        ("tiny",), device=device, max_batch=2, seconds=1.0, leak_batches=7
    )
    return DeviceBench(options, device, opening, clock)


def test_memory_is_looked_at_before_and_after_the_batches(tmp_path: Path) -> None:
    clock, path = Ticking(), tmp_path / "backbone.onnx"
    onnx.save(sized_backbone(), path)
    backend = Costly(path, clock, 1.0)

    def opening(_path: Path, _options: BackendOptions) -> EngineBackend:
        clock.now_s += 3.0
        return backend

    bench, status = a_bench(opening, clock, "cpu"), Console(file=io.StringIO())
    with opened(bench, path, BackendOptions()) as network:
        question = random_question(backend.signature, 2, 1)
        figures = _figures(bench, network, (), question, lambda: backend.n_calls, status)
    assert (3.0, 2) == (figures.open_s, figures.leak_rows)
    assert 7 == figures.after_mib - figures.before_mib == backend.n_calls - 1


def test_gains_are_how_much_slower_it_is_without(tmp_path: Path) -> None:
    clock, path = Ticking(), tmp_path / "backbone.onnx"
    onnx.save(sized_backbone(), path)

    def opening(path: Path, options: BackendOptions) -> EngineBackend:
        without_graphs = 1 if options.cuda_graphs else 2
        return Costly(path, clock, without_graphs * (1 if options.overlap else 4))

    bench, sizes = a_bench(opening, clock, "cuda"), BackendOptions(max_batch=2)
    with opened(bench, path, sizes) as whole:
        assert Gains(graphs=2.0, overlap=4.0) == gains(bench, whole, sizes)


@pytest.mark.parametrize(
    ("device", "held", "can_int8", "wanted"),
    [
        ("cpu", "int8", True, "int8"),
        ("cuda", "int8", True, "int8"),
        ("cpu", "int8", False, "f32"),
        ("cuda", "int8", False, "f16"),
        ("cuda", "f16", False, "f16"),
        ("cuda", "bf16", False, "bf16"),
        ("cpu", "f16", False, "f32"),  # widened
        ("cpu", "f32", False, "f32"),
    ],
)
def test_a_backbone_stands_beside_products_of_its_own_precision(
    tmp_path: Path, device: DeviceKind, held: str, wanted: str, *, can_int8: bool
) -> None:
    clock, path = Ticking(), tmp_path / "backbone.onnx"
    path.write_bytes(matmul_network(SMALL, held).SerializeToString())

    def opening(path: Path, _options: BackendOptions) -> EngineBackend:
        if precision_of(path.read_bytes()) == "int8" and not can_int8:
            raise BundleError("no kernel")
        return Costly(path, clock, 0.25)

    network = Costly(path, clock, 0.5)
    whole = OpenNetwork(network, path, wanted, 0.0, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.bench.networks.turns._MATMUL", {device: SMALL})
        beside = beside_matmul(a_bench(opening, clock, device), whole, 2, gflop=1000.0)
    assert wanted == beside.matmul_precision
    assert 2 * 1.0 / 0.5 == beside.backbone_tflops
    assert pytest.approx((2 * 4 * 4 * 8 + 2 * 4 * 4 * 4) / 0.25 / 1e12) == beside.matmul_tflops


def some_figures() -> DeviceFigures:
    timing = Timing(batch=1, n_calls=20, rows_per_s=10.0, p50_ms=100.0, p99_ms=110.0)
    one = NetworkFigures("int8", 1.5, "built", (timing,), 8, 100.0, 104.0)
    other = NetworkFigures("f32", 0.25, "from the cache", (timing,), 8, 104.0, 105.5)
    return DeviceFigures(
        bundle="tiny@0",
        description="tensorrt",
        backbone=one,
        localizer=other,
        backbone_gflop=40.0,
        backbone_tflops=50.0,
        matmul_precision="f16",
        matmul_tflops=100.0,
        matmul_share=0.5,
        memory_mib=321.0,
        leak_batches=10000,
        graph_gain=1.25,
        overlap_gain=1.75,
    )


WANTED = [
    ("backbone in int8, opened in", "1.50 s, built"),
    ("localizer in f32, opened in", "0.25 s, from the cache"),
    ("backbone in int8, TOP/s", "50.000"),
    ("matrix products in f16, TFLOP/s", "100.000"),
    ("backbone's share of them", "50%"),
    ("memory of both networks, MiB", "321"),
    ("MiB before and after 10000 batches of 8, backbone", "100.0, 104.0"),
    ("MiB before and after 10000 batches of 8, localizer", "104.0, 105.5"),
    ("gain of CUDA graphs, one row", "1.25x"),
    ("gain of overlap, many batches", "1.75x"),
]


def test_the_report_and_the_table_say_what_is_what() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(table(some_figures()))
    shown = [" ".join(line.replace("│", " ").split()) for line in out.getvalue().splitlines()]
    for name, value in WANTED:
        assert f"| {name} | {value} |" in markdown([some_figures()])
        assert f"{name} {value}" in shown


def test_a_cpu_has_no_plans() -> None:
    figures = some_figures()
    figures = replace(figures, backbone=replace(figures.backbone, origin=""))
    assert "| backbone in int8, opened in | 1.50 s |" in markdown([figures])


def no_opening(path: Path, _options: BackendOptions) -> EngineBackend:
    pytest.fail(f"{path} was opened")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (".", "Is a directory"),
        ("none/r.md", "No such file or directory"),
        ("file/r.md", "Not a directory"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    bundle, report = a_bundle(tmp_path / "tiny"), tmp_path / place
    with pytest.raises(ConfigError) as caught:
        measured(DeviceBenchOptions((str(bundle),)), no_opening, report)
    assert f"--report {report}: {reason}: name a file that can be written" == str(caught.value)


def test_a_report_that_was_there_stays_until_there_is_another(tmp_path: Path) -> None:
    old, new = tmp_path / "old.md", tmp_path / "new.md"
    old.write_text("before", encoding="utf-8")

    def opening(_path: Path, _options: BackendOptions) -> EngineBackend:
        raise BundleError("is none")

    for report in (old, new):
        with pytest.raises(BundleError, match="is none"):
            measured(DeviceBenchOptions((str(a_bundle(tmp_path / "tiny")),)), opening, report)
    assert "before" == old.read_text(encoding="utf-8")
    assert not new.exists()


def sized_backbone() -> onnx.ModelProto:
    """With its sizes written down, as every exported one has: a plan needs them."""
    model, card = backbone(), tiny_card()
    side = card.geometry.crop_px
    sizes = {"L": card.timeline.snippet_frames, "H": side, "W": side}
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        if dim.dim_param in sizes:
            dim.dim_value = sizes[dim.dim_param]
    return model
