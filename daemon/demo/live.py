"""Streams the demo's clip through the real daemon and tells its events beside what happens.

A producer cuts the clip into chunks, as a camera would deliver them, and puts these into a folder.
The daemon turns them into events. It runs in the same process, but reads and writes the same kinds
of files as any other daemon.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from daemon.app import App, first_of, stopped_by_signals
from daemon.compose import composed
from daemon.config import Config, ModelConfig, parse
from daemon.demo.scene import Clip
from daemon.localize import clock_text
from daemon.logs import set_up
from daemon.produce.options import ProduceOptions
from daemon.produce.producer import Producer
from daemon.starting import StoppedError
from daemon.wire.records import parse_event
from engine.judging.truth import TruthSpan
from engine.types import ActionEvent, Phase

_SIGNS = {
    Phase.OPENED: "[bold green]started[/]",
    Phase.CLOSED: "[bold blue]ended[/]  ",
    Phase.RETRACTED: "[yellow]taken back[/]",
}
_CHUNK_S = 1.0
_CHUNK_US = 1_000_000
_TRUTH_WIDTH = 16
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """A moment, in stream time, and words for what starts or ends then."""

    time_us: int
    words: str


class Narrator:
    """Tells what happens and what is reported, in order of stream time.

    Args:
        console: Shows the lines; a quiet console drops them.
        truth: What happens in the clip; None if it is not known.
    """

    def __init__(self, console: Console, truth: Sequence[TruthSpan[str]] | None) -> None:
        self._console = console
        self._width = 0 if truth is None else _TRUTH_WIDTH
        starts = [Told(one.span.start_us, f"{one.class_id} starts") for one in truth or ()]
        ends = [Told(one.span.end_us, f"{one.class_id} ends") for one in truth or ()]
        self._untold = sorted((*starts, *ends), key=lambda told: told.time_us)
        if truth is not None:
            self._line("seen to", "truth", "reported")

    def reach(self, time_us: int) -> None:
        """Tell what happens up to ``time_us``, for footage up to there has been processed."""
        while self._untold and self._untold[0].time_us <= time_us:
            told = self._untold.pop(0)
            self._line(clock_text(told.time_us), told.words, "")

    def tell(self, revision: ActionEvent) -> None:
        """Tell one revision, after everything that had happened by then."""
        self.reach(revision.decided_us)
        sign = _SIGNS.get(revision.phase)
        if sign is None:
            return
        span = f"{clock_text(revision.span.start_us)}-{clock_text(revision.span.end_us)}"
        name = escape(revision.class_name)
        words = f"{sign} [bold]{name}[/] {span}  score {revision.score:.2f}"
        self._line(clock_text(revision.decided_us), "", words)

    def finish(self) -> None:
        """Tell everything that is left."""
        while self._untold:
            self.reach(self._untold[0].time_us)

    def _line(self, time: str, truth: str, reported: str) -> None:
        left = escape(f"{truth:<{self._width}}")
        line = f"  [dim]{time:>7}[/]  {left}{reported}".rstrip()
        self._console.print(line, soft_wrap=True, highlight=False)


def stream(
    clip: Clip,
    model: ModelConfig,
    out: Path,
    console: Console,
    narrator: Narrator,
    *,
    realtime: bool,
) -> list[ActionEvent]:
    """Produce chunks and process them at the same time, until the end marker is processed.

    Args:
        clip: The footage of the camera.
        model: The model that watches it.
        out: Folder for chunks, events, state and log.
        console: Shows the producer's notes.
        narrator: Told every revision as it comes.
        realtime: Stream at the clip's own pace, and not as fast as it goes.

    Returns:
        Every revision of every event, in the order in which they were published.

    Raises:
        S2netdError: Anything that the user can put right, in one line.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was in hand has been finished.
    """
    (out / "chunks").mkdir()
    options = ProduceOptions(
        source=str(clip.path),
        camera=clip.camera,
        to=f"dir:{out / 'chunks'}",
        chunk_s=_CHUNK_S,
        realtime=realtime,
    )
    # Progress is redrawn again and again, which suits a terminal and not a file.
    producer = Producer(options, console if console.is_terminal else Console(stderr=True))
    watcher = _Watcher(out / "events.jsonl", narrator)
    if not asyncio.run(_stream(producer, _config(model, out), out / "daemon.log", watcher)):
        raise KeyboardInterrupt
    watcher.read()
    narrator.finish()
    return watcher.revisions


class _Watcher:
    """Reads the daemon's file of event records, as another program would."""

    def __init__(self, path: Path, narrator: Narrator) -> None:
        self._path = path
        self._narrator = narrator
        self.revisions: list[ActionEvent] = []

    def read(self) -> None:
        """Tell the revisions that are new; a line that is not whole yet is left for later."""
        if not self._path.exists():
            return
        lines = self._path.read_bytes().split(b"\n")[:-1]
        for line in lines[len(self.revisions) :]:
            revision = parse_event(line)
            self.revisions.append(revision)
            self._narrator.tell(revision)

    async def follow(self, app: App) -> None:
        """Read again and again until cancelled."""
        while True:
            n_done = app.progress.n_done  # taken before reading, so their events are in the file
            self.read()
            self._narrator.reach(n_done * _CHUNK_US)
            await asyncio.sleep(_POLL_S)


def _config(model: ModelConfig, out: Path) -> Config:
    return parse(
        {
            "model": model.model_dump(),
            "source": {"kind": "directory", "path": str(out / "chunks"), "poll_interval_s": 0.05},
            "sink": {"kind": "jsonl", "path": str(out / "events.jsonl")},
            "state": {"path": str(out / "state.sqlite")},
            "http": {"port": 0},
            "log": {"form": "json", "level": "info"},
            "drain_timeout_s": 3,  # so that Ctrl-C does not take long
        },
        "demo",
    )


async def _stream(producer: Producer, config: Config, log: Path, watcher: _Watcher) -> bool:
    """Open, serve and watch; False if that was stopped before everything was processed."""
    stop = asyncio.Event()
    # Before all else, for a job in a script's background is begun with Ctrl-C ignored.
    with stopped_by_signals(stop), log.open("w", encoding="utf-8") as log_file:
        try:
            async with composed(config, set_up("json", "info", log_file), stop) as app:
                return await _serve_and_watch(app, producer, watcher)
        except StoppedError:
            return False
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors


async def _serve_and_watch(app: App, producer: Producer, watcher: _Watcher) -> bool:
    """Serve until everything is processed; False if the daemon was stopped before that."""
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(app.serve())
        watching = group.create_task(watcher.follow(app))
        producing = group.create_task(producer.run())
        await asyncio.wait({producing, serving}, return_when=asyncio.FIRST_COMPLETED)
        producer.stop()  # Ctrl-C ends only the daemon
        await producing
        done = group.create_task(app.finished(producer.n_chunks + 1))  # one for the end marker
        await asyncio.wait({done, serving}, return_when=asyncio.FIRST_COMPLETED)
        is_whole = done.done()
        done.cancel()
        app.stop()
        await serving
        watching.cancel()
    return is_whole
