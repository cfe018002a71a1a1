"""`s2netd topics`: the Kafka topics that a configuration names, created and checked."""

from typing import Annotated

import typer

from daemon.commands.options import ConfigOption

PartitionsOption = Annotated[
    int, typer.Option(min=1, max=10_000, metavar="N", help="Partitions of each topic.")
]
ChunkRetentionOption = Annotated[
    int,
    typer.Option(min=1, metavar="HOURS", help="How long chunks are kept."),
]
EventRetentionOption = Annotated[
    int, typer.Option(min=1, metavar="DAYS", help="How long events are kept.")
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    topics = typer.Typer(
        help="Create and check the Kafka topics that a configuration names.",
        no_args_is_help=True,
    )
    topics.command()(create)
    topics.command()(check)
    app.add_typer(topics, name="topics")


def create(
    config: ConfigOption,
    partitions: PartitionsOption = 4,
    chunk_retention_hours: ChunkRetentionOption = 24,
    event_retention_days: EventRetentionOption = 7,
    replication_factor: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="N",
            help="On how many brokers each partition lies.",
            show_default="the broker's own",
        ),
    ] = None,
) -> None:
    """Create the topics that are missing, with the settings that the daemon needs.

    These are the chunks, the events, and those that a journal in Kafka keeps.
    A topic that is there is left as it is. The chunks' topic takes chunks of
    source.max_chunk_bytes. It exits with 78 if the broker refuses a topic, and
    with 1 if the broker cannot be reached.

    [dim]s2netd topics create --config configs/daemon/kafka.yaml[/dim]
    [dim]s2netd topics create --config edge.yaml --partitions 16 --replication-factor 3[/dim]
    """
    from daemon.topics import TopicOptions, run_create  # noqa: PLC0415

    options = TopicOptions(
        config=config,
        n_partitions=partitions,
        chunk_retention_hours=chunk_retention_hours,
        event_retention_days=event_retention_days,
        replication_factor=-1 if replication_factor is None else replication_factor,
    )
    raise typer.Exit(run_create(options, typer.echo))


def check(
    config: ConfigOption,
    partitions: PartitionsOption = 4,
    chunk_retention_hours: ChunkRetentionOption = 24,
    event_retention_days: EventRetentionOption = 7,
) -> None:
    """Compare the topics with what the daemon needs, and name what mends each fault.

    A journal's states and features need as many partitions as the chunks have.
    Give it the options that the topics were created with; larger limits and more
    partitions are fine. It changes nothing. It exits with 78 if something must be
    changed, and with 1 if the broker cannot be reached.

    [dim]s2netd topics check --config configs/daemon/kafka.yaml[/dim]
    [dim]s2netd topics check --config edge.yaml --partitions 16[/dim]
    """
    from daemon.topics import TopicOptions, run_check  # noqa: PLC0415

    options = TopicOptions(
        config=config,
        n_partitions=partitions,
        chunk_retention_hours=chunk_retention_hours,
        event_retention_days=event_retention_days,
    )
    raise typer.Exit(run_check(options, typer.echo))
