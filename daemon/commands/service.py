"""`s2netd run` and `s2netd check`: the daemon itself, and a check of its configuration."""

import sys
from typing import Annotated

import typer

from daemon.commands.options import ConfigOption


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(check)


def run(config: ConfigOption) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    It reads chunks from the configured source and publishes events to the
    configured sink. SIGHUP makes it read the file again. It exits with 78 if the
    configuration or the bundle is wrong, and with 1 after a fault that may pass.

    [dim]s2netd run --config configs/daemon/local.yaml[/dim]
    """
    from daemon.compose import run_daemon  # noqa: PLC0415
    from daemon.config import load  # noqa: PLC0415
    from daemon.heap import keep_little  # noqa: PLC0415

    keep_little()
    sys.exit(run_daemon(load(config), config))


def check(
    config: ConfigOption,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask the brokers and try the device too.")
    ] = False,
) -> None:
    """Check a configuration, its bundle, secrets and folders, without starting anything.

    It prints one line if all is right. Otherwise it prints a line for each thing
    that is wrong, and exits with 78. With --probe it connects to the brokers,
    looks at topics, settings, limits and rights without changing anything, runs
    the model once, and says what it tried; a broker that cannot be reached is
    exit code 1, if nothing else is wrong.

    [dim]s2netd check --config /etc/s2netd/edge.yaml[/dim]
    [dim]s2netd check --config /etc/s2netd/edge.yaml --probe[/dim]
    """
    from daemon.check.run import run_check  # noqa: PLC0415

    run_check(config, typer.echo, is_probe=probe)
