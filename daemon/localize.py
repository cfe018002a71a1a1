"""`s2netd localize`: video files → events.jsonl, a timeline page for each, and a table."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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

from daemon.errors import ConfigError
from daemon.models.reading import OpenModel
from daemon.timeline.page import CurveSet, Mistakes, Thumbnail, render_timeline
from daemon.wire.records import event_line
from engine.judging.truth import TruthSpan
from engine.session import StreamSession
from engine.straight_line import Localization, localize_frames
from engine.types import ActionEvent, FrameBatch
from engine.video.frames import probe_video, read_video
from engine.video.pixels import encode_jpeg

N_THUMBNAILS = 12
# A file has no producer run; its events still need one name for their stream time.
FILE_RUN = "file"
MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class LocalizedVideo:
    """What was found in one file.

    Attributes:
        path: The video.
        camera: Name of the camera in its events.
        result: Revisions of events, and score curves.
        duration_us: Stream time of the last frame, in microseconds.
        spent_s: Seconds that it took.
        thumbnails: A few frames, in order of time.
    """

    path: Path
    camera: str
    result: Localization
    duration_us: int
    spent_s: float
    thumbnails: tuple[Thumbnail, ...]

    @property
    def real_time_factor(self) -> float:
        """Seconds of video a second of work; above 1 is faster than a camera."""
        return self.duration_us / 1e6 / max(self.spent_s, 1e-9)


class _ThumbnailTaker:
    """Keeps about ``N_THUMBNAILS`` evenly spaced frames, though the length is only a guess."""

    def __init__(self, duration_us: int | None) -> None:
        self._every_us = max((duration_us or 60_000_000) // N_THUMBNAILS, 1)
        self._next_us = 0
        self.taken: list[Thumbnail] = []

    def watch(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        """Pass batches through, keeping a frame now and then."""
        for batch in batches:
            for pts_us, rgb in zip(batch.pts_us.tolist(), batch.rgb, strict=True):
                if pts_us >= self._next_us:
                    self.taken.append(Thumbnail(pts_us, encode_jpeg(rgb)))
                    self._next_us = pts_us + self._every_us
            yield batch


def localize_video(
    path: Path, camera: str, model: OpenModel, progress: Progress | None = None
) -> LocalizedVideo:
    """Run every stage over one file.

    Raises:
        UnreadableVideoError: It cannot be opened or holds no video.
        DeviceError: The backend failed.
    """
    facts = probe_video(path)
    thumbnails = _ThumbnailTaker(facts.duration_us)
    task = progress.add_task(camera, total=facts.duration_us, speed="") if progress else None
    started_s = time.perf_counter()
    last_us = 0

    def on_progress(time_us: int, _records: list[ActionEvent]) -> None:
        nonlocal last_us
        last_us = time_us
        if progress is not None and task is not None:
            speed = time_us / 1e6 / (time.perf_counter() - started_s)
            progress.update(task, completed=time_us, speed=f"{speed:.1f}x real time")

    batches = thumbnails.watch(read_video(path, model.spec.geometry, model.spec.grid))
    session = StreamSession(camera, FILE_RUN, model.spec, model.class_indices)
    result = localize_frames(batches, session, model.extractor, model.localizer, on_progress)
    if progress is not None and task is not None:
        progress.update(task, total=last_us, completed=last_us)
    spent_s = time.perf_counter() - started_s
    return LocalizedVideo(path, camera, result, last_us, spent_s, tuple(thumbnails.taken))


def localize_videos(
    paths: Sequence[Path], model: OpenModel, out: Path, site: str, console: Console
) -> list[LocalizedVideo]:
    """Localize files one after another; write ``events.jsonl`` and ``<camera>.html`` to ``out``.

    Raises:
        UnreadableVideoError: A file cannot be read; those before it have been written.
        DeviceError: The backend failed.
    """
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
    videos = []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with (
        (out / "events.jsonl").open("wb") as lines,
        Progress(*columns, console=console) as progress,
    ):
        for path, camera in zip(paths, camera_names(paths), strict=True):
            video = localize_video(path, camera, model, progress)
            for revision in video.result.revisions:
                lines.write(event_line(revision, site=site) + b"\n")
            page = timeline_of(video, model)
            (out / f"{camera}.html").write_text(page, encoding="utf-8")
            videos.append(video)
    return videos


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Report what the file system refuses as the user's mistake.

    Raises:
        ConfigError: ``out`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error


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


def timeline_of(
    video: LocalizedVideo,
    model: OpenModel,
    *,
    title: str | None = None,
    events: Sequence[ActionEvent] | None = None,
    truth: Sequence[TruthSpan[str]] = (),
    mistakes: Mistakes | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The HTML page of one video.

    Args:
        video: The curves and pictures to draw.
        model: The model that made the curves.
        title: The page's title; None: the file's name.
        events: Revisions of the events to draw; None: those of ``video``.
        truth: What is known to have happened.
        mistakes: Which events and truth to mark as false or missed.
        notes: More facts for the page's head.
    """
    spec, result = model.spec, video.result
    centres_us = result.indices * spec.grid.stride_us + spec.grid.snippet_us // 2
    shown = (
        sorted(model.class_indices) if model.class_indices else list(range(len(spec.class_names)))
    )
    names = tuple(spec.class_names[index] for index in shown)
    curves = CurveSet(
        times_us=centres_us,
        scores=result.scores[:, shown],
        class_names=names,
        breaks=tuple((np.flatnonzero(np.diff(result.indices) > 1) + 1).tolist()),
        attention=result.attention,
    )
    return render_timeline(
        title=video.path.name if title is None else title,
        subtitle=model.description,
        duration_us=max(video.duration_us, 1),
        events=result.revisions if events is None else events,
        curves=curves,
        thumbnails=video.thumbnails,
        truth=truth,
        mistakes=mistakes,
        open_score=spec.tracker.open_score,
        class_open_scores={
            name: spec.tracker.open_score_of(index)
            for name, index in zip(names, shown, strict=True)
        },
        notes=(
            f"{result.n_frames} frames, {len(result.indices)} snippets",
            f"localized at {video.real_time_factor:.1f}x real time",
            *notes,
        ),
    )


def summary_table(videos: Sequence[LocalizedVideo]) -> Table:
    """A table with a row for every final event."""
    table = Table(title="Action events", title_justify="left")
    table.add_column("video", overflow="fold", min_width=12)
    table.add_column("action", overflow="fold", min_width=14)
    for column in ("start", "end", "length", "score", "revisions"):
        table.add_column(column, justify="right", no_wrap=True)
    for video in videos:
        for event in video.result.final:
            table.add_row(_shown(video), escape(event.class_name), *_numbers(event))
        if not video.result.final:
            table.add_row(_shown(video), f"[dim]{_quiet(video)}[/dim]", *[""] * 5)
    return table


def _shown(video: LocalizedVideo) -> str:
    return escape(video.camera + video.path.suffix)


def _numbers(event: ActionEvent) -> tuple[str, ...]:
    return (
        clock_text(event.span.start_us),
        clock_text(event.span.end_us),
        f"{event.span.duration_us / 1e6:.1f} s",
        f"{event.score:.2f}",
        str(event.revision),
    )


def _quiet(video: LocalizedVideo) -> str:
    if not len(video.result.scores):
        return "shorter than one snippet: nothing to score"
    return f"no events; curves peak at {video.result.scores.max():.2f}"


def clock_text(time_us: int) -> str:
    """``m:ss.t``, as people read a player's clock."""
    minutes, tenths = divmod(round(time_us / 100_000), 600)
    return f"{minutes}:{tenths // 10:02d}.{tenths % 10}"
