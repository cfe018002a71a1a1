"""`s2netd`: the operator's commands. Heavy libraries are imported by the command that needs them.

A user's mistake ends in one clear line and an exit code: 78 for a configuration or bundle that
must be changed (the service is then not restarted), 1 for a fault that may pass, 2 for wrong
arguments, and 3 if more of a video was left out than allowed.
"""

import sys
from typing import Annotated

import typer

from daemon.commands import (
    bench,
    dlq,
    engine,
    features,
    models,
    replay,
    schema,
    service,
    topics,
    video,
)
from daemon.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_LOSSY, ConfigError
from daemon.log_lines import is_journal, prioritized
from engine.errors import BundleError, LostFootageError, S2netdError

app = typer.Typer(
    name="s2netd",
    help="Watches cameras for actions. Video chunks come in; timed, revised action events go out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (service, topics, dlq, video, replay, features, bench, engine, models, schema):
    commands.register(app)


def main() -> None:
    """Run a command; turn every expected error into one line and an exit code."""
    try:
        app()
    except (ConfigError, BundleError) as error:
        _complain(str(error))
        sys.exit(EXIT_CONFIG)
    except LostFootageError as error:
        _complain(str(error))
        sys.exit(EXIT_LOSSY)
    except S2netdError as error:
        _complain(str(error))
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(message: str) -> None:
    # Not rich: a message may hold brackets, and must stay one searchable piece of text.
    for line in message.splitlines():
        text = f"s2netd: {line}"
        sys.stderr.write((prioritized(text, "error") if is_journal(sys.stderr) else text) + "\n")


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        typer.echo(f"s2netd {version('s2netd')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _version(wanted=value),
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
