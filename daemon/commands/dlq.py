"""`s2netd dlq`: records that could not be used, told and sent again."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.options import ConfigOption
from daemon.errors import ConfigError

CameraOption = Annotated[
    str | None, typer.Option(help="Only those of this camera.", show_default="all")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="Only those written since then: 90s, 30m, 6h or 2d ago, or a time such as "
        "2026-01-31T09:30:00Z.",
        show_default="all",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    dlq = typer.Typer(
        help="List, show and send again the records that the daemon could not use.",
        no_args_is_help=True,
    )
    dlq.command("list")(list_letters)
    dlq.command()(show)
    dlq.command()(replay)
    app.add_typer(dlq, name="dlq")


def list_letters(
    config: ConfigOption,
    camera: CameraOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The newest so many.")] = 100,
) -> None:
    """List dead letters: where each record lay, and what was wrong with it.

    A journal in Kafka keeps them; a local one does not.

    [dim]s2netd dlq list --config edge.yaml[/dim]
    [dim]s2netd dlq list --config edge.yaml --camera gate-3 --since 6h[/dim]
    """
    from daemon.dlq import LetterFilter, run_list  # noqa: PLC0415

    raise typer.Exit(run_list(config, LetterFilter(camera, since), limit, typer.echo))


def show(
    offset: Annotated[int, typer.Argument(min=0, help="Its offset, as dlq list tells it.")],
    config: ConfigOption,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the record's own bytes to.", show_default="none"),
    ] = None,
) -> None:
    """Show one dead letter with its headers.

    [dim]s2netd dlq show 812 --config edge.yaml --out bad.mp4[/dim]
    """
    from daemon.dlq import run_show  # noqa: PLC0415

    raise typer.Exit(run_show(config, offset, out, typer.echo))


def replay(
    config: ConfigOption,
    offsets: Annotated[
        list[int] | None, typer.Argument(min=0, help="Their offsets, as dlq list tells them.")
    ] = None,
    camera: CameraOption = None,
    since: SinceOption = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All, or those that --camera and --since let through.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Send dead letters back to the topic of the chunks, with their own key and headers.

    It helps where the daemon was at fault: a limit that was too low, say, or a
    camera that was one too many. A chunk of a run that has ended, or that the
    camera has passed, is left out as a duplicate. The letters stay in their
    topic. It exits with 1 if not all were sent.

    [dim]s2netd dlq replay 812 813 --config edge.yaml[/dim]
    [dim]s2netd dlq replay --all --camera gate-3 --config edge.yaml[/dim]
    """
    from daemon.dlq import LetterFilter, Replay, run_replay  # noqa: PLC0415

    if bool(offsets) == everything:
        raise ConfigError("give either offsets or --all")
    if offsets and (camera or since):
        raise ConfigError("--camera and --since go with --all, not with offsets")
    chosen = Replay(offsets or [], LetterFilter(camera, since))
    raise typer.Exit(run_replay(config, chosen, lambda ask: yes or typer.confirm(ask), typer.echo))
