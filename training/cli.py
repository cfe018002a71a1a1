"""`s2net`: the trainer's commands."""

import sys

import typer

from engine.errors import LostFootageError, S2netdError
from training.commands import bank, benchmarks, conversion, data, evaluation, networks

app = typer.Typer(
    name="s2net",
    help="Makes a bundle that s2netd runs live from tagged recordings: extract features, train, "
    "evaluate, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (data, bank, networks, conversion, evaluation, benchmarks):
    commands.register(app)


def main() -> None:
    """Run the command line; an expected error is one line and exit code 1, lost footage is 3."""
    try:
        app()
    except S2netdError as error:
        sys.stderr.write(f"s2net: {error}\n")
        sys.exit(3 if isinstance(error, LostFootageError) else 1)


if __name__ == "__main__":
    main()
