"""What a person says happens in each video: ``tags.csv`` or a YAML manifest.

The table has the header ``video,tags`` and optionally ``camera`` and ``subset``. Tags are
separated by ``;``, and an empty cell says that nothing happens. A tag may have a click,
``fall@3.2`` or ``fall@1:03.2``: one moment at which it happens. The manifest is
``videos: {name: {tags: [...], camera: ...}}`` or ``videos: [{video: name, tags: [...]}]``.
A video may be written with its folder and ending, but only its stem counts, as in feature files.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DataError
from engine.files.strict_yaml import read_plain
from training.loaders.files import read_text, suggestion

_REQUIRED = ("video", "tags")
_COLUMNS = (*_REQUIRED, "camera", "subset")
_MAX_VALUES = 10_000_000  # of a manifest: more than a million videos
_YAML_SUFFIXES = (".yaml", ".yml")
# Only these are cut off: a video called `door.2` without an ending keeps its number.
_VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg"),
        *(".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".npy", ".npz", ".ogv", ".ts"),
        *(".webm", ".wmv"),
    }
)

# [[h:]m:]s
_CLICK = re.compile(r"(?:(?:(\d{1,3}):)?(\d{1,2}):)?(\d{1,7}(?:\.\d{1,9})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tagged:
    """One video's row.

    Attributes:
        tags: Class names, each once; () if nothing happens in the video.
        camera: Its camera; "" if not said.
        subset: The subset it belongs to; "" if not said.
        clicks: Class names and seconds, by time.
    """

    tags: tuple[str, ...]
    camera: str
    subset: str
    clicks: tuple[tuple[str, float], ...] = ()

    @property
    def cell(self) -> str:
        """What column ``tags`` says of it."""
        clicked = {name for name, _seconds in self.clicks}
        plain = [name for name in self.tags if name not in clicked]
        return ";".join([*plain, *(f"{name}@{seconds:.9f}" for name, seconds in self.clicks)])


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    cells: Mapping[str, object]


def read_tags(path: Path) -> dict[str, Tagged]:
    """Read every video's tags by its stem, in the file's order.

    Raises:
        DataError: The file, or a row of it, cannot be used; the message says which and why.
    """
    yaml_form = path.suffix.lower() in _YAML_SUFFIXES
    rows = _yaml_rows(path) if yaml_form else _table_rows(path)
    found: dict[str, Tagged] = {}
    for row in rows:
        stem, tagged = _tagged(row)
        if stem in found:
            raise DataError(
                f"{row.place}: {stem!r} was listed before: keep one row a video, with all its tags"
            )
        found[stem] = tagged
    if not found:
        raise DataError(f"{path} lists no video: add one row a video, such as door_1.mp4,open")
    return found


def video_stem(video: str) -> str:
    """Return the stem that a video's feature file has: no folder, no ending of a video."""
    name = video.strip().replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, ending = name.rpartition(".")
    return stem if stem and (dot + ending).lower() in _VIDEO_SUFFIXES else name


def _table_rows(path: Path) -> Iterator[_Row]:
    table = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        _check_columns(path, [name.strip() for name in table.fieldnames or ()])
        table.fieldnames = [name.strip() for name in table.fieldnames or ()]
        for cells in table:
            place = f"{path}, line {table.line_num}"
            if None in cells:
                raise DataError(
                    f"{place}: has {len(table.fieldnames) + len(cells[None])} columns, wanted "
                    f"{len(table.fieldnames)}: separate tags by ';', not by ','"
                )
            if any(value and value.strip() for value in cells.values()):
                yield _Row(place, cells)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {table.line_num}: is not CSV ({error}): close every quotation mark"
        ) from error


def _check_columns(path: Path, columns: list[str]) -> None:
    for name in columns:
        if name not in _COLUMNS:
            raise DataError(
                f"{path}: column {name!r} is unknown: {suggestion(name, _COLUMNS)} "
                "(the header is video,tags and optionally camera,subset, with commas)"
            )
    for name in _REQUIRED:
        if name not in columns:
            raise DataError(f"{path}: column {name!r} is missing: begin with the line video,tags")
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: a column of {columns} is there twice: remove one")


def _yaml_rows(path: Path) -> Iterator[_Row]:
    try:
        content = read_plain(read_text(path), _MAX_VALUES)
    except ValueError as error:
        raise DataError(f"{path} {error}") from error
    videos = content.get("videos") if isinstance(content, dict) else None
    if isinstance(videos, dict):
        for name, cells in videos.items():
            given = cells if isinstance(cells, dict) else {"tags": cells}
            yield _yaml_row(f"{path}, {name}", {"video": name, **given})
    elif isinstance(videos, list):
        for index, cells in enumerate(videos):
            yield _yaml_row(f"{path}, videos[{index}]", cells)
    else:
        raise DataError(
            f"{path}: has no mapping or list 'videos': write videos: {{door_1: {{tags: [open]}}}}"
        )


def _yaml_row(place: str, cells: object) -> _Row:
    if not isinstance(cells, dict):
        raise DataError(f"{place}: is {cells!r:.80}, wanted video, tags and optionally camera")
    for key in cells:
        if key not in _COLUMNS:
            raise DataError(f"{place}: key {key!r} is unknown: {suggestion(str(key), _COLUMNS)}")
    if "tags" not in cells:
        raise DataError(f"{place}: has no tags: write tags: [] if nothing happens in it")
    return _Row(place, cells)


def _tagged(row: _Row) -> tuple[str, Tagged]:
    stem = video_stem(_text(row, "video"))
    if not stem:
        raise DataError(f"{row.place}: names no video: write its file name in column 'video'")
    tags = row.cells.get("tags")
    listed = tags if isinstance(tags, list) else _text(row, "tags").split(";")
    for tag in listed:
        if not isinstance(tag, str):
            raise DataError(f"{row.place}: tag {tag!r} is no text: put it in quotation marks")
    given = [_clicked(row.place, tag) for tag in listed if tag.strip()]
    names = tuple(dict.fromkeys(name for name, _seconds in given))
    clicks = {(name, seconds) for name, seconds in given if seconds is not None}
    by_time = tuple(sorted(clicks, key=lambda click: (click[1], click[0])))
    return stem, Tagged(names, _text(row, "camera").strip(), _text(row, "subset").strip(), by_time)


def _clicked(place: str, tag: str) -> tuple[str, float | None]:
    """Split ``fall@3.2`` into its class and its seconds; None without a click."""
    name, at, when = (part.strip() for part in tag.rpartition("@"))
    if not at:
        return when, None
    parts = _CLICK.fullmatch(when)
    if not name or parts is None:
        raise DataError(
            f"{place}: tag {tag.strip()!r:.80} is no class and moment: write fall@3.2 or "
            "fall@1:03.2 for a click, and no @ in the name of a class"
        )
    hours, minutes, seconds = parts.groups(default="0")
    return name, int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _text(row: _Row, column: str) -> str:
    value = row.cells.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{row.place}: {column} is {value!r:.80}, wanted text: put it in quotation marks"
        )
    return value
