"""`s2netd demo`: a clip, streamed at real-time pace through the real daemon.

A producer cuts the clip into a folder of chunks as a camera would deliver them; the daemon, in the
same process but over the same files as any other, turns them into events; at the end stands the
timeline. Nothing here is special-cased for the demo but the clip.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from daemon.app import App, first_of
from daemon.compose import composed
from daemon.config import Config, ModelConfig, parse, parse_model
from daemon.demo_clip import demo_clip
from daemon.localize import clock_text, localize_video, timeline_of, writing_to
from daemon.logs import set_up
from daemon.model import OpenModel, check_model, open_model
from daemon.produce import ProduceOptions, Producer
from daemon.wire import parse_event
from engine.frames import probe_video
from engine.types import ActionEvent, Phase

CAMERA = "demo"
_SIGNS = {
    Phase.OPENED: "[bold green]started[/]",
    Phase.CLOSED: "[bold blue]ended[/]  ",
    Phase.RETRACTED: "[yellow]taken back[/]",
}


def run_demo(
    video: Path | None,
    bundle: str,
    out: Path,
    labels: tuple[str, ...] | None,
    console: Console,
) -> None:
    """Stream, watch, and write the timeline.

    Raises:
        S2netdError: Anything a user can mend, in one line.
    """
    clip = video or demo_clip(Console(stderr=True))
    probe_video(clip)
    model = parse_model({"bundle": bundle, "labels": labels})
    check_model(model)
    with writing_to(out):
        _clear(out)
    console.print(
        f"[bold]{escape(clip.name)}[/] as camera [bold]{CAMERA}[/], at its own pace, in 1 s chunks"
    )
    records = asyncio.run(_stream(clip, _config(model, out), out, console))
    console.print(f"{len(records)} records in {out / 'events.jsonl'}", markup=False)
    with console.status("drawing the timeline"):
        opened = open_model(model)
        try:
            _finish(clip, opened, records, out, console, own=video is not None)
        finally:
            opened.close()


def _clear(out: Path) -> None:
    """Delete what an earlier demo wrote, and nothing else that may lie there."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "chunks", ignore_errors=True)
    for pattern in (
        "events.jsonl",
        "state.sqlite*",
        "daemon.log",
        "timeline.html",
        "summary.json",
    ):
        for leftover in out.glob(pattern):
            leftover.unlink()


def _config(model: ModelConfig, out: Path) -> Config:
    return parse(
        {
            "model": model.model_dump(),
            "source": {"kind": "directory", "path": str(out / "chunks"), "poll_interval_s": 0.05},
            "sink": {"kind": "jsonl", "path": str(out / "events.jsonl")},
            "state": {"path": str(out / "state.sqlite")},
            "http": {"port": 0},
            "log": {"form": "json", "level": "info"},
        },
        "demo",
    )


async def _stream(clip: Path, config: Config, out: Path, console: Console) -> list[ActionEvent]:
    """Produce and consume at the same time; the daemon stops once the end marker is processed."""
    (out / "chunks").mkdir()
    options = ProduceOptions(
        source=str(clip), camera=CAMERA, to=f"dir:{out / 'chunks'}", realtime=True
    )
    records: list[ActionEvent] = []
    with (out / "daemon.log").open("w", encoding="utf-8") as log_file:
        log = set_up("json", "info", log_file)
        async with composed(config, log) as app:
            producer = Producer(options, console)
            try:
                await _serve_and_watch(app, producer, out / "events.jsonl", records, console)
            except BaseExceptionGroup as errors:
                raise first_of(errors) from errors
    for record in _read(out / "events.jsonl")[len(records) :]:
        records.append(record)
        _tell(record, console)
    return records


async def _serve_and_watch(
    app: App, producer: Producer, events: Path, records: list[ActionEvent], console: Console
) -> None:
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(app.serve())
        watching = group.create_task(_watch(events, records, console))
        producing = group.create_task(producer.run())
        await asyncio.wait({producing, serving}, return_when=asyncio.FIRST_COMPLETED)
        producer.stop()  # Ctrl-C ends the daemon first
        await producing
        done = group.create_task(app.finished(producer.n_chunks + 1))  # and the end marker
        await asyncio.wait({done, serving}, return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        app.stop()
        await serving
        watching.cancel()


async def _watch(path: Path, records: list[ActionEvent], console: Console) -> None:
    async for record in _tail(path, records):
        _tell(record, console)


async def _tail(path: Path, records: list[ActionEvent]) -> AsyncIterator[ActionEvent]:
    while True:
        for record in _read(path)[len(records) :]:
            records.append(record)
            yield record
        await asyncio.sleep(0.1)


def _read(path: Path) -> list[ActionEvent]:
    """All whole lines, as a subscriber would read them."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [parse_event(line) for line in lines]


def _tell(record: ActionEvent, console: Console) -> None:
    sign = _SIGNS.get(record.phase)
    if sign is None:
        return
    span = f"{clock_text(record.span.start_us)}-{clock_text(record.span.end_us)}"
    seen = clock_text(record.decided_us)
    console.print(
        f"  {sign} [bold]{escape(record.label_name)}[/] {span}  score {record.score:.2f}"
        f"  [dim](seen up to {seen})[/]"
    )


def _finish(
    clip: Path,
    model: OpenModel,
    records: list[ActionEvent],
    out: Path,
    console: Console,
    *,
    own: bool,
) -> None:
    """The timeline, and a check that live and offline agree on this clip."""
    video = localize_video(clip, CAMERA, model)
    page = out / "timeline.html"
    page.write_text(timeline_of(video, model), encoding="utf-8")
    live = {r.event_id: r for r in records if r.final and r.phase is not Phase.RETRACTED}
    n_offline = len(video.result.final)
    if not n_offline:
        console.print(_silence(video.result.scores.max(initial=0), model, own=own))
    summary = {"live_events": len(live), "offline_events": n_offline, "timeline": str(page)}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    console.print(
        f"live: {len(live)} events; the same clip in one straight line: {n_offline}. "
        f"Timeline: {page}",
        markup=False,
    )


def _silence(highest: float, model: OpenModel, *, own: bool) -> str:
    threshold = model.spec.tracker.open_score
    text = (
        f"No events: the curves peak at {highest:.2f}; an event must stand out from its "
        f"surroundings by {threshold:.2f}."
    )
    if own:
        return text
    return (
        f"{text} That is the right answer: none of the model's "
        f"{len(model.spec.class_names)} actions happens in this clip. The timeline shows the "
        "curves; try a clip of your own: make demo VIDEO=my.mp4"
    )
