"""`s2netd localize`: video files → events.jsonl, a timeline page for each, and a table."""

import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from daemon.localized_video import (
    LocalizedVideo,
    facts_of,
    localize_video,
    nearest_to_an_event,
    timeline_of,
)
from daemon.models.reading import OpenModel
from daemon.outputs import write_whole, writing_to
from daemon.timeline.nearest import lacked_briefly
from daemon.wire.records import event_line
from engine.errors import S2netdError, StreamError, UnreadableVideoError
from engine.types import ActionEvent
from engine.video.folders import VIDEO_SUFFIXES, videos_below
from engine.video.losses import Losses

MAX_NAME = 100


class ProgressBar:
    """One bar for all videos, in stream time, though their lengths are only guesses.

    Args:
        progress: Shows it.
        durations_us: Guessed lengths of the videos, in order; 0: not known.
    """

    def __init__(self, progress: Progress, durations_us: Sequence[int]) -> None:
        self._progress = progress
        self._rest = deque(durations_us)
        self._n_videos = len(durations_us)
        self._done_us = 0
        self._now_us = 0
        self._started_s = time.perf_counter()
        self._task = progress.add_task("", total=sum(durations_us) or None, speed="")

    def begin(self, name: str) -> None:
        """The next video begins."""
        number = self._n_videos - len(self._rest) + 1
        of = f"{number}/{self._n_videos} " if self._n_videos > 1 else ""
        self._progress.update(self._task, description=f"{of}{name}")

    def at(self, time_us: int) -> None:
        """So far the video is done."""
        self._now_us = time_us
        reached_us = self._done_us + time_us
        this_us, *later_us = self._rest or (0,)
        total_us = self._done_us + max(this_us, time_us) + sum(later_us)
        spent_s = time.perf_counter() - self._started_s
        self._progress.update(
            self._task,
            completed=reached_us,
            total=total_us or None,
            speed=f"{reached_us / 1e6 / max(spent_s, 1e-9):.1f}x real time",
        )

    def end(self) -> None:
        """The video is done, or will not be."""
        self._rest.popleft()
        self._done_us += self._now_us
        self.at(0)


@dataclass(frozen=True, slots=True)
class DoneVideo:
    """What is told of one video in the end.

    Attributes:
        name: The video's, short and printable.
        events: Those that stand, by start.
        quiet: Why there are none; empty if there are some.
        lacked: How much the nearest stood out, and what an event needs.
        losses: What was left out of it.
    """

    name: str
    events: tuple[ActionEvent, ...]
    quiet: str = ""
    lacked: str = ""
    losses: Losses = field(default_factory=Losses)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all videos.

    Attributes:
        done: Those that were localized.
        failed: Why each of the others was not.
    """

    done: tuple[DoneVideo, ...]
    failed: tuple[S2netdError, ...]


def localize_videos(
    paths: Sequence[Path], model: OpenModel, out: Path, site: str, console: Console
) -> Outcome:
    """Localize files one after another; write ``events.jsonl`` and ``<camera>.html`` to ``out``.

    A video that cannot be read does not end the others. However the run ends, ``events.jsonl``
    has all events of the videos that were done, and no others. If none was, it stays as it is.

    Raises:
        ConfigError, TransportError: ``out`` cannot be written.
        DeviceError: The backend failed.
    """
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
    done: list[DoneVideo] = []
    failed: list[S2netdError] = []
    lines: list[bytes] = []
    with _progress(console) as progress:
        # Nobody sees the bar of a job without a terminal: no file is opened once more for it.
        durations_us = [0 if progress.disable else _duration_us(path) for path in paths]
        bar = ProgressBar(progress, durations_us)
        try:
            for path, camera in zip(paths, camera_names(paths), strict=True):
                bar.begin(camera)
                try:
                    video = localize_video(path, camera, model, bar.at)
                except (UnreadableVideoError, StreamError) as error:
                    failed.append(error)
                else:
                    write_whole(out / f"{camera}.html", timeline_of(video, model).encode())
                    lines += [event_line(one, site=site) for one in video.result.revisions]
                    done.append(replace(_told(video, model), losses=video.losses))
                bar.end()
        finally:
            if done:
                write_whole(out / "events.jsonl", b"".join(line + b"\n" for line in lines))
    return Outcome(tuple(done), tuple(failed))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _duration_us(path: Path) -> int:
    """A guess; 0 if there is none, for what is wrong with the file is told when its turn comes."""
    try:
        return facts_of(path).duration_us or 0
    except UnreadableVideoError:
        return 0


def _told(video: LocalizedVideo, model: OpenModel) -> DoneVideo:
    name = video.camera + video.path.suffix
    events = video.result.final
    if events:
        return DoneVideo(name, events)
    near = nearest_to_an_event(video, model)
    if near is None:
        return DoneVideo(name, (), "shorter than one snippet: nothing to score")
    lacked = lacked_briefly(near)
    quiet = f"no event; nearest: {near.class_name}" if lacked else "no event; nothing stood out"
    return DoneVideo(name, (), quiet, lacked)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does, so that what is done is written."""

    def end(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def not_localized(outcome: Outcome) -> UnreadableVideoError:
    """One error for all videos that failed, each with its reason."""
    reasons = [str(error) for error in outcome.failed]
    if len(reasons) == 1:
        return UnreadableVideoError(reasons[0])
    n_videos = len(outcome.done) + len(reasons)
    head = f"{len(reasons)} of {n_videos} videos were not localized:"
    return UnreadableVideoError("\n  ".join((head, *reasons)))


def lost_footage(outcome: Outcome) -> dict[str, Losses]:
    """Of which videos something was left out, and what."""
    return {video.name: video.losses for video in outcome.done if video.losses.told}


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and all videos of the folders that are, each once.

    Raises:
        UnreadableVideoError: A folder holds no video.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = videos_below(path)
        if not found:
            looked_for = " ".join(sorted(VIDEO_SUFFIXES))
            raise UnreadableVideoError(
                f"{path}: Is a directory without video files; looked for {looked_for}"
            )
        files += found
    return list(dict.fromkeys(files))


def camera_names(paths: Sequence[Path]) -> list[str]:
    """The files' stems, numbered if two are equal; short and printable, for they name files."""
    stems = ["".join(c if c.isprintable() else "?" for c in p.stem)[:MAX_NAME] for p in paths]
    names: list[str] = []
    for stem in stems:
        name, number = stem, 1
        while name in names or (number > 1 and name in stems):
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def summary_table(outcome: Outcome) -> Table:
    """A table with a row for every final event."""
    table = Table(title="Action events", title_justify="left")
    table.add_column("video", overflow="fold", min_width=12)
    table.add_column("action", overflow="fold", min_width=14)
    for column in ("start", "end", "length", "score", "revisions"):
        table.add_column(column, justify="right", no_wrap=True)
    for video in outcome.done:
        for event in video.events:
            table.add_row(escape(video.name), escape(event.class_name), *_numbers(event))
        if not video.events:
            quiet, lacked = (f"[dim]{escape(one)}[/dim]" for one in (video.quiet, video.lacked))
            table.add_row(escape(video.name), quiet, "", "", "", lacked, "")
    return table


def _numbers(event: ActionEvent) -> tuple[str, ...]:
    return (
        clock_text(event.span.start_us),
        clock_text(event.span.end_us),
        f"{event.span.duration_us / 1e6:.1f} s",
        f"{event.score:.2f}",
        str(event.revision),
    )


def clock_text(time_us: int) -> str:
    """``m:ss.t``, as people read a player's clock."""
    minutes, tenths = divmod(round(time_us / 100_000), 600)
    return f"{minutes}:{tenths // 10:02d}.{tenths % 10}"
