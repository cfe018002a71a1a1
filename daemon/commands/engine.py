"""`s2netd engine`: its options; plans for NVIDIA GPUs are built, compared, listed and deleted."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import refuse_besides_config


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    engine = typer.Typer(
        help="Build, compare, list and delete plans: networks that TensorRT compiled for a GPU.",
        no_args_is_help=True,
    )
    engine.command()(build)
    engine.command()(verify)
    engine.command("list")(list_plans)
    engine.command("gc")(collect)
    app.add_typer(engine, name="engine")


def build(
    context: typer.Context,
    bundle: Annotated[
        str, typer.Option(help="A bundle's folder, or the name of a pulled bundle.")
    ] = "kinetics400",
    runtime: Annotated[
        str,
        typer.Option(
            help="Which TensorRT: tensorrt; tensorrt_rtx, which builds without a GPU; or auto, "
            "the first of these that is installed."
        ),
    ] = "auto",
    max_batch: Annotated[
        int, typer.Option(min=1, max=256, help="Most snippets, or windows, in one call.")
    ] = 8,
    gpu: Annotated[
        int, typer.Option(min=0, max=63, help="Which GPU, as CUDA counts; 0 is the first.")
    ] = 0,
    config: Annotated[
        Path | None,
        typer.Option(help="Take bundle, batch sizes and GPU from this daemon's configuration."),
    ] = None,
    *,
    one_batch_size: Annotated[
        bool, typer.Option(help="Build for a daemon that sets model.one_batch_size.")
    ] = False,
    verbose: Annotated[bool, typer.Option(help="Print everything that TensorRT says.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """Build a bundle's plans before the daemon needs them.

    A daemon with the same bundle, batch sizes and GPU then starts without
    building. Run the command as the daemon's user and with its cache folder
    (XDG_CACHE_HOME), for the daemon looks nowhere else. Plans that are in the
    cache already are not built again.

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
        refuse_besides_config(context, "bundle", "max_batch", "one_batch_size", "gpu")
        model = configured_model(config)
    run_build(BuildOptions(model, runtime, verbose), Console(), as_json=as_json)


def verify(
    bundle: Annotated[
        str,
        typer.Option(help="The reference: a bundle's folder, or the name of a pulled bundle."),
    ] = "scenes",
    candidate_bundle: Annotated[
        str | None,
        typer.Option(
            help="The candidate's bundle, which must have the same classes.",
            show_default="the reference's bundle",
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="What runs the candidate: openvino or tensorrt.")
    ] = "openvino",
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of the candidate: f32, bf16, int8, or auto, the fastest here that is "
            "still the same model."
        ),
    ] = "auto",
    reference_backend: Annotated[
        str, typer.Option(help="What runs the reference: openvino or tensorrt.")
    ] = "openvino",
    reference_precision: Annotated[
        str, typer.Option(help="Precision of the reference: f32, bf16, int8 or auto.")
    ] = "f32",
    video: Annotated[
        list[Path] | None,
        typer.Option(
            help="A video to compare on; repeat it for several.",
            show_default="a drawn scene (with OpenCV) and procedural footage",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=5,
            max=600,
            help="How much of each video to use at most, in seconds.",
            show_default="all of it",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=10**9, help="Seed of the drawn scene.")] = 5,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of each side.", show_default="all cores"),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, max=256, help="Most snippets in one call of the candidate.")
    ] = 8,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """Compare a backend, a precision or a bundle with a reference: numbers and events.

    Exits 1 beyond the bundle's tolerance. Footage of your own (--video) is the
    best test.

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
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """List the plans in the cache: what each was built for, and whether it can be used here.

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
        float | None,
        typer.Option(min=0, help="Also delete plans that were not used for so many days."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing; only say what would be deleted.")
    ] = False,
) -> None:
    """Delete plans that this machine cannot use.

    These are plans for another TensorRT or driver, and damaged ones. Plans for a
    GPU that is not seen now stay, unless --older-than-days or --all takes them.

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
