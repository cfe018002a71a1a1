"""`s2netd bench`: its options, and the choice between the two benchmarks."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import (
    BundleOption,
    MotionGateOption,
    PrecisionOption,
    RungOption,
    ThreadsOption,
    given,
)
from daemon.errors import ConfigError

_LEAK_BATCHES = {"cuda": 1000, "cpu": 100}
_ONLY_WITH_DEVICE = ("also", "report", "leak_batches")
_ONLY_WITHOUT_DEVICE = (
    *("video", "footage", "cameras", "compare_batch", "backend", "decode", "isolation"),
    *("resolution", "rung", "motion_gate", "under_load", "surge"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    context: typer.Context,
    bundle: BundleOption = "kinetics400",
    video: Annotated[
        Path | None, typer.Option(help="Footage to measure with.", show_default="made on the spot")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=2, help="Length of each measurement, in seconds.")
    ] = 20,
    cameras: Annotated[
        str,
        typer.Option(
            help="How many cameras the whole daemon serves: a number; 0 for none; or auto, which "
            "finds how many live cameras this machine carries."
        ),
    ] = "0",
    backend: Annotated[
        str, typer.Option(help="openvino (on the CPU) or tensorrt (on an NVIDIA GPU).")
    ] = "openvino",
    batch: Annotated[
        int, typer.Option(min=1, help="Most snippets in one call of the backbone.")
    ] = 8,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    decode: Annotated[
        str,
        typer.Option(
            help="Where chunks are decoded: none (on the CPU) or cuda (the GPU's video decoder)."
        ),
    ] = "none",
    isolation: Annotated[
        str,
        typer.Option(help="Where the CPU decodes: process or thread, as decode.isolation."),
    ] = "process",
    resolution: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT, in pixels, of footage that is made on the spot.")
    ] = "320x240",
    footage: Annotated[
        str,
        typer.Option(
            help="What is made on the spot: moving, in which everything moves; or day, people in "
            "3 of the 24 hours of a day, each of which is 10 s long: minutes are spent on it."
        ),
    ] = "moving",
    rung: RungOption = "full",
    motion_gate: MotionGateOption = "off",
    under_load: Annotated[
        str,
        typer.Option(help="The lowest rung that a camera goes down to while it falls behind."),
    ] = "full",
    surge: Annotated[
        float,
        typer.Option(
            min=1,
            help="With --cameras N: serve so many times as many for 3 minutes, then N for one, "
            "and tell how late they are.",
        ),
    ] = 1,
    *,
    compare_batch: Annotated[
        bool,
        typer.Option(
            "--compare-batch",
            help="With --cameras: compare calls of up to --batch snippets with calls of one.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Measure only the networks, by batch size and without video, on: cpu or cuda."
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="With --device: one more bundle to measure, e.g. in another precision; "
            "repeat it for several."
        ),
    ] = None,
    gpu: Annotated[
        int,
        typer.Option(
            min=0,
            max=63,
            help="Which GPU, for --device cuda, --backend tensorrt and --decode cuda; "
            "0 is the first.",
        ),
    ] = 0,
    leak_batches: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --device: how many calls of each network lie between the two readings of "
            "its memory; use 10000 for an acceptance run.",
            show_default="1000 on a GPU, 100 on a CPU",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="With --device: write the figures to this Markdown file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """Measure how fast this machine is.

    Without --device it times each stage of one camera and, with --cameras, the
    whole daemon. With --device it times the networks alone. Nothing here passes
    or fails.

    [dim]s2netd bench[/dim]
    [dim]s2netd bench --cameras auto[/dim]
    [dim]s2netd bench --cameras 16 --resolution 1920x1080 --decode cuda --backend tensorrt[/dim]
    [dim]s2netd bench --cameras 16 --compare-batch[/dim]
    [dim]s2netd bench --bundle scenes --cameras 6 --surge 3 --under-load gated[/dim]
    [dim]s2netd bench --bundle scenes --cameras auto --footage day --motion-gate static[/dim]
    [dim]s2netd bench --device cuda --bundle scenes --report gpu.md[/dim]
    """
    _refuse_what_does_nothing(context, device)
    if device is not None:
        from daemon.bench.networks.opening import DeviceBenchOptions  # noqa: PLC0415
        from daemon.bench.networks.run import run_device_bench  # noqa: PLC0415

        networks = DeviceBenchOptions(
            bundles=(bundle, *(also or ())),
            device=device,
            precision=precision,
            max_batch=batch,
            seconds=seconds,
            leak_batches=leak_batches or _LEAK_BATCHES.get(device, 1),
            threads=threads,
            gpu=gpu,
        )
        run_device_bench(networks, Console(), as_json=as_json, report=report)
        return
    from daemon.bench.cameras.run import BenchOptions, run_bench  # noqa: PLC0415

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
        gpu=gpu,
        decode=decode,
        isolation=isolation,
        resolution=resolution,
        footage=footage,
        rung=rung,
        motion_gate=motion_gate,
        under_load=under_load,
        surge=surge,
    )
    run_bench(options, Console(), as_json=as_json)


def _refuse_what_does_nothing(context: typer.Context, device: str | None) -> None:
    """Refuse options that would be ignored: whoever gives one expects it to do something.

    Raises:
        ConfigError: Names such an option, and what it goes with.
    """
    if device is None:
        for name in given(context, *_ONLY_WITH_DEVICE):
            raise ConfigError(f"{name} goes with --device cpu or --device cuda")
        made = given(context, "resolution", "footage")
        for name in made if given(context, "video") else ():
            raise ConfigError(f"{name} is of footage made on the spot: leave out --video")
        return
    for name in given(context, *_ONLY_WITHOUT_DEVICE):
        raise ConfigError(f"{name} goes without --device, which measures only the networks")
    for name in given(context, "gpu") if device == "cpu" else ():
        raise ConfigError(f"{name} goes with --device cuda, not --device cpu")
