"""`s2netd features`: what a daemon has logged of its cameras, as files."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import ConfigOption
from daemon.commands.replay import CamerasOption, SinceOption, UntilOption


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    features = typer.Typer(
        help="Export the features that a daemon has logged, to train on.", no_args_is_help=True
    )
    features.callback()(_root)
    features.command()(export)
    app.add_typer(features, name="features")


def _root() -> None:
    """Keep the command's name although it is the only one."""


def export(
    config: ConfigOption,
    out: Annotated[Path, typer.Option(help="Folder for the export; it must hold none.")],
    camera: CamerasOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="The bundle that made the features: a folder, or the name of a pulled bundle.",
            show_default="the configuration's own",
        ),
    ] = None,
) -> None:
    """Write logged features to a folder, for s2net extract --from-log.

    It needs the journal in Kafka of the configuration. A snippet takes 2 KB with
    the shipped bundles: 23 MB for an hour of one camera.

    [dim]s2netd features export --config edge.yaml --camera gate-3 --since 8h --out log[/dim]
    [dim]s2net extract --from-log log gate-3 14:00..14:05 --tag fall --bundle scenes[/dim]
    """
    from daemon.replay.export import run_export  # noqa: PLC0415
    from daemon.replay.log import LogOptions  # noqa: PLC0415
    from daemon.replay.period import parse_period  # noqa: PLC0415

    options = LogOptions(
        config=config,
        period=parse_period(since, until, datetime.now().astimezone()),
        cameras=tuple(dict.fromkeys(camera or ())),
        out=out,
        model={} if bundle is None else {"bundle": bundle},
    )
    run_export(options, Console())
