"""Annotations with times, in ActivityNet's JSON form, whoever wrote them.

``{"classes": [...], "database": {STEM: {"subset": ..., "duration": s, "camera": ...,
"annotations": [{"segment": [s, e], "label": ...}]}}}``; ``classes``, ``duration`` and ``camera``
may be left out. An entry without ``annotations`` was not looked at; an empty list says that
nothing happens.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.errors import DataError
from engine.grid import US_PER_S
from engine.judging.truth import TruthSpan
from engine.types import Span
from training.loaders.files import few, read_json, suggestion

PastEnd = Literal["clip", "drop", "keep", "refuse"]
OnNote = Callable[[str], None]
_MAX_S = 10_000_000.0  # four months; anything longer is milliseconds


@dataclass(frozen=True, slots=True)
class AnnotatedVideo:
    """One video's entry.

    Attributes:
        name: The stem of the video's file name.
        subset: The subset it belongs to; "" if the file does not say.
        camera: Its camera; "" if the file does not say.
        duration_us: Its length in microseconds; None if the file does not say.
        tags: Class indices, rising; () if nothing happens in it, None if nobody looked.
        truth: Intervals in the order of their start; None if nobody looked.
    """

    name: str
    subset: str
    camera: str
    duration_us: int | None
    tags: tuple[int, ...] | None
    truth: tuple[TruthSpan[int], ...] | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """Every video of one annotation file; class indices and tags refer to ``class_names``."""

    class_names: tuple[str, ...]
    videos: tuple[AnnotatedVideo, ...]

    def of(self, subset: str | Sequence[str] | None, where: Path) -> tuple[AnnotatedVideo, ...]:
        """Return the videos of one subset or of several, or all if ``subset`` is None.

        Raises:
            DataError: There is no such subset in the file ``where``.
        """
        if subset is None:
            return self.videos
        wanted = (subset,) if isinstance(subset, str) else tuple(subset)
        known = {video.subset: None for video in self.videos}
        for name in wanted:
            if name not in known:
                raise DataError(f"{where} has no subset {name!r}: {suggestion(name, known)}")
        return tuple(video for video in self.videos if video.subset in wanted)


def no_note(_line: str) -> None:
    """Ignore a note."""


def read_annotations(
    path: Path,
    classes: Sequence[str] | None = None,
    *,
    empty_intervals: Literal["refuse", "drop"] = "refuse",
    on_note: OnNote = no_note,
) -> Annotations:
    """Read a file as it is; intervals past a video's end are still there, see `cut_to_length`.

    Args:
        path: The JSON file.
        classes: The class list to use. None takes the file's list or, if it has none, its labels,
            sorted.
        empty_intervals: What to do with an interval that does not end after it starts;
            ActivityNet has a few.
        on_note: Gets one line on what was left out.

    Raises:
        DataError: The file cannot be used; the message names the video and the value.
    """
    return parse_annotations(
        read_json(path), path, classes, empty_intervals=empty_intervals, on_note=on_note
    )


def parse_annotations(
    content: Mapping[str, object],
    path: Path,
    classes: Sequence[str] | None = None,
    *,
    empty_intervals: Literal["refuse", "drop"] = "refuse",
    on_note: OnNote = no_note,
) -> Annotations:
    """Do as `read_annotations` with what the file ``path`` held.

    Raises:
        DataError: The content cannot be used; the message names the video and the value.
    """
    database = content.get("database")
    if not isinstance(database, dict) or not database:
        raise DataError(f"{path} has no videos under 'database': export it in ActivityNet's form")
    return _Reader(path, empty_intervals).read(database, content.get("classes"), classes, on_note)


class _Reader:
    """It reads one database, and knows what its error messages must name."""

    def __init__(self, path: Path, empty_intervals: str) -> None:
        self._path = path
        self._drops_empty = empty_intervals == "drop"
        self._n_empty = 0

    def read(
        self,
        database: Mapping[str, object],
        listed: object,
        classes: Sequence[str] | None,
        on_note: OnNote,
    ) -> Annotations:
        entries = {name: self._entry(name, entry) for name, entry in database.items()}
        labelled = {name: self._segments(name, entry) for name, entry in entries.items()}
        labels = {label for found in labelled.values() for label, _span in found or ()}
        names = self._class_names(listed, classes, labels)
        numbers = {name: index for index, name in enumerate(names)}
        videos = []
        for name, entry in entries.items():
            found = labelled[name]
            for label, _span in found or ():
                if label not in numbers:
                    raise DataError(
                        f"{self._path}, {name}: label {label!r} is no class of the list: "
                        f"{suggestion(label, numbers)}"
                    )
            videos.append(self._video(name, entry, numbers, found))
        if self._n_empty:
            on_note(f"{self._path}: left out {self._n_empty} intervals of no length")
        return Annotations(names, tuple(videos))

    def _class_names(
        self, listed: object, classes: Sequence[str] | None, labels: set[str]
    ) -> tuple[str, ...]:
        if classes is not None:
            return unique_classes(classes)
        if listed is None:
            return tuple(sorted(labels))
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DataError(f"{self._path}: classes is {listed!r:.80}, wanted a list of names")
        return unique_classes(listed)

    def _entry(self, name: str, entry: object) -> dict[str, object]:
        if not isinstance(entry, dict):
            raise DataError(f"{self._path}, {name}: is {entry!r:.80}, wanted an object in braces")
        return entry

    def _segments(
        self, name: str, entry: Mapping[str, object]
    ) -> list[tuple[str, Span | None]] | None:
        listed = entry.get("annotations")
        if listed is None:
            return None
        if not isinstance(listed, list):
            raise DataError(
                f"{self._path}, {name}: annotations is {listed!r:.80}, wanted a list; "
                "[] if nothing happens in it"
            )
        return [self._segment(name, annotation) for annotation in listed]

    def _segment(self, name: str, annotation: object) -> tuple[str, Span | None]:
        given = annotation if isinstance(annotation, dict) else {}
        label, segment = given.get("label"), given.get("segment")
        if not isinstance(label, str) or not isinstance(segment, list) or len(segment) != 2:  # noqa: PLR2004 - start and end
            raise DataError(
                f"{self._path}, {name}: annotation {annotation!r:.120} is not "
                '{"segment": [start, end], "label": name}: correct it'
            )
        start_us, end_us = (self._time_us(name, "segment", value) for value in segment)
        if end_us > start_us:
            return label, Span(start_us, end_us)
        if not self._drops_empty:
            raise DataError(
                f"{self._path}, {name}: segment {segment} of {label} does not end after it "
                "starts: swap or remove its times"
            )
        self._n_empty += 1
        return label, None

    def _video(
        self,
        name: str,
        entry: Mapping[str, object],
        numbers: Mapping[str, int],
        found: list[tuple[str, Span | None]] | None,
    ) -> AnnotatedVideo:
        duration_us = None
        if entry.get("duration") is not None:
            duration_us = self._time_us(name, "duration", entry["duration"])
            if duration_us <= 0:
                raise DataError(
                    f"{self._path}, {name}: duration is {entry['duration']!r}, wanted seconds > 0"
                )
        spans = [TruthSpan(numbers[label], span) for label, span in found or () if span]
        tags = tuple(sorted({numbers[label] for label, _span in found or ()}))
        return AnnotatedVideo(
            name,
            self._text(name, entry, "subset"),
            self._text(name, entry, "camera"),
            duration_us,
            None if found is None else tags,
            None if found is None else in_order(spans),
        )

    def _text(self, name: str, entry: Mapping[str, object], key: str) -> str:
        value = entry.get(key, "")
        if not isinstance(value, str):
            raise DataError(f"{self._path}, {name}: {key} is {value!r:.80}, wanted text")
        return value

    def _time_us(self, name: str, key: str, value: object) -> int:
        """Read seconds; they may be written as text, as in THUMOS14's usual gt.json."""
        try:
            seconds = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            seconds = math.nan
        if not abs(seconds) <= _MAX_S:
            raise DataError(f"{self._path}, {name}: {key} is {value!r:.80}, wanted seconds")
        return seconds_to_us(seconds)


def seconds_to_us(seconds: float) -> int:
    """Round seconds to the nearest microsecond."""
    return round(seconds * US_PER_S)


def in_order(spans: Sequence[TruthSpan[int]]) -> tuple[TruthSpan[int], ...]:
    """By start, end and label, whatever order somebody noted them in."""
    return tuple(sorted(spans, key=lambda truth: (truth.span, truth.class_id)))


def unique_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return a class list in which no class repeats.

    Raises:
        DataError: A class is there twice, or there is none.
    """
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        problem = (
            f"names {twice[0]!r} twice: remove one" if twice else "is empty: name one or more"
        )
        raise DataError(f"the class list {problem}")
    return tuple(classes)


def cut_to_length(
    videos: Sequence[AnnotatedVideo], past_end: PastEnd, where: Path, on_note: OnNote
) -> tuple[AnnotatedVideo, ...]:
    """Deal with intervals that begin before or end after their video.

    ``clip`` keeps the part that lies inside, ``drop`` keeps only intervals that lie inside as a
    whole, ``keep`` keeps all, ``refuse`` raises. Tags stay, because they were given for the video
    as a whole. No interval reaches past a video of unknown length.

    Raises:
        DataError: ``past_end`` is ``refuse``, and there is such an interval.
    """
    n_outside: Counter[str] = Counter()
    cut = []
    for video in videos:
        kept: list[TruthSpan[int]] = []
        for truth in video.truth or ():
            inside = _inside(truth, video.duration_us)
            if inside != truth:
                n_outside[video.name] += 1
                if past_end == "refuse":
                    raise _outside(where, video, truth)
            if past_end == "keep" or inside == truth:
                kept.append(truth)
            elif past_end == "clip" and inside is not None:
                kept.append(inside)
        cut.append(video if video.truth is None else replace(video, truth=tuple(kept)))
    if n_outside:
        done = {"clip": "cut to the video", "drop": "left out", "keep": "kept"}[past_end]
        on_note(
            f"{where}: {n_outside.total()} intervals of {len(n_outside)} videos reach past their "
            f"video and were {done}: {few(n_outside)}"
        )
    return tuple(cut)


def _inside(truth: TruthSpan[int], duration_us: int | None) -> TruthSpan[int] | None:
    end_us = truth.span.end_us if duration_us is None else min(truth.span.end_us, duration_us)
    start_us = max(truth.span.start_us, 0)
    return TruthSpan(truth.class_id, Span(start_us, end_us)) if end_us > start_us else None


def _outside(where: Path, video: AnnotatedVideo, truth: TruthSpan[int]) -> DataError:
    start_s, end_s = truth.span.start_us / US_PER_S, truth.span.end_us / US_PER_S
    length_s = (video.duration_us or 0) / US_PER_S
    return DataError(
        f"{where}, {video.name}: segment [{start_s}, {end_s}] lies outside the video of "
        f"{length_s} s: correct it, or choose clip or drop"
    )
