"""`s2netd replay`: the feature log of the past through another localizer."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import ConfigOption, OpenScoreOption, split_labels
from daemon.errors import ConfigError

CamerasOption = Annotated[
    list[str] | None,
    typer.Option("--camera", help="Only this camera; repeat it for several.", show_default="all"),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="MOMENT",
        help="Where to begin: 2026-03-05T14:00 or 14:00 by the local clock, or a time ago such "
        "as 90s, 15m, 2h or 3d.",
        show_default="the log's beginning",
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        metavar="MOMENT", help="Where to end, written as --since.", show_default="the log's end"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    config: ConfigOption,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="The bundle to run: a folder, or the name of a pulled bundle.",
            show_default="the configuration's own",
        ),
    ] = None,
    camera: CamerasOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    out: Annotated[
        Path, typer.Option(help="Folder for events.jsonl, difference.json and the pages.")
    ] = Path("out/replay"),
    labels: Annotated[
        str | None,
        typer.Option(
            help="Report only these classes, by name, separated by commas.",
            show_default="the configuration's own",
        ),
    ] = None,
    open_score: OpenScoreOption = None,
    *,
    from_features: Annotated[
        bool,
        typer.Option("--from-features", help="Replay the feature log; there is nothing else yet."),
    ] = False,
) -> None:
    """Run a bundle over the features that a daemon has logged, and compare the events.

    It needs the journal in Kafka of the configuration, and neither footage nor a
    backbone; the bundle must have the backbone that made the features. Labels and
    opening score are the configuration's, unless they are given here. Nothing is
    published: it writes the records that a daemon would have published, and tells
    which published events match, which are new and which are gone.

    The bundle that served gives the very same events again, if the log still
    holds the camera's first features: all that it saw has shaped its mean, which
    a replay can only learn from the log. A reload with another open_score makes a
    difference too.

    [dim]s2netd replay --from-features --config edge.yaml --bundle bundles/new --since 2h[/dim]
    [dim]s2netd replay --from-features --config edge.yaml --camera gate-3 --since 14:00[/dim]
    """
    from daemon.replay.log import LogOptions  # noqa: PLC0415
    from daemon.replay.period import parse_period  # noqa: PLC0415
    from daemon.replay.run import run_replay  # noqa: PLC0415

    if not from_features:
        raise ConfigError("add --from-features: only the feature log can be replayed")
    changes = {"bundle": bundle, "labels": split_labels(labels), "open_score": open_score}
    options = LogOptions(
        config=config,
        period=parse_period(since, until, datetime.now().astimezone()),
        cameras=tuple(dict.fromkeys(camera or ())),
        out=out,
        model={key: value for key, value in changes.items() if value is not None},
    )
    run_replay(options, Console(), Console(stderr=True))
