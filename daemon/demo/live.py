"""The demo's middle: a clip through the real daemon, its events told beside what happens.

A producer cuts the clip into a folder of chunks as a camera would deliver them; the daemon, in the
same process but over the same files as any other, turns them into events.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from daemon.app import App, first_of
from daemon.compose import composed
from daemon.config import Config, ModelConfig, parse
from daemon.demo.scene import Clip
from daemon.localize import clock_text
from daemon.logs import set_up
from daemon.produce.producer import ProduceOptions, Producer
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
    """A moment at which something starts or ends."""

    time_us: int
    words: str


class Narrator:
    """Tells what happens and what is reported, in order of stream time.

    Args:
        console: Where lines go; a quiet one swallows them.
        truth: What happens; None if nobody knows.
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
        """Footage up to here has been processed."""
        while self._untold and self._untold[0].time_us <= time_us:
            told = self._untold.pop(0)
            self._line(clock_text(told.time_us), told.words, "")

    def tell(self, revision: ActionEvent) -> None:
        """One revision, after everything that had happened by then."""
        self.reach(revision.decided_us)
        sign = _SIGNS.get(revision.phase)
        if sign is None:
            return
        span = f"{clock_text(revision.span.start_us)}-{clock_text(revision.span.end_us)}"
        name = escape(revision.class_name)
        words = f"{sign} [bold]{name}[/] {span}  score {revision.score:.2f}"
        self._line(clock_text(revision.decided_us), "", words)

    def finish(self) -> None:
        """Tell the rest."""
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
    """Produce and consume at the same time, until the end marker is processed.

    Args:
        clip: What the camera sees.
        model: What watches it.
        out: Folder for chunks, events, state and log.
        console: Where the producer's notes go.
        narrator: Told every revision as it comes.
        realtime: At the clip's own pace, not as fast as it goes.

    Returns:
        Every revision.

    Raises:
        S2netdError: Anything a user can mend, in one line.
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
    # A bar that is redrawn belongs on a terminal, not in a file of lines.
    producer = Producer(options, console if console.is_terminal else Console(stderr=True))
    watcher = _Watcher(out / "events.jsonl", narrator)
    if not asyncio.run(_stream(producer, _config(model, out), out / "daemon.log", watcher)):
        raise KeyboardInterrupt
    watcher.read()
    narrator.finish()
    return watcher.revisions


class _Watcher:
    """Reads the daemon's event file as a subscriber would."""

    def __init__(self, path: Path, narrator: Narrator) -> None:
        self._path = path
        self._narrator = narrator
        self.revisions: list[ActionEvent] = []

    def read(self) -> None:
        """Tell what is new; a line that is not whole yet waits."""
        if not self._path.exists():
            return
        lines = self._path.read_bytes().split(b"\n")[:-1]
        for line in lines[len(self.revisions) :]:
            revision = parse_event(line)
            self.revisions.append(revision)
            self._narrator.tell(revision)

    async def follow(self, app: App) -> None:
        """Until cancelled."""
        while True:
            n_done = app.progress.n_done  # read first: their events are in the file by now
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
            "drain_timeout_s": 3,  # Ctrl-C must not take long
        },
        "demo",
    )


async def _stream(producer: Producer, config: Config, log: Path, watcher: _Watcher) -> bool:
    with log.open("w", encoding="utf-8") as log_file:
        async with composed(config, set_up("json", "info", log_file)) as app:
            try:
                return await _serve_and_watch(app, producer, watcher)
            except BaseExceptionGroup as errors:
                raise first_of(errors) from errors


async def _serve_and_watch(app: App, producer: Producer, watcher: _Watcher) -> bool:
    """True once everything is processed, False if the daemon was stopped before."""
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(app.serve())
        watching = group.create_task(watcher.follow(app))
        producing = group.create_task(producer.run())
        await asyncio.wait({producing, serving}, return_when=asyncio.FIRST_COMPLETED)
        producer.stop()  # Ctrl-C ends the daemon first
        await producing
        done = group.create_task(app.finished(producer.n_chunks + 1))  # and the end marker
        await asyncio.wait({done, serving}, return_when=asyncio.FIRST_COMPLETED)
        is_whole = done.done()
        done.cancel()
        app.stop()
        await serving
        watching.cancel()
    return is_whole
