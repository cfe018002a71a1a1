"""`s2netd models`: published models, listed, pulled and checked."""

from typing import Annotated

import typer
from rich.console import Console

Name = Annotated[str, typer.Argument(help="Name of a published model, e.g. kinetics400.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    models = typer.Typer(help="Fetch and check published models.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command()(pull)
    models.command()(verify)
    models.command("path")(print_path)
    app.add_typer(models, name="models")


def list_models() -> None:
    """List the published models, and say which are pulled.

    [dim]s2netd models list[/dim]
    """
    from engine.published import models as published  # noqa: PLC0415

    for row in published.list_models():
        typer.echo(row)


def pull(name: Name) -> None:
    """Fetch, verify and convert a model, and print its bundle's folder.

    A model that is there already is not fetched again.

    [dim]s2netd models pull kinetics400[/dim]
    """
    from daemon.models.pull import pull_with_progress  # noqa: PLC0415

    typer.echo(pull_with_progress(name, Console(stderr=True)))


def verify(name: Name) -> None:
    """Compare the files of a pulled model with their digests.

    [dim]s2netd models verify kinetics400[/dim]
    """
    from engine.published import models as published  # noqa: PLC0415

    published.verify(name)
    typer.echo(f"{name}: ok")


def print_path(name: Name) -> None:
    """Print the folder of a pulled model's bundle.

    [dim]cat $(s2netd models path kinetics400)/bundle.yaml[/dim]
    """
    from engine.published import models as published  # noqa: PLC0415

    typer.echo(published.verify(name).path)
