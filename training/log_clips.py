"""Stretches of a daemon's feature log → feature files and tags, as of any extracted clip.

`s2netd features export` writes a folder; here a camera and ranges of time are picked from it by
the local wall clock. Each range becomes one file, whose rows lie on the grid from the first one
on. A tag says that something happens somewhere in the range, as of a tagged clip.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np

from engine.bundle.model_bundle import ModelBundle
from engine.errors import DataError
from engine.files.feature_export import ExportedPart, exported_cameras, read_export
from engine.grid import US_PER_S, Grid
from training.feature_files import VideoFeatures, claim_folder, manifest_of, write_features
from training.loaders.tags import Tagged, read_tags

_NO_FILE_CHARACTER = re.compile(r"[^\w-]+")
_EXAMPLE = "14:00..14:05, 14:00:30..14:01 or 2026-03-05T14:00..14:05"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A stretch of the local wall clock.

    Attributes:
        day: The day it begins on; None: nobody said.
        start: When it begins.
        length: How long it is, > 0.
    """

    day: date | None
    start: time
    length: timedelta

    def on(self, day: date) -> tuple[int, int]:
        """Start and end in Unix microseconds if it begins on ``day``."""
        first = datetime.combine(day, self.start)
        # The local clock may jump in between, so each end is looked up by itself.
        start_s, end_s = (
            moment.astimezone().timestamp() for moment in (first, first + self.length)
        )
        return round(start_s * US_PER_S), round(end_s * US_PER_S)


def parse_range(text: str) -> TimeRange:
    """``14:00..14:05`` or ``2026-03-05T14:00..14:05``; an end without a date is the next such.

    Raises:
        DataError: It is no range.
    """
    first, _, last = text.partition("..")
    try:
        day, start = _day_and_time(first)
        last_day, end = _day_and_time(last)  # without dots this is empty, and no time
        length = _length(day, start, last_day, end)
    except ValueError as error:
        raise DataError(f"{text!r} is no range of time ({error}), wanted {_EXAMPLE}") from error
    return TimeRange(day, start, length)


def extract_from_log(
    folder: Path,
    camera: str,
    ranges: Sequence[TimeRange],
    bundle: ModelBundle,
    out: Path,
    tags: Sequence[str] | None,
) -> list[tuple[str, float]]:
    """Write a feature file for each range, and its row into ``tags.csv``.

    Args:
        folder: What `s2netd features export` wrote.
        camera: The camera.
        ranges: The ranges.
        bundle: The bundle that made the features.
        out: Folder of the feature files; it is made if it is missing.
        tags: What happens in each range; () if nothing does; None: nobody looked, so no row is
            written and the clip is never trained on.

    Returns:
        Name of each clip, and how many seconds of it there are features of.

    Raises:
        DataError: The export cannot be used, another backbone made it, or it has nothing in a
            range.
        BundleError: ``out`` holds features of another extractor, or cannot be written.
    """
    for tag in tags or ():
        if ";" in tag or not tag.strip():
            raise DataError(f"--tag {tag!r}: wanted a class name without ';'")
    parts = list(read_export(folder, camera))
    if not parts:
        known = ", ".join(exported_cameras(folder))
        raise DataError(f"{folder} holds no camera {camera}, only {known}")
    _check_made_by(parts, folder, bundle)
    grid = bundle.spec.grid
    found = [_clip(parts, one, grid, camera) for one in ranges]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {out}: cannot be made: {error.strerror}") from error
    claim_folder(out, manifest_of(bundle))
    for name, clip in found:
        write_features(clip, out / f"{name}.npz")
    if tags is not None:
        rows = {name: Tagged(tuple(tags), camera, "") for name, _ in found}
        put_tags(out / "tags.csv", rows)
    return [(name, len(clip.indices) * grid.stride_us / US_PER_S) for name, clip in found]


def put_tags(path: Path, rows: dict[str, Tagged]) -> None:
    """Add rows to a table of tags, in place of those of the same name.

    Raises:
        DataError: The table that is there cannot be used.
    """
    known = read_tags(path) if path.exists() else {}
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("video", "tags", "camera", "subset"))
        for name, tagged in {**known, **rows}.items():
            table.writerow((name, tagged.cell, tagged.camera, tagged.subset))
    unfinished.replace(path)


def _clip(
    parts: Sequence[ExportedPart], wanted: TimeRange, grid: Grid, camera: str
) -> tuple[str, VideoFeatures]:
    day = _day_of(parts, wanted, camera)
    start_us, end_us = wanted.on(day)
    indices: list[int] = []
    vectors = []
    for part in parts:
        inside = (part.starts_us >= start_us) & (part.starts_us + grid.snippet_us <= end_us)
        rows = np.flatnonzero(inside)
        if not len(rows):
            continue
        # Within a run the grid is exact; runs are put beside each other by the wall clock.
        first_us = int(part.starts_us[rows[0]]) - start_us
        shift = (2 * first_us + grid.stride_us) // (2 * grid.stride_us) - int(
            part.indices[rows[0]]
        )
        for row in rows:
            index = int(part.indices[row]) + shift
            if not indices or index > indices[-1]:
                indices.append(index)
                vectors.append(part.vectors[row])
    if not indices:
        raise DataError(f"camera {camera}: no whole snippet lies in {_text(start_us, end_us)}")
    clip = VideoFeatures(
        np.stack(vectors).astype(np.float32), np.array(indices, np.int64) - indices[0]
    )
    return _name(camera, start_us, end_us), clip


def _day_of(parts: Sequence[ExportedPart], wanted: TimeRange, camera: str) -> date:
    """The day that is meant: the one that was named, or the only one with features in the range.

    Raises:
        DataError: There is none, or there are several.
    """
    if wanted.day is not None:
        return wanted.day
    days = sorted({_local(int(us)).date() for part in parts for us in _some(part)})
    candidates = sorted({day - timedelta(days=1) for day in days} | set(days))
    held = [day for day in candidates if _holds(parts, *wanted.on(day))]
    if len(held) == 1:
        return held[0]
    if held:
        raise DataError(
            f"camera {camera}: the export has {wanted.start} on {len(held)} days, {held[0]} to "
            f"{held[-1]}: write the date too, such as {held[-1]}T{wanted.start}.."
        )
    first_us = min(int(part.starts_us[0]) for part in parts)
    last_us = max(int(part.starts_us[-1]) for part in parts)
    raise DataError(
        f"camera {camera}: no features from {wanted.start} on for {wanted.length}; the export is "
        f"{_text(first_us, last_us)}"
    )


def _some(part: ExportedPart) -> list[int]:
    """A few moments of each day that a part touches."""
    return [*part.starts_us[::64].tolist(), int(part.starts_us[-1])]


def _holds(parts: Sequence[ExportedPart], start_us: int, end_us: int) -> bool:
    return any(
        bool(((part.starts_us >= start_us) & (part.starts_us < end_us)).any()) for part in parts
    )


def _check_made_by(parts: Sequence[ExportedPart], folder: Path, bundle: ModelBundle) -> None:
    for part in parts:
        if part.feature_id != bundle.feature_id:
            raise DataError(
                f"{folder}: features of run {part.run} were made by backbone and grid "
                f"{part.feature_id[:12]}, bundle {bundle.model_id} has {bundle.feature_id[:12]}: "
                "name the bundle that the daemon ran with --bundle"
            )


def _day_and_time(text: str) -> tuple[date | None, time]:
    if "T" not in text:
        return None, _plain(time.fromisoformat(text.strip()))
    moment = datetime.fromisoformat(text.strip())
    return moment.date(), _plain(moment.timetz())


def _plain(of_day: time) -> time:
    if of_day.tzinfo is not None:
        raise ValueError("a time zone; times are those of the local clock")
    return of_day


def _length(day: date | None, start: time, last_day: date | None, end: time) -> timedelta:
    if day is None and last_day is not None:
        raise ValueError("a date only at its end")
    first = datetime.combine(day or date(2000, 1, 1), start)
    last = datetime.combine(last_day or first.date(), end)
    if last_day is None and last <= first:
        last += timedelta(days=1)
    if last <= first:
        raise ValueError("it ends before it begins")
    return last - first


def _local(moment_us: int) -> datetime:
    return datetime.fromtimestamp(moment_us / US_PER_S).astimezone()


def _text(start_us: int, end_us: int) -> str:
    return f"{_local(start_us):%Y-%m-%d %H:%M:%S} to {_local(end_us):%Y-%m-%d %H:%M:%S}"


def _name(camera: str, start_us: int, end_us: int) -> str:
    stem = _NO_FILE_CHARACTER.sub("_", camera)[:100] or "camera"
    return f"{stem}-{_local(start_us):%Y%m%dT%H%M%S}-{_local(end_us):%H%M%S}"
