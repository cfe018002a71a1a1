"""`s2netd engine`: plans for NVIDIA GPUs, built, compared, listed and cleared away."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    engine = typer.Typer(
        help="Build, compare and clear away plans for NVIDIA GPUs (TensorRT).",
        no_args_is_help=True,
    )
    engine.command()(build)
    engine.command()(verify)
    engine.command("list")(list_plans)
    engine.command("gc")(collect)
    app.add_typer(engine, name="engine")


def build(
    context: typer.Context,
    bundle: Annotated[str, typer.Option(help="A bundle folder, or the name of a pulled one.")] = (
        "kinetics400"
    ),
    runtime: Annotated[
        str, typer.Option(help="auto, tensorrt, or tensorrt_rtx: which builds without a GPU.")
    ] = "auto",
    max_batch: Annotated[
        int, typer.Option(min=1, max=256, help="Snippets, or windows, a call at most.")
    ] = 8,
    gpu: Annotated[int, typer.Option(min=0, max=63, help="As CUDA counts.")] = 0,
    config: Annotated[
        Path | None,
        typer.Option(help="A daemon's configuration: bundle, batch and GPU are those."),
    ] = None,
    *,
    one_batch_size: Annotated[
        bool, typer.Option(help="For a daemon with model.one_batch_size.")
    ] = False,
    verbose: Annotated[bool, typer.Option(help="All that TensorRT says.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Build a bundle's plans before the daemon needs them; quick if they are there.

    A daemon with the same bundle, batch and GPU then starts without building: --config takes them
    from its configuration. Run it as the daemon's user, with its cache folder (XDG_CACHE_HOME).

    [dim]s2netd engine build --config configs/daemon/gpu.yaml[/dim]
    [dim]s2netd engine build --bundle scenes[/dim]
    [dim]s2netd engine build --bundle kinetics400 --runtime tensorrt_rtx --max-batch 16[/dim]
    """
    from daemon.config import parse_model  # noqa: PLC0415
    from daemon.plans.build import BuildOptions, configured_model, run_build  # noqa: PLC0415

    if config is None:
        sizes = {"max_batch": max_batch, "one_batch_size": one_batch_size, "gpu": gpu}
        model = parse_model({"bundle": bundle, "backend": "tensorrt", **sizes})
    else:
        _refuse_besides_config(context)
        model = configured_model(config)
    run_build(BuildOptions(model, runtime, verbose), Console(), as_json=as_json)


def _refuse_besides_config(context: typer.Context) -> None:
    """Raises ConfigError for an option that says what the configuration says too."""
    given = [
        "--" + name.replace("_", "-")
        for name in ("bundle", "max_batch", "one_batch_size", "gpu")
        if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
    ]
    if given:
        raise ConfigError(f"--config says that already; leave out {', '.join(given)}")


def verify(
    bundle: Annotated[
        str, typer.Option(help="The reference: a bundle folder or name.")
    ] = "scenes",
    candidate_bundle: Annotated[
        str | None,
        typer.Option(help="Of the same classes.", show_default="the reference's bundle"),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="The candidate's: openvino or tensorrt.")
    ] = "openvino",
    precision: Annotated[str, typer.Option(help="The candidate's: f32, bf16 or auto.")] = "auto",
    reference_backend: Annotated[str, typer.Option(help="Of the reference.")] = "openvino",
    reference_precision: Annotated[str, typer.Option(help="Of the reference.")] = "f32",
    video: Annotated[
        list[Path] | None,
        typer.Option(
            help="Footage to compare on; repeat it for several.",
            show_default="a drawn scene (with OpenCV) and procedural footage",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=5, max=600, help="Most of each video.", show_default="all of it"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=10**9, help="Of the scene.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each; default all.")] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, max=256, help="Of the candidate: snippets a call, at most.")
    ] = 8,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Compare a backend, a precision or a bundle with a reference: numbers and events.

    Exits 1 beyond the bundle's tolerance. Your own footage (--video) says most.

    [dim]s2netd engine verify --bundle scenes --backend tensorrt[/dim]
    [dim]s2netd engine verify --bundle scenes --candidate-bundle bundles/scenes-int8[/dim]
    [dim]s2netd engine verify --bundle kinetics400 --precision bf16 --video gate.mp4[/dim]
    """
    from daemon.plans.verify import NotAlikeError, VerifyOptions, run_verify  # noqa: PLC0415

    options = VerifyOptions(
        bundle=bundle,
        candidate_bundle=candidate_bundle,
        backend=backend,
        precision=precision,
        reference_backend=reference_backend,
        reference_precision=reference_precision,
        videos=tuple(video or ()),
        seconds=seconds,
        seed=seed,
        threads=threads,
        max_batch=max_batch,
    )
    found = run_verify(options, Console(stderr=True))
    typer.echo(json.dumps(found.to_json(), indent=1) if as_json else found.table())
    if not found.holds:
        reasons = "; ".join(found.reasons)
        raise NotAlikeError(f"{found.candidate} is not {found.reference}: {reasons}")


def list_plans(
    *, as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False
) -> None:
    """The plans in the cache, what they were built for, and whether they can be used here.

    [dim]s2netd engine list[/dim]
    """
    from daemon.plans.kept import run_list  # noqa: PLC0415
    from daemon.plans.machine import this_machine  # noqa: PLC0415
    from engine.backends.tensorrt.plan_cache import PlanCache  # noqa: PLC0415

    run_list(PlanCache(), this_machine(), time.time(), Console(), as_json=as_json)


def collect(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Delete every plan.")] = False,
    older_than_days: Annotated[
        float | None, typer.Option(min=0, help="Delete also what was not used for so long.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete plans that this machine cannot use: of another TensorRT or driver, damaged ones.

    Those of a GPU that is not seen now stay, unless --older-than-days or --all take them.

    [dim]s2netd engine gc --dry-run[/dim]
    [dim]s2netd engine gc --older-than-days 30[/dim]
    """
    from daemon.plans.kept import run_gc  # noqa: PLC0415
    from daemon.plans.machine import this_machine  # noqa: PLC0415
    from engine.backends.tensorrt.plan_cache import PlanCache  # noqa: PLC0415

    run_gc(
        PlanCache(),
        this_machine(),
        time.time(),
        Console(),
        everything=everything,
        older_than_days=older_than_days,
        dry_run=dry_run,
    )
