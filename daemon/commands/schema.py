"""`s2netd schema`: the formats that others read and write, as JSON Schema."""

import json

import typer


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    schema = typer.Typer(help="Print a JSON Schema.", no_args_is_help=True)
    schema.command()(event)
    schema.command()(config)
    app.add_typer(schema, name="schema")


def event() -> None:
    """Of the event record: the Kafka value, and a line of events.jsonl.

    [dim]s2netd schema event > action-event.json[/dim]
    """
    from daemon.wire.records import event_schema  # noqa: PLC0415

    typer.echo(json.dumps(event_schema(), indent=2))


def config() -> None:
    """Of the configuration file.

    [dim]s2netd schema config > s2netd.schema.json[/dim]
    """
    from daemon.config import json_schema  # noqa: PLC0415

    typer.echo(json.dumps(json_schema(), indent=2))
