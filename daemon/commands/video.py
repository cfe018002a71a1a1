"""The commands that take or give video: `localize`, `produce`, `demo` and `clip`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import (
    BundleOption,
    LabelsOption,
    MotionGateOption,
    OpenScoreOption,
    PrecisionOption,
    RungOption,
    ThreadsOption,
    refuse_besides_config,
    split_labels,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(localize)
    app.command()(produce)
    app.command()(demo)
    app.command()(clip)


def localize(
    videos: Annotated[list[Path], typer.Argument(help="Video files, and folders of them.")],
    bundle: BundleOption = "kinetics400",
    out: Annotated[Path, typer.Option(help="Folder for events.jsonl and the pages.")] = Path(
        "out"
    ),
    labels: LabelsOption = None,
    open_score: OpenScoreOption = None,
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    rung: RungOption = "full",
    motion_gate: MotionGateOption = "off",
    max_lost: Annotated[
        float,
        typer.Option(
            "--max-lost-percent",
            min=0,
            max=100,
            help="More of a video left out, as damaged, is a failure: exit code 3.",
        ),
    ] = 5,
) -> None:
    """Find actions in video files, through the same stages as live footage.

    It writes events.jsonl (the records that a daemon would publish) and an HTML
    timeline page for each video. It needs no broker. A video that cannot be read
    is named at the end (exit code 1), and does not keep the others back. What had
    to be left out of a video is named too.

    [dim]s2netd localize clip.mp4 --labels "opening bottle,arm wrestling" --out out[/dim]
    """
    from daemon.config import parse_model  # noqa: PLC0415
    from daemon.localize import (  # noqa: PLC0415
        ended_by_sigterm,
        files_of,
        localize_videos,
        lost_footage,
        not_localized,
        summary_table,
    )
    from daemon.models.choosing import Telling, open_model  # noqa: PLC0415
    from engine.video.losses import check_losses  # noqa: PLC0415

    console = Console(stderr=True)
    files = files_of(videos)
    config = parse_model(
        {
            "bundle": bundle,
            "labels": split_labels(labels),
            "open_score": open_score,
            "precision": precision,
            "threads": threads,
            "economy": {"rung": rung, "motion_gate": motion_gate},
        }
    )
    with console.status(f"opening {bundle}"):
        model = open_model(config, Telling(note=lambda words: typer.echo(words, err=True)))
    try:
        with ended_by_sigterm():
            outcome = localize_videos(files, model, out, "local", console)
    finally:
        model.close()
    if outcome.done:
        Console().print(summary_table(outcome))
        n_pages = len(outcome.done)
        typer.echo(f"wrote {out / 'events.jsonl'} and {n_pages} timeline page(s) in {out}/")
        if model.choice:
            typer.echo(f"precision {model.choice}")
    losses = lost_footage(outcome)
    for name, lost in losses.items():
        console.print(f"{name}: {lost.told}", markup=False, highlight=False, soft_wrap=True)
    if outcome.failed:
        raise not_localized(outcome)
    check_losses(losses, max_lost / 100)


def produce(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A video file, a folder of them, or a camera's rtsp, rtsps, http or https URL; "
            "@FILE or env:NAME, which hold one, keep a password out of the list of processes.",
            show_default=False,
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(help="The camera's name: key of the records, or name of the folder."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Where chunks go: dir:PATH (a folder) or kafka:TOPIC.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="A YAML file of many cameras, instead of all but --status."
        ),
    ] = None,
    bootstrap: Annotated[
        str, typer.Option(help="Kafka brokers, host:port, separated by commas.")
    ] = "127.0.0.1:9092",
    security: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A YAML file with the keys of a section security: how to log in to Kafka.",
            show_default="no login, no TLS",
        ),
    ] = None,
    chunk_s: Annotated[
        float,
        typer.Option(
            "--chunk-seconds", min=0.1, max=60, help="Wanted length of a chunk, in seconds."
        ),
    ] = 1.0,
    transcode: Annotated[
        str,
        typer.Option(
            help="auto: only what cannot be cut; never: long GOPs stay whole; always: everything."
        ),
    ] = "auto",
    rtsp_transport: Annotated[
        str,
        typer.Option(
            help="How RTSP brings its packets: tcp, udp, or auto: UDP only if TCP is refused."
        ),
    ] = "auto",
    camera_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of rtsps and https: certificates to trust, PEM, such as the camera's own.",
            show_default="the system's",
        ),
    ] = None,
    *,
    check_certificate: Annotated[
        bool, typer.Option(help="Of rtsps and https: turn away a camera that is not trusted.")
    ] = True,
    realtime: Annotated[
        bool, typer.Option(help="Send a file at its own pace, as a camera would.")
    ] = False,
    loop: Annotated[
        bool, typer.Option(help="Send the files again and again until stopped.")
    ] = False,
    site: Annotated[
        str, typer.Option(help="Name of the site, written into every chunk.")
    ] = "default",
    spool_bytes: Annotated[
        int,
        typer.Option(
            min=2**20,
            help="Most bytes of live footage that wait in memory while they cannot be sent; then "
            "the oldest go.",
        ),
    ] = 256 * 2**20,
    status: Annotated[
        bool,
        typer.Option(
            "--status",
            help="Every 10 s a line for each camera: state, frames a second, lag, spooled, "
            "dropped.",
        ),
    ] = False,
) -> None:
    """Cut footage into chunks and send them to a folder or a Kafka topic.

    Each chunk is one closed GOP. Footage is cut at key frames and not encoded
    again. Only what cannot be cut is transcoded, with a note on standard error.
    A camera, broker or disk that is away is waited for; what live footage could
    not be kept meanwhile is said. Files of a folder that cannot be read are named
    at the end (exit code 1), and do not keep the others back.

    [dim]s2netd produce clip.mp4 --camera gate-3 --to dir:chunks[/dim]
    [dim]s2netd produce rtsp://10.0.0.7/stream1 --camera gate-3 --to kafka:s2netd.chunks.v1[/dim]
    [dim]s2netd produce @gate-3.url --camera gate-3 --to kafka:s2netd.chunks.v1[/dim]
    [dim]s2netd produce clip.mp4 --camera gate-3 --to kafka:chunks --security security.yaml[/dim]
    [dim]s2netd produce --config /etc/s2netd/hall.cameras.yaml[/dim]
    """
    from daemon.heap import keep_little  # noqa: PLC0415
    from daemon.produce.options import ProduceOptions  # noqa: PLC0415
    from daemon.produce.producer import produce_blocking, produce_cameras  # noqa: PLC0415

    keep_little()
    if config is not None:
        others = [name for name in context.params if name not in ("config", "status")]
        refuse_besides_config(context, *others)
        sys.exit(produce_cameras(config, status=status))
    if source is None or camera is None or to is None:
        raise typer.BadParameter("give SOURCE, --camera and --to, or --config")
    options = ProduceOptions(
        source=source,
        camera=camera,
        to=to,
        bootstrap=bootstrap,
        security=security,
        chunk_s=chunk_s,
        transcode=transcode,
        realtime=realtime,
        loop=loop,
        site=site,
        rtsp_transport=rtsp_transport,
        camera_ca=camera_ca,
        check_certificate=check_certificate,
        spool_bytes=spool_bytes,
        status=status,
    )
    produce_blocking(options, Console(stderr=True))


def demo(
    video: Annotated[
        Path | None, typer.Argument(help="A clip of your own; without it, a scene is drawn.")
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Which networks: a bundle's folder, or the name of a pulled bundle.",
            show_default="scenes; for your own clip, kinetics400",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path(
        "out/demo"
    ),
    labels: LabelsOption = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            max=10**9,
            help="Seed of the scene; repeat it for several scenes.",
            show_default="a new one",
        ),
    ] = None,
    camera: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=5,
            help="Which camera sees the scene.",
            show_default="chosen by the seed",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=10, max=600, help="Length of the scene, in seconds.")
    ] = 50,
    pace: Annotated[
        str, typer.Option(help="real: as fast as a camera sends; fast: without waiting.")
    ] = "real",
) -> None:
    """Stream a scene or a clip through the daemon and show its events as they come.

    What happens in a scene is known: it is shown beside the events, and compared
    with them at the end. The demo also writes an HTML timeline page and
    summary.json into the folder --out.

    [dim]s2netd demo[/dim]
    [dim]s2netd demo --seed 1 --seed 2 --seed 3 --pace fast[/dim]
    [dim]s2netd demo my-clip.mp4[/dim]
    """
    from daemon.demo.run import DemoOptions, run_demo  # noqa: PLC0415

    options = DemoOptions(
        video=video,
        bundle=bundle,
        out=out,
        labels=split_labels(labels),
        seeds=tuple(dict.fromkeys(seed or ())),
        camera=camera,
        seconds=seconds,
        pace=pace,
    )
    run_demo(options, Console())


def clip(
    event_id: Annotated[str, typer.Argument(help="The event's id, or the beginning of it.")],
    config: Annotated[
        Path, typer.Option(help="The daemon's configuration: where chunks and events are.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The MP4; named for camera and event if left out.")
    ] = None,
) -> None:
    """Cut the video that shows an event out of the chunks, without encoding it again.

    The event says where its chunks lie (`evidence`); they must still be kept there.

    [dim]s2netd clip 3f2a --config /etc/s2netd/edge.yaml[/dim]
    """
    from daemon.clip import cut_clip  # noqa: PLC0415

    cut_clip(config, event_id, out, Console(stderr=True))
