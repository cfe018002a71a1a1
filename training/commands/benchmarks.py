"""Commands that measure: bench (runtimes)."""

from typing import Annotated

import typer

from training.commands.screen import needs_torch


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(bench)


def bench(
    bundle: Annotated[str, typer.Option(help="Whose backbone.")] = "kinetics400",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of both.")] = None,
) -> None:
    """Time one backbone in OpenVINO f32 and in torch fp32, in one run, and compare the answers.

    s2net bench --seconds 20
    """
    with needs_torch():
        from training.bench import compare_runtimes  # noqa: PLC0415 - needs torch
    typer.echo(compare_runtimes(bundle, seconds, threads))
