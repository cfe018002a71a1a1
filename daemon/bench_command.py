"""`s2netd bench`: its options, and which of the two benchmarks they ask for."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.cli_options import BundleOption, PrecisionOption, ThreadsOption
from daemon.errors import ConfigError


def bench(
    bundle: BundleOption = "kinetics400",
    video: Annotated[Path | None, typer.Option(help="Footage; without it, made on the spot.")] = (
        None
    ),
    seconds: Annotated[float, typer.Option(min=2, help="Length of each measurement.")] = 20,
    cameras: Annotated[
        str, typer.Option(help="auto: how many live cameras this machine carries; or a number.")
    ] = "0",
    backend: Annotated[str, typer.Option(help="openvino or tensorrt.")] = "openvino",
    batch: Annotated[int, typer.Option(min=1, help="Most snippets in one call.")] = 8,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    *,
    compare_batch: Annotated[
        bool,
        typer.Option("--compare-batch", help="Cameras in calls of --batch against calls of one."),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda: only the networks, by batch size, without video."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="With --device: another bundle, of another precision; repeatable."),
    ] = None,
    gpu: Annotated[int, typer.Option(min=0, help="With --device cuda: which.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="With --device: a Markdown file to write.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Measure this machine: snippets a second, real-time factor, share of each stage, cameras.

    [dim]s2netd bench[/dim]
    [dim]s2netd bench --cameras auto[/dim]
    [dim]s2netd bench --cameras 16 --compare-batch[/dim]
    [dim]s2netd bench --device cuda --bundle scenes --report gpu.md[/dim]
    """
    if device is not None:
        from daemon.bench_device import DeviceBenchOptions, run_device_bench  # noqa: PLC0415

        networks = DeviceBenchOptions(
            bundles=(bundle, *(also or ())),
            device=device,
            precision=precision,
            max_batch=batch,
            seconds=seconds,
            threads=threads,
            gpu=gpu,
        )
        run_device_bench(networks, Console(), as_json=as_json, report=report)
        return
    unused = [name for name, value in (("--also", also), ("--report", report)) if value]
    if unused:
        raise ConfigError(f"{unused[0]} goes with --device cpu or --device cuda")
    from daemon.bench import BenchOptions, run_bench  # noqa: PLC0415

    options = BenchOptions(
        bundle=bundle,
        video=video,
        seconds=seconds,
        cameras=cameras,
        compare_batch=compare_batch,
        batch=batch,
        backend=backend,
        precision=precision,
        threads=threads,
    )
    run_bench(options, Console(), as_json=as_json)
