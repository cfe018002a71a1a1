"""`s2netd`: the operator's commands. Heavy libraries are imported by the command that needs them.

A user's mistake ends in one clear line and an exit code: 78 for a configuration or bundle that
must be changed (systemd does not restart it), 1 for a fault that may pass, 2 for wrong arguments.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.bench import bench
from daemon.commands.engine import engine
from daemon.commands.options import (
    BundleOption,
    LabelsOption,
    OpenScoreOption,
    PrecisionOption,
    ThreadsOption,
)
from daemon.errors import EXIT_CONFIG, ConfigError
from engine.errors import BundleError, S2netdError

app = typer.Typer(
    name="s2netd",
    help="Watches cameras for actions: video chunks in, timed and revised action events out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="Fetch and check published models.", no_args_is_help=True)
schema = typer.Typer(help="Print a JSON Schema.", no_args_is_help=True)
app.add_typer(engine, name="engine")
app.add_typer(models, name="models")
app.add_typer(schema, name="schema")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The YAML file.")]


def main() -> None:
    """Entry point; turns every expected error into one line and an exit code."""
    try:
        app()
    except (ConfigError, BundleError) as error:
        _complain(str(error))
        sys.exit(EXIT_CONFIG)
    except S2netdError as error:
        _complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(message: str) -> None:
    # Not rich: a message may hold brackets, and must stay one searchable piece of text.
    sys.stderr.write(f"s2netd: {message}\n")


def _split(labels: str | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    names = tuple(part.strip() for part in labels.split(",") if part.strip())
    if not names:
        raise ConfigError(f"--labels is {labels!r}, wanted names separated by commas")
    return names


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        typer.echo(f"s2netd {version('s2netd')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _version(wanted=value))
    ] = False,
) -> None:
    pass


@app.command()
def run(config: ConfigOption) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    [dim]s2netd run --config configs/daemon/local.yaml[/dim]
    """
    from daemon.compose import run_daemon  # noqa: PLC0415
    from daemon.config import load  # noqa: PLC0415

    sys.exit(run_daemon(load(config), config))


@app.command()
def check(config: ConfigOption) -> None:
    """Check a configuration and its bundle, without starting anything.

    [dim]s2netd check --config /etc/s2netd/edge.yaml[/dim]
    """
    from daemon.config import load  # noqa: PLC0415
    from daemon.models.reading import check_model  # noqa: PLC0415
    from daemon.packaging import check_packages  # noqa: PLC0415

    check_packages()
    parsed = load(config)
    typer.echo(f"{config}: ok ({check_model(parsed.model)})")


@app.command()
def localize(
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    bundle: BundleOption = "kinetics400",
    out: Annotated[Path, typer.Option(help="Folder for events.jsonl and the timelines.")] = Path(
        "out"
    ),
    labels: LabelsOption = None,
    open_score: OpenScoreOption = None,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Find actions in video files; no broker, the same stages as live.

    Writes events.jsonl (the records a daemon would have published) and one HTML timeline a video.

    [dim]s2netd localize clip.mp4 --labels "opening bottle,arm wrestling" --out out[/dim]
    """
    from daemon.config import parse_model  # noqa: PLC0415
    from daemon.localize import localize_videos, summary_table  # noqa: PLC0415
    from daemon.models.reading import open_model  # noqa: PLC0415

    console = Console(stderr=True)
    config = parse_model(
        {
            "bundle": bundle,
            "labels": _split(labels),
            "open_score": open_score,
            "precision": precision,
            "threads": threads,
        }
    )
    with console.status(f"opening {bundle}"):
        model = open_model(config)
    try:
        done = localize_videos(videos, model, out, "local", console)
    finally:
        model.close()
    Console().print(summary_table(done))
    typer.echo(f"wrote {out / 'events.jsonl'} and {len(done)} timeline page(s) in {out}/")


@app.command()
def produce(
    source: Annotated[str, typer.Argument(help="A file, a folder of files, or an rtsp/http URL.")],
    camera: Annotated[str, typer.Option(help="Camera id: the record key, or the folder's name.")],
    to: Annotated[str, typer.Option(help="dir:PATH or kafka:TOPIC")],
    bootstrap: Annotated[str, typer.Option(help="Kafka bootstrap servers.")] = "127.0.0.1:9092",
    chunk_s: Annotated[
        float, typer.Option("--chunk-seconds", min=0.1, max=60, help="Wanted chunk length.")
    ] = 1.0,
    transcode: Annotated[
        str, typer.Option(help="auto: what cannot be cut; never: keep long GOPs whole; always.")
    ] = "auto",
    *,
    realtime: Annotated[bool, typer.Option(help="At the footage's own pace.")] = False,
    loop: Annotated[bool, typer.Option(help="Again and again until stopped.")] = False,
    site: Annotated[str, typer.Option(help="Written into every chunk.")] = "default",
) -> None:
    """Cut footage into closed-GOP chunks and publish them.

    Cuts at key frames without re-encoding; transcodes only what cannot be cut, saying so.

    [dim]s2netd produce clip.mp4 --camera gate-3 --to dir:chunks[/dim]
    [dim]s2netd produce rtsp://10.0.0.7/stream1 --camera gate-3 --to kafka:s2netd.chunks.v1[/dim]
    """
    from daemon.produce.producer import ProduceOptions, produce_blocking  # noqa: PLC0415

    options = ProduceOptions(
        source=source,
        camera=camera,
        to=to,
        bootstrap=bootstrap,
        chunk_s=chunk_s,
        transcode=transcode,
        realtime=realtime,
        loop=loop,
        site=site,
    )
    produce_blocking(options, Console(stderr=True))


@app.command()
def demo(
    video: Annotated[
        Path | None, typer.Argument(help="Your own clip; without it, a scene drawn on the spot.")
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="A bundle folder or name.", show_default="scenes; of your own clip kinetics400"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path(
        "out/demo"
    ),
    labels: LabelsOption = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            min=0, max=10**9, help="Of the scene; repeat it for several.", show_default="a new one"
        ),
    ] = None,
    camera: Annotated[
        int | None, typer.Option(min=1, max=5, help="Of the scene.", show_default="by seed")
    ] = None,
    seconds: Annotated[float, typer.Option(min=10, max=600, help="Length of the scene.")] = 50,
    pace: Annotated[str, typer.Option(help="real, or fast: without waiting.")] = "real",
) -> None:
    """Stream a scene or a clip through the daemon and show its events as they come.

    What happens in a scene is known: events are told beside it, and held against it in the end.

    [dim]s2netd demo[/dim]
    [dim]s2netd demo --seed 1 --seed 2 --seed 3 --pace fast[/dim]
    [dim]s2netd demo my-clip.mp4[/dim]
    """
    from daemon.demo.run import DemoOptions, run_demo  # noqa: PLC0415

    options = DemoOptions(
        video=video,
        bundle=bundle,
        out=out,
        labels=_split(labels),
        seeds=tuple(dict.fromkeys(seed or ())),
        camera=camera,
        seconds=seconds,
        pace=pace,
    )
    run_demo(options, Console())


app.command()(bench)


@models.command("list")
def models_list() -> None:
    """The models there are, and which are pulled.

    [dim]s2netd models list[/dim]
    """
    from engine.published import models as published  # noqa: PLC0415

    for row in published.list_models():
        typer.echo(row)


@models.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="E.g. kinetics400.")]) -> None:
    """Fetch, verify and convert a model; does nothing if it is there.

    [dim]s2netd models pull kinetics400[/dim]
    """
    from daemon.models.pull import pull_with_progress  # noqa: PLC0415

    typer.echo(pull_with_progress(name, Console(stderr=True)))


@models.command("verify")
def models_verify(name: Annotated[str, typer.Argument(help="E.g. kinetics400.")]) -> None:
    """Compare a pulled model with its digests.

    [dim]s2netd models verify kinetics400[/dim]
    """
    from engine.published import models as published  # noqa: PLC0415

    published.verify(name)
    typer.echo(f"{name}: ok")


@models.command("path")
def models_path(name: Annotated[str, typer.Argument(help="E.g. kinetics400.")]) -> None:
    """Where a pulled bundle lies.

    [dim]cat $(s2netd models path kinetics400)/bundle.yaml[/dim]
    """
    from engine.published import models as published  # noqa: PLC0415

    typer.echo(published.verify(name).path)


@schema.command("event")
def schema_event() -> None:
    """Of the event record: the Kafka value, and a line of events.jsonl.

    [dim]s2netd schema event > action-event.json[/dim]
    """
    from daemon.wire.records import event_schema  # noqa: PLC0415

    typer.echo(json.dumps(event_schema(), indent=2))


@schema.command("config")
def schema_config() -> None:
    """Of the configuration file.

    [dim]s2netd schema config > s2netd.schema.json[/dim]
    """
    from daemon.config import json_schema  # noqa: PLC0415

    typer.echo(json.dumps(json_schema(), indent=2))


if __name__ == "__main__":
    main()
