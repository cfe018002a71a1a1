"""`s2netd bench --device` on a bundle too small to be slow: does it measure what it says?"""

import io
import json
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from daemon.bench_device import (
    DeviceBenchOptions,
    Open,
    run_device_bench,
)
from daemon.bench_device_report import DeviceFigures, markdown
from daemon.errors import ConfigError
from engine.backends.base import EngineBackend
from engine.backends.device_bench import MatMul
from engine.backends.options import BackendOptions
from engine.backends.trt import open_tensorrt
from engine.bundle import write_bundle
from tests.support.fake_cuda import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.tiny_bundle import backbone, localizer, tiny_card, write_tiny_bundle

SMALL = MatMul(rows=4, width=4, n_products=1)
QUICK = {"max_batch": 2, "seconds": 0.01, "leak_batches": 3, "threads": 1}


def measured(
    options: DeviceBenchOptions, opening: Open | None = None, report: Path | None = None
) -> tuple[DeviceFigures, list[dict[str, object]]]:
    out = io.StringIO()
    console = Console(file=out, width=200)
    (figures,) = run_device_bench(options, console, as_json=True, report=report, opening=opening)
    return figures, json.loads(out.getvalue())


@pytest.mark.openvino
@pytest.mark.slow
def test_every_figure_is_there_on_the_cpu(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "tiny",
        tiny_card(),
        backbone=sized_backbone().SerializeToString(),
        localizer=localizer().SerializeToString(),
    )
    report = tmp_path / "cpu.md"
    options = DeviceBenchOptions((str(bundle),), precision="f32", **QUICK)  # type: ignore[arg-type]
    figures, printed = measured(options, report=report)
    assert "openvino f32 CPU" == figures.description == printed[0]["description"]
    assert [1, 2] == [timing.batch for timing in figures.backbone]
    assert all(timing.rows_per_s > 0 for timing in (*figures.backbone, *figures.localizer))
    assert figures.matmul_tflops > 0
    assert (0.0, 0.0) == (figures.graph_gain, figures.overlap_gain)
    assert markdown([figures]) == report.read_text(encoding="utf-8")
    assert "| backbone | 2 | " in report.read_text(encoding="utf-8")


def test_every_figure_is_there_on_a_gpu_and_the_gpu_is_given_back(tmp_path: Path) -> None:
    gpu = FakeGpu()
    toolkit = FakeTensorRt(gpu).toolkit()
    seen: list[BackendOptions] = []

    def opening(path: Path, options: BackendOptions) -> EngineBackend:
        seen.append(options)
        return open_tensorrt(path, precision="auto", options=options, toolkit=toolkit)

    bundle = write_bundle(
        tmp_path / "tiny",
        tiny_card(),
        backbone=sized_backbone().SerializeToString(),
        localizer=localizer().SerializeToString(),
    )
    options = DeviceBenchOptions((str(bundle),), device="cuda", **QUICK)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.bench_device._MATMUL", {"cuda": SMALL})
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        figures, _printed = measured(options, opening)
    assert "tensorrt 10.0.fake f32 Fake 1" == figures.description
    assert figures.graph_gain > 0
    assert figures.overlap_gain > 0
    assert figures.memory_mib > 0
    assert 0.0 == figures.leaked_mib
    assert "gain of CUDA graphs" in markdown([figures])
    assert 1 == sum(not options.cuda_graphs for options in seen)
    assert 1 == sum(not options.overlap for options in seen)
    assert not +gpu.live


def test_an_unknown_device_is_refused_with_those_there_are(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(ConfigError, match=r"--device is 'tpu', wanted one of \('cpu', 'cuda'\)"):
        measured(DeviceBenchOptions((str(bundle),), device="tpu"))


def sized_backbone() -> onnx.ModelProto:
    """With its sizes written down, as every exported one has: a plan needs them."""
    model, card = backbone(), tiny_card()
    side = card.geometry.crop_px
    sizes = {"L": card.timeline.snippet_frames, "H": side, "W": side}
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        if dim.dim_param in sizes:
            dim.dim_value = sizes[dim.dim_param]
    return model
