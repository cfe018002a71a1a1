"""Detections against annotated actions: which is which, average precision, mAP. Exact, vectorised.

Everything is columns: row i of a table is one action or one detection. Times are integer
microseconds; tIoU has no ``+ 1``. C classes, N detections, G annotated actions.

Source: the ActivityNet evaluation (``ANETdetection``): each detection, best score first, takes
the free action of its video and class that it overlaps most, if their tIoU reaches the threshold.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from engine.errors import DataError
from engine.timeline import Timeline
from engine.types import ActionEvent, Int64Array, Proposal, Span
from training.records import VideoRecord

Float64Array = npt.NDArray[np.float64]
Protocol = Literal["seconds", "snippet-rounded"]

# Written out: 3 * 0.1 and linspace are not 0.3, and an action of 3 in 10 would be lost.
THUMOS_TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET_TIOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

# The grid of the published THUMOS features: snippets of 16 frames at 25 a second.
PUBLISHED_TIMELINE = Timeline(fps=25, snippet_frames=16, stride_frames=16)

_CHUNK = 16_384  # detections paired at once: bounds the memory


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Annotated actions.

    Attributes:
        videos: The evaluated videos; the column ``video`` indexes it.
        video: int64 (G,).
        label: int64 (G,).
        start_us: int64 (G,).
        end_us: int64 (G,).
    """

    videos: tuple[str, ...]
    video: Int64Array
    label: Int64Array
    start_us: Int64Array
    end_us: Int64Array

    @classmethod
    def of(cls, records: Sequence[VideoRecord]) -> Self:
        """The actions of every video whose actions are known; the others are not evaluated."""
        known = [record for record in records if record.truth is not None]
        rows = [
            (video, action.label, action.span.start_us, action.span.end_us)
            for video, record in enumerate(known)
            for action in record.truth or ()
        ]
        return cls(tuple(record.name for record in known), *_columns(rows, 4))


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Scored intervals.

    Attributes:
        video: int64 (N,), index into the truth's ``videos``.
        label: int64 (N,).
        start_us: int64 (N,).
        end_us: int64 (N,).
        score: float64 (N,), finite.
    """

    video: Int64Array
    label: Int64Array
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
        """What was found in each video, as columns.

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
            (numbers[name], one.label, one.span.start_us, one.span.end_us)
            for name, many in found.items()
            for one in many
        ]
        scores = [one.score for many in found.values() for one in many]
        video, label, start_us, end_us = _columns(rows, 4)
        return cls(video, label, start_us, end_us, np.array(scores, np.float64))

    def take(self, rows: Int64Array | npt.NDArray[np.bool_]) -> "Detections":
        """These rows."""
        return Detections(*(getattr(self, column.name)[rows] for column in fields(self)))

    def ranking(self) -> Int64Array:
        """Rows from best to worst; ties by video, start, end, so that every run orders alike."""
        return np.lexsort((self.label, self.end_us, self.start_us, self.video, -self.score))


def _columns(rows: Sequence[tuple[int, ...]], n_columns: int) -> tuple[Int64Array, ...]:
    return tuple(np.array(rows, np.int64).reshape(-1, n_columns).T)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Pairs that may be matched: by detection, then best first, then by the action's start, end.

    Attributes:
        detection: int64 (P,), row of the detection, rising.
        truth: int64 (P,), row of the action.
        affinity: float64 (P,), how well they fit.
    """

    detection: Int64Array
    truth: Int64Array
    affinity: Float64Array


Affinity = Callable[[Truth, Int64Array, Detections, Int64Array], Float64Array]


def tiou_of_pairs(
    truth: Truth, actions: Int64Array, detections: Detections, found: Int64Array
) -> Float64Array:
    """How much action ``actions[i]`` and detection ``found[i]`` overlap; 0 if both are empty."""
    starts, ends = truth.start_us[actions], truth.end_us[actions]
    other_starts, other_ends = detections.start_us[found], detections.end_us[found]
    shared = np.minimum(ends, other_ends) - np.maximum(starts, other_starts)
    shared = np.maximum(shared, 0)
    union = (ends - starts) + (other_ends - other_starts) - shared
    return np.asarray(shared / np.maximum(union, 1), np.float64)


def start_affinity(
    truth: Truth, actions: Int64Array, detections: Detections, found: Int64Array
) -> Float64Array:
    """Minus the seconds between the two starts."""
    apart_us = np.abs(truth.start_us[actions] - detections.start_us[found])
    return np.asarray(-apart_us / 1e6, np.float64)


def candidates(
    truth: Truth, detections: Detections, floor: float, affinity: Affinity = tiou_of_pairs
) -> Candidates:
    """All pairs of one video and one class whose affinity is at least ``floor``."""
    n_videos = max(len(truth.videos), 1)
    keys = truth.label * n_videos + truth.video
    order = np.lexsort((truth.end_us, truth.start_us, keys))
    wanted = detections.label * n_videos + detections.video
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
    counts = count[rows]
    found = np.repeat(np.arange(len(first))[rows], counts)
    offset = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.repeat(first[rows], counts) + offset
    fit = affinity(truth, order[place], detections, found)
    keep = np.flatnonzero(fit >= floor)
    keep = keep[np.lexsort((place[keep], -fit[keep], found[keep]))]
    return Candidates(found[keep], order[place[keep]], fit[keep])


def assign(
    truth: Truth,
    detections: Detections,
    floors: Sequence[float],
    affinity: Affinity = tiou_of_pairs,
) -> Int64Array:
    """Match one to one: each detection, best score first, takes the free action that fits best.

    Args:
        truth: The actions.
        detections: Of the same videos.
        floors: Least affinities at which a pair may be matched; each is a matching of its own.
        affinity: What fits.

    Returns:
        int64 (len(floors), N), the row of the action each detection took; -1 for none.
    """
    order = detections.ranking()
    pairs = candidates(truth, detections.take(order), min(floors), affinity)
    taken = np.full((len(floors), len(detections)), -1, np.int64)
    for row, floor in zip(taken, floors, strict=True):
        keep = pairs.affinity >= floor
        row[order] = _assign(pairs.detection[keep], pairs.truth[keep], len(order), truth)
    return taken


def _assign(found: Int64Array, actions: Int64Array, n: int, truth: Truth) -> Int64Array:
    """The greedy matching, all videos and classes at once.

    Every detection asks for its best action; an action keeps the best ranked asker and the others
    ask for their next. This is deferred acceptance (Gale and Shapley 1962). As all actions rank
    the detections alike, it has one stable answer: what serving them in that order gives.
    """
    last = np.searchsorted(found, np.arange(n), "right")
    at = np.unique(found, return_index=True)[1]  # where in the pairs each asks
    while True:
        keeper = np.full(len(truth.video), n)
        np.minimum.at(keeper, actions[at], found[at])
        lost = keeper[actions[at]] != found[at]
        if not lost.any():
            break
        askers = found[at]
        at = at + lost
        at = at[at < last[askers]]
    taken = np.full(n, -1, np.int64)
    taken[found[at]] = actions[at]
    return taken


def average_precisions(
    truth: Truth, detections: Detections, taken: Int64Array, n_classes: int
) -> Float64Array:
    """Area under each class's precision-recall curve, made monotone from the right.

    Args:
        truth: The actions.
        detections: Of the same videos.
        taken: int64 (K, N), as ``assign`` gives it.
        n_classes: C.

    Returns:
        float64 (C, K); NaN for a class without actions, 0 for one without detections.
    """
    values = np.full((n_classes, len(taken)), math.nan)
    n_truth = np.bincount(truth.label, minlength=n_classes)
    order = detections.ranking()
    for label in np.flatnonzero(n_truth).tolist():
        hits = taken[:, order[detections.label[order] == label]] >= 0  # (K, n)
        precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Recall moves by 1 / G at every hit and nowhere else.
        values[label] = (envelope * hits).sum(axis=1) / n_truth[label]
    return values


def mean_over_classes(values: Float64Array) -> Float64Array:
    """Mean of each column over the rows that are not NaN; NaN if all are."""
    known = values[~np.isnan(values).any(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(values.shape[1], math.nan)


@dataclass(frozen=True, slots=True, eq=False)
class MapResult:
    """Mean average precision, all values in [0, 1].

    Attributes:
        tious: K thresholds.
        class_ap: float64 (C, K); NaN for classes without annotated actions.
        protocol: Which times were compared.
        n_videos: Evaluated.
        n_truth: Annotated actions.
        n_detections: Counted.
        n_ambiguous: Detections left out because they touch an ambiguous interval.
    """

    tious: tuple[float, ...]
    class_ap: Float64Array
    protocol: Protocol
    n_videos: int
    n_truth: int
    n_detections: int
    n_ambiguous: int

    @property
    def per_tiou(self) -> Float64Array:
        """float64 (K,), mAP at each threshold."""
        return mean_over_classes(self.class_ap)

    @property
    def average(self) -> float:
        """Mean of ``per_tiou``."""
        return float(self.per_tiou.mean())

    def average_between(self, low: float, high: float) -> float:
        """Mean over the thresholds from ``low`` to ``high``, both included."""
        chosen = [low <= tiou <= high for tiou in self.tious]
        return float(self.per_tiou[chosen].mean())

    def table(self, class_names: Sequence[str] = ()) -> str:
        """For people, in percent; one line a class if their names are given."""
        width = max([7, *(len(name) for name in class_names)])
        head = "".join(f"{tiou:>7.2f}" for tiou in self.tious)
        counted = (
            f"{self.n_videos} videos, {self.n_truth} actions, {self.n_detections} detections, "
            f"{self.n_ambiguous} left out as ambiguous"
        )
        lines = [
            f"mAP in percent; times: {self.protocol}; {counted}",
            f"{'tIoU':<{width}}{head}   mean",
            f"{'mAP':<{width}}{_percents(self.per_tiou)}",
        ]
        named = zip(class_names, self.class_ap, strict=True) if class_names else ()
        lines.extend(f"{name:<{width}}{_percents(row)}" for name, row in named)
        return "\n".join(lines)


def _percents(values: Float64Array) -> str:
    both = [*values.tolist(), float(values.mean())]
    return "".join(f"{'-':>7}" if math.isnan(value) else f"{100 * value:7.2f}" for value in both)


def mean_average_precision(
    truth: Truth,
    detections: Detections,
    n_classes: int,
    tious: Sequence[float] = THUMOS_TIOUS,
    protocol: Protocol = "seconds",
    timeline: Timeline = PUBLISHED_TIMELINE,
    ambiguous: Sequence[tuple[str, Span]] = (),
) -> MapResult:
    """The one mAP of this project.

    Args:
        truth: The actions.
        detections: Of the same videos.
        n_classes: C.
        tious: Thresholds, in (0, 1].
        protocol: ``seconds`` compares exact times. ``snippet-rounded`` rounds all times to
            snippets first, as one family of published code does; there, an action may lose all
            its length and cannot be found.
        timeline: Whose snippets to round to.
        ambiguous: (video, interval): detections that touch one count neither way. Intervals of
            videos that are not evaluated are passed over.
    """
    if not tious or min(tious) <= 0:
        raise ValueError(f"tious are {tuple(tious)}, wanted at least one, each > 0")
    kept = _without_ambiguous(truth, detections, ambiguous)
    n_ambiguous = len(detections) - len(kept)
    if protocol == "snippet-rounded":
        start, end = _rounded(truth, timeline)
        truth = replace(truth, start_us=start, end_us=end)
        start, end = _rounded(kept, timeline)
        kept = replace(kept, start_us=start, end_us=end)
    taken = assign(truth, kept, tious)
    return MapResult(
        tious=tuple(tious),
        class_ap=average_precisions(truth, kept, taken, n_classes),
        protocol=protocol,
        n_videos=len(truth.videos),
        n_truth=len(truth.video),
        n_detections=len(kept),
        n_ambiguous=n_ambiguous,
    )


def _rounded(rows: Truth | Detections, timeline: Timeline) -> tuple[Int64Array, Int64Array]:
    """Nearest snippet indices; halves go to the even one, as Python's ``round`` has it."""
    start = np.rint(rows.start_us / timeline.stride_us).astype(np.int64)
    return start, np.rint(rows.end_us / timeline.stride_us).astype(np.int64)


def _without_ambiguous(
    truth: Truth, detections: Detections, ambiguous: Sequence[tuple[str, Span]]
) -> Detections:
    numbers = {name: number for number, name in enumerate(truth.videos)}
    drop = np.zeros(len(detections), bool)
    for name, span in ambiguous:
        touches = (detections.start_us < span.end_us) & (detections.end_us > span.start_us)
        drop |= touches & (detections.video == numbers.get(name, -1))
    return detections.take(~drop)
