"""`s2netd run` and `s2netd check`: the daemon itself, and a check of its configuration."""

import sys

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

    sys.exit(run_daemon(load(config), config))


def check(config: ConfigOption) -> None:
    """Check a configuration and its bundle, without starting anything.

    It prints one line if both are right. Otherwise it says what is wrong and
    exits with 78.

    [dim]s2netd check --config /etc/s2netd/edge.yaml[/dim]
    """
    from daemon.config import load  # noqa: PLC0415
    from daemon.models.reading import check_model  # noqa: PLC0415
    from daemon.packaging import check_packages  # noqa: PLC0415

    check_packages()
    parsed = load(config)
    typer.echo(f"{config}: ok ({check_model(parsed.model)})")
