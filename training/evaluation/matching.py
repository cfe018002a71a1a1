"""Detections and annotated actions as tables, and which belongs to which. Exact, vectorised.

A table is a set of columns: row i is one action or one detection. Times are integer microseconds;
tIoU has no ``+ 1``. C classes, N detections, G annotated actions, P pairs of the two.

Source: the ActivityNet evaluation (``ANETdetection``): each detection, best score first, takes
the free action of its video and class that it overlaps most, if their tIoU reaches the threshold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.errors import DataError
from engine.judging.pairing import greedy
from engine.tiou import Intervals, tious
from engine.types import ActionEvent, Float64Array, Int64Array, Proposal, Span
from training.records import VideoRecord

_CHUNK = 16_384  # detections paired at once: bounds the memory


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Annotated actions.

    Attributes:
        videos: Names of the evaluated videos.
        video: int64 (G,), index into ``videos``.
        class_index: int64 (G,).
        start_us: int64 (G,).
        end_us: int64 (G,).
    """

    videos: tuple[str, ...]
    video: Int64Array
    class_index: Int64Array
    start_us: Int64Array
    end_us: Int64Array

    @classmethod
    def of(cls, records: Sequence[VideoRecord]) -> Self:
        """Take the actions of every video whose actions are known; others are not evaluated."""
        known = [record for record in records if record.truth is not None]
        rows = [
            (video, action.class_id, action.span.start_us, action.span.end_us)
            for video, record in enumerate(known)
            for action in record.truth or ()
        ]
        return cls(tuple(record.name for record in known), *_columns(rows, 4))

    def span(self, row: int) -> Span:
        """The interval of one action."""
        return Span(int(self.start_us[row]), int(self.end_us[row]))


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Scored intervals.

    Attributes:
        video: int64 (N,), index into the truth's ``videos``.
        class_index: int64 (N,).
        start_us: int64 (N,).
        end_us: int64 (N,).
        score: float64 (N,), finite.
    """

    video: Int64Array
    class_index: Int64Array
    start_us: Int64Array
    end_us: Int64Array
    score: Float64Array

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, column.name)) for column in fields(self)}
        if len(lengths) != 1 or not np.isfinite(self.score).all():
            raise ValueError(
                f"columns of {sorted(lengths)} rows, wanted one length, finite scores"
            )

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(
        cls, found: Mapping[str, Sequence[Proposal | ActionEvent]], videos: Sequence[str]
    ) -> Self:
        """Put what was found in each video into columns.

        Raises:
            DataError: A video is not among ``videos``.
        """
        numbers = {name: number for number, name in enumerate(videos)}
        for name in found:
            if name not in numbers:
                raise DataError(
                    f"video {name!r} has detections but no annotations: annotate it or leave "
                    f"it out of the evaluation of {len(numbers)} videos"
                )
        rows = [
            (numbers[name], one.class_index, one.span.start_us, one.span.end_us)
            for name, many in found.items()
            for one in many
        ]
        scores = [one.score for many in found.values() for one in many]
        video, class_index, start_us, end_us = _columns(rows, 4)
        return cls(video, class_index, start_us, end_us, np.array(scores, np.float64))

    def take(self, rows: Int64Array | npt.NDArray[np.bool_]) -> "Detections":
        """Take rows, by number int64 (M,) or by mask bool (N,)."""
        return Detections(*(getattr(self, column.name)[rows] for column in fields(self)))

    def ranking(self) -> Int64Array:
        """Return the row numbers from best to worst, int64 (N,).

        Equal scores are ordered by video, start, end and class, so that the order is always the
        same.
        """
        return np.lexsort((self.class_index, self.end_us, self.start_us, self.video, -self.score))


def _columns(rows: Sequence[tuple[int, ...]], n_columns: int) -> tuple[Int64Array, ...]:
    """Turn N rows of ``n_columns`` numbers into columns, int64 (N,) each."""
    return tuple(np.array(rows, np.int64).reshape(-1, n_columns).T)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Pairs that may be matched, ordered by detection, then best first, then by start and end.

    Attributes:
        detection: int64 (P,), row of the detection, rising.
        truth: int64 (P,), row of the action.
        affinity: float64 (P,), how well the two fit.
    """

    detection: Int64Array
    truth: Int64Array
    affinity: Float64Array


# How well action and detection of each row fit.
Affinity = Callable[[Intervals, Intervals], Float64Array]


def start_affinity(actions: Intervals, found: Intervals) -> Float64Array:
    """Minus the seconds between the two starts."""
    return np.asarray(-np.abs(actions.start_us - found.start_us) / 1e6, np.float64)


def candidates(
    truth: Truth, detections: Detections, floor: float, affinity: Affinity = tious
) -> Candidates:
    """Find all pairs of one video and one class whose affinity is at least ``floor``."""
    n_videos = max(len(truth.videos), 1)
    keys = truth.class_index * n_videos + truth.video
    order = np.lexsort((truth.end_us, truth.start_us, keys))
    wanted = detections.class_index * n_videos + detections.video
    first = np.searchsorted(keys[order], wanted, "left")
    count = np.searchsorted(keys[order], wanted, "right") - first
    parts = [
        _chunk(truth, detections, order, first, count, slice(at, at + _CHUNK), floor, affinity)
        for at in range(0, max(len(detections), 1), _CHUNK)
    ]
    return Candidates(
        np.concatenate([part.detection for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.affinity for part in parts]),
    )


def _chunk(
    truth: Truth,
    detections: Detections,
    order: Int64Array,
    first: Int64Array,
    count: Int64Array,
    rows: slice,
    floor: float,
    affinity: Affinity,
) -> Candidates:
    """Find the pairs of the detections ``rows``.

    ``order`` int64 (G,) lists the actions by class and video. For each detection, ``first`` and
    ``count`` int64 (N,) say where in it the actions of its class and video lie.
    """
    counts = count[rows]
    found = np.repeat(np.arange(len(first))[rows], counts)
    offset = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.repeat(first[rows], counts) + offset
    actions = order[place]
    fit = affinity(
        Intervals(truth.start_us[actions], truth.end_us[actions]),
        Intervals(detections.start_us[found], detections.end_us[found]),
    )
    keep = np.flatnonzero(fit >= floor)
    keep = keep[np.lexsort((place[keep], -fit[keep], found[keep]))]
    return Candidates(found[keep], actions[keep], fit[keep])


def assign(
    truth: Truth,
    detections: Detections,
    floors: Sequence[float],
    affinity: Affinity = tious,
) -> Int64Array:
    """Match one to one: each detection, best score first, takes the free action that fits best.

    Args:
        truth: The actions.
        detections: Detections of the same videos, N of them.
        floors: K least affinities at which a pair may be matched; each gives a matching of its
            own.
        affinity: It says how well an action and a detection fit.

    Returns:
        int64 (K, N), the row of the action that each detection took; -1 for none.
    """
    order = detections.ranking()
    pairs = candidates(truth, detections.take(order), min(floors), affinity)
    taken = np.full((len(floors), len(detections)), -1, np.int64)
    for row, floor in zip(taken, floors, strict=True):
        keep = pairs.affinity >= floor
        found, actions = pairs.detection[keep], pairs.truth[keep]
        made = greedy(found, actions)
        row[order[found[made]]] = actions[made]
    return taken


def matching_size(pairs: Candidates) -> int:
    """Count the pairs of the largest one-to-one matching: augmenting paths, after Berge."""
    choices: dict[int, list[int]] = {}
    for found, action in zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True):
        choices.setdefault(found, []).append(action)
    holder: dict[int, int] = {}
    for found in choices:
        _augment(found, choices, holder)
    return len(holder)


def _augment(start: int, choices: Mapping[int, list[int]], holder: dict[int, int]) -> None:
    """Give ``start`` an action, moving others to their other choices; do nothing if none can."""
    asked_by: dict[int, int] = {}
    gives_up: dict[int, int] = {}  # asker → the action it held when it was asked to move
    asking = [start]
    for found in asking:  # grows as it is read: breadth first
        for action in choices[found]:
            if action in asked_by:
                continue
            asked_by[action] = found
            if action in holder:
                gives_up[holder[action]] = action
                asking.append(holder[action])
                continue
            _move_along(action, start, asked_by, gives_up, holder)
            return


def _move_along(
    free: int,
    start: int,
    asked_by: Mapping[int, int],
    gives_up: Mapping[int, int],
    holder: dict[int, int],
) -> None:
    """Give the ``free`` action to who asked for it, its old one to who asked for that, and so on.

    The chain ends with ``start``, which held none.
    """
    action = free
    while asked_by[action] != start:
        holder[action] = asked_by[action]
        action = gives_up[holder[action]]
    holder[action] = start
