"""The command that measures online students."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.screen import (
    Changes,
    Config,
    Features,
    Threads,
    config_file,
    counting_each,
    needs_torch,
)


def bench_online(
    scenes: Annotated[Path, typer.Option(help="Folder that s2net render-scenes wrote.")],
    features: Features,
    out: Annotated[Path, typer.Option(help="Folder for runs and bundles.")] = Path("runs/online"),
    config: Config = Path("s2net-scenes"),
    look_aheads: Annotated[
        str, typer.Option(help="Hops after which events are final, with commas between.")
    ] = "0,1,2",
    seeds: Annotated[
        int, typer.Option(min=1, help="Train each with so many seeds, from 0 on.")
    ] = 5,
    subset: Annotated[
        str, typer.Option(help="Subset to run live; settings are chosen on validation.")
    ] = "testing",
    quiet: Annotated[
        str, typer.Option(help="Subset in which nothing happens, for false alarms.")
    ] = "quiet",
    open_scores: Annotated[
        list[float] | None,
        typer.Option("--open-score", help="Open events at this score instead; repeatable."),
    ] = None,
    changes: Changes = None,
    base: Annotated[
        str, typer.Option(help="Bundle whose backbone made the features, by name or folder.")
    ] = "kinetics400-160",
    threads: Threads = 1,
) -> None:
    """Measure online students beside the windowed reading of their teachers.

    Trains a teacher with each seed and its students, runs all live, and prints mAP, delays, late
    openings and false alarms as a Markdown table. --set changes the students.

    s2net bench-online --scenes scenes --features features --subset validation --seeds 2
    """
    with needs_torch():
        from training.benchmarks.draws import load_scenes  # noqa: PLC0415
        from training.benchmarks.online import bench_online as measure  # noqa: PLC0415
        from training.benchmarks.online import table  # noqa: PLC0415 - needs torch
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415
    from engine.errors import DataError  # noqa: PLC0415
    from engine.files.strict_yaml import read_yaml  # noqa: PLC0415
    from training.config import parse_override  # noqa: PLC0415

    content, _ = read_yaml(config_file(config))
    overrides = dict(map(parse_override, changes or ()))
    aheads = look_aheads.split(",")
    if odd := [one for one in aheads if not one.strip().isdigit()]:
        raise DataError(f"--look-aheads: {odd[0]!r} is no number of hops, e.g. 0,1,2")
    backbone = ModelBundle.load(resolve_bundle(base))
    data = load_scenes(features, scenes, (subset, quiet), scenes.name)
    with counting_each("training and running live", seeds * (2 + len(aheads))) as on_run:
        rows = measure(
            data,
            content,
            [int(one) for one in aheads],
            range(seeds),
            backbone,
            out,
            subset=subset,
            quiet=quiet,
            open_scores=open_scores or (None,),
            changes=overrides,
            threads=threads,
            on_run=on_run,
        )
    typer.echo(table(rows))
