"""`s2netd schema`: the formats that other programs read and write, as JSON Schema."""

import json

import typer


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    schema = typer.Typer(
        help="Print the JSON Schema of event or status records, or of a configuration file.",
        no_args_is_help=True,
    )
    schema.command()(event)
    schema.command()(status)
    schema.command()(config)
    schema.command()(cameras)
    app.add_typer(schema, name="schema")


def event() -> None:
    """Print the JSON Schema of an event record.

    An event record is the value of a Kafka record, and a line of events.jsonl.

    [dim]s2netd schema event > action-event.json[/dim]
    """
    from daemon.wire.records import event_schema  # noqa: PLC0415

    typer.echo(json.dumps(event_schema(), indent=2))


def status() -> None:
    """Print the JSON Schema of a camera's status.

    It is the value of a record of the topic camera-status.v1, and the column
    status of a local journal's table statuses.

    [dim]s2netd schema status > camera-status.json[/dim]
    """
    from daemon.wire.schemas import camera_status_schema  # noqa: PLC0415

    typer.echo(json.dumps(camera_status_schema(), indent=2))


def config() -> None:
    """Print the JSON Schema of the daemon's configuration file.

    It describes every key. Editors can complete and check a configuration with
    it.

    [dim]s2netd schema config > s2netd.schema.json[/dim]
    """
    from daemon.config import json_schema  # noqa: PLC0415

    typer.echo(json.dumps(json_schema(), indent=2))


def cameras() -> None:
    """Print the JSON Schema of the file of `s2netd produce --config`.

    It describes every key.

    [dim]s2netd schema cameras > cameras.schema.json[/dim]
    """
    from daemon.produce.config import json_schema  # noqa: PLC0415

    typer.echo(json.dumps(json_schema(), indent=2))
