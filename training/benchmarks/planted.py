"""Planted features over real or invented timelines: a self-test of a training set-up.

A timeline says what happens when in a video; the videos themselves do not exist. Every snippet is
background that looks like what a pooled I3D gives: non-negative, with a common mean and slowly
changing surroundings. Each action adds a weak pattern throughout and a strong one in its core, as
far as a snippet lies inside. The switches of `Strength` make it as hard as footage. A network
that finds nothing here is wired wrongly. How good a network is on real footage, this does not say.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np

from engine.errors import DataError
from engine.grid import US_PER_S
from engine.judging.truth import TruthSpan
from engine.tiou import Intervals, covers
from engine.types import FloatArray, Span
from training.loaders.annotations import (
    AnnotatedVideo,
    Annotations,
    cut_to_length,
    in_order,
    no_note,
    seconds_to_us,
)
from training.loaders.published import PUBLISHED_GRID, STREAM_WIDTH

PlantedModality = Literal["rgb", "joint"]
_N_CONTEXTS = 24
_CONTEXTS_A_VIDEO = 4
_AFTER_LAST_US = (
    5 * US_PER_S
)  # a video whose length nobody said ends this long after its last action
_NEAR_SNIPPETS = 12  # about eight seconds around an action belong to its surroundings
_DENSITY = 0.06  # share of channels that a pattern touches


@dataclass(frozen=True, slots=True)
class Strength:
    """How clear the planted actions are, in units of the typical pattern's height.

    Attributes:
        weak: Height of a class's pattern throughout each action.
        core: Height of its other pattern, in a part of the action.
        spread: Standard deviation of an action's log gain; it makes some hardly visible.
        context: Height of surroundings that go with a class, near its actions but not in them. A
            network that learns from tags alone mistakes them for the action.
        background: Height of surroundings that go with no class.
        decoys: Number of cores of a random class, a minute, where nothing was annotated; they
            have half the gain.
        likeness: Share of a class's pattern that the next class has too.
        noise: Height of every channel's noise, which is correlated from snippet to snippet.
        camera_offset: Height of a constant vector that each camera adds.

    With these defaults, half of THUMOS14's training timelines and RGB alone, 100 steps of a
    two-layer network with top-k pooling reached 47 % mAP averaged over tIoU 0.1 to 0.7.
    """

    weak: float = 0.4
    core: float = 0.8
    spread: float = 0.5
    context: float = 0.8
    background: float = 1.2
    decoys: float = 2.0
    likeness: float = 0.4
    noise: float = 0.8
    camera_offset: float = 0.0


class Planter:
    """It makes the features of every video of one invented world; equal seeds give equal features.

    Streams (RGB, flow) of one seed differ in patterns and noise, not in what happens when.

    Args:
        n_classes: C.
        seed: Seed of the world.
        width: D.
        strength: How clear the actions are.
        stream: Number of the stream.
        n_cameras: Number of cameras.
    """

    def __init__(
        self,
        n_classes: int,
        seed: int,
        width: int,
        strength: Strength = Strength(),
        *,
        stream: int = 0,
        n_cameras: int = 1,
    ) -> None:
        draws = np.random.default_rng([seed, width, stream])
        self._seed, self._stream, self._width, self._strength = seed, stream, width, strength
        self._mean = draws.gamma(0.6, 0.4, width).astype(np.float32)
        own = _patterns(draws, n_classes, width)
        share = strength.likeness
        self._weak = (1 - share) * own + share * np.roll(own, 1, axis=0)
        self._core = 0.5 * self._weak + _patterns(draws, n_classes, width)
        self._contexts = _patterns(draws, _N_CONTEXTS, width)
        offsets = draws.normal(0, strength.camera_offset, (n_cameras, width))
        self._offsets = np.abs(offsets).astype(np.float32)

    def features(self, video: AnnotatedVideo, camera: int = 0) -> FloatArray:
        """Make a video's features, float32 (T, D), ≥ 0; T is its whole snippets, at least 1."""
        n_rows = max(1, _length_us(video) // PUBLISHED_GRID.stride_us)
        name = zlib.crc32(video.name.encode())
        draws = np.random.default_rng([self._seed, name])
        weak, core = self._loads(draws, video, n_rows)
        rows = weak @ self._weak + core @ self._core
        rows += self._contexts_of(draws, video, n_rows) @ self._contexts
        draws = np.random.default_rng([self._seed, name, self._stream])
        noise = _drift(draws, n_rows, self._width, 0.5)
        rows += self._mean + self._offsets[camera]
        rows += noise * self._strength.noise * (self._mean + 0.2)
        features: FloatArray = np.maximum(rows, 0, dtype=np.float32)
        return features

    def _loads(
        self, draws: np.random.Generator, video: AnnotatedVideo, n_rows: int
    ) -> tuple[FloatArray, FloatArray]:
        """Say how much of each class's weak and core pattern is in each snippet, (T, C) each."""
        weak = np.zeros((n_rows, len(self._weak)), np.float32)
        core = np.zeros_like(weak)
        for truth in video.truth or ():
            span, gain = truth.span, float(np.exp(draws.normal(0, self._strength.spread)))
            core_us = max(round(span.duration_us * draws.uniform(0.25, 0.6)), 1)
            start_us = span.start_us + round((span.duration_us - core_us) * draws.uniform())
            inner = Span(start_us, start_us + core_us)
            weak[:, truth.class_id] += gain * self._strength.weak * coverage(span, n_rows)
            core[:, truth.class_id] += gain * self._strength.core * coverage(inner, n_rows)
        minutes = _length_us(video) / US_PER_S / 60
        for _ in range(draws.poisson(self._strength.decoys * minutes)):
            start_us = int(draws.integers(n_rows)) * PUBLISHED_GRID.stride_us
            span = Span(start_us, start_us + int(draws.integers(US_PER_S, 4 * US_PER_S)))
            shape = 0.5 * self._strength.core * coverage(span, n_rows)
            core[:, draws.integers(len(self._core))] += shape
        return weak, core

    def _contexts_of(
        self, draws: np.random.Generator, video: AnnotatedVideo, n_rows: int
    ) -> FloatArray:
        """Say how much of each surrounding is in each snippet, (T, contexts)."""
        loads = np.zeros((n_rows, _N_CONTEXTS), np.float32)
        chosen = draws.choice(_N_CONTEXTS, _CONTEXTS_A_VIDEO, replace=False)
        slow = np.abs(_drift(draws, n_rows, _CONTEXTS_A_VIDEO, 0.95))
        loads[:, chosen] = self._strength.background * slow
        for class_index in sorted({truth.class_id for truth in video.truth or ()}):
            near = np.zeros(n_rows, np.float32)
            for truth in video.truth or ():
                if truth.class_id == class_index:
                    first = truth.span.start_us // PUBLISHED_GRID.stride_us - _NEAR_SNIPPETS
                    last = truth.span.end_us // PUBLISHED_GRID.stride_us + _NEAR_SNIPPETS
                    near[max(first, 0) : last + 1] = self._strength.context
            loads[:, class_index % _N_CONTEXTS] += (
                near * np.abs(_drift(draws, n_rows, 1, 0.9))[:, 0]
            )
        return loads


def coverage(span: Span, n_rows: int) -> FloatArray:
    """Share of each snippet that lies in ``span``, float32 (n_rows,)."""
    starts = np.arange(n_rows, dtype=np.int64) * PUBLISHED_GRID.stride_us
    snippets = Intervals(starts, starts + PUBLISHED_GRID.snippet_us)
    return covers(snippets, span).astype(np.float32)


def plant(
    timelines: Annotations,
    out: Path,
    *,
    seed: int = 0,
    modality: PlantedModality = "joint",
    strength: Strength = Strength(),
    n_videos: int | None = None,
    n_cameras: int = 1,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Path:
    """Write THUMOS14's published layout: ``features/{train,test}/{rgb,flow}/VID.npy``, gt.json.

    ``load_thumos(out / "gt.json", out, ...)`` reads it.

    Args:
        timelines: What `read_thumos` or `synthetic_timelines` gave; subsets are train and test.
        out: A folder that is made.
        seed: Equal seeds write equal files.
        modality: rgb alone, 1024 wide; or joint, which writes flow too.
        strength: How clear the actions are.
        n_videos: At most this many videos of each subset, spread over the classes; None for all.
        n_cameras: Number of cameras; each video belongs to one, see ``Strength.camera_offset``.
        on_progress: Gets the number of videos written, and of all.

    Returns:
        The annotation file.

    Raises:
        DataError: There is no video to plant, or ``out`` cannot be written.
    """
    videos = [
        replace(video, duration_us=_length_us(video))
        for subset in ("train", "test")
        for video in _spread(timelines, subset, n_videos, seed)
    ]
    if not videos:
        raise DataError("the timelines have no video of subset train or test: nothing to plant")
    n_classes = len(timelines.class_names)
    streams = ("rgb", "flow") if modality == "joint" else ("rgb",)
    planters = {
        stream: Planter(n_classes, seed, STREAM_WIDTH, strength, stream=index, n_cameras=n_cameras)
        for index, stream in enumerate(streams)
    }
    written = []
    try:
        for index, video in enumerate(cut_to_length(videos, "clip", out, no_note)):
            camera = index % n_cameras
            for stream, planter in planters.items():
                folder = out / "features" / video.subset / stream
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{video.name}.npy", planter.features(video, camera))
            written.append(replace(video, camera=f"camera{camera + 1}" if n_cameras > 1 else ""))
            on_progress(index + 1, len(videos))
        target = out / "gt.json"
        target.write_text(_json(timelines.class_names, written), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}; choose another") from error
    return target


def synthetic_timelines(
    seed: int = 0, n_train: int = 200, n_test: int = 212, n_classes: int = 20
) -> Annotations:
    """Invent timelines with THUMOS14's statistics, for when its annotation is not at hand.

    Medians and spreads are as measured on it: 162 s a video, 3.2 s an action, 2.6 s between two,
    some action in 30 % of the time, two classes in one video of eight.
    """
    draws = np.random.default_rng([seed, n_classes])
    videos = []
    for subset, count in (("train", n_train), ("test", n_test)):
        for index in range(count):
            duration_s = float(np.clip(_lognormal(draws, 162, 0.8), 10, 1675))
            class_indices = [index % n_classes]
            if n_classes > 1 and draws.random() < 1 / 8:
                class_indices.append((index + 1) % n_classes)
            spans = _invented_spans(draws, duration_s, class_indices)
            videos.append(
                AnnotatedVideo(
                    name=f"planted_{subset}_{index + 1:07d}",
                    subset=subset,
                    camera="",
                    duration_us=seconds_to_us(duration_s),
                    tags=tuple(sorted({truth.class_id for truth in spans})),
                    truth=in_order(spans),
                )
            )
    names = tuple(f"action_{index + 1:02d}" for index in range(n_classes))
    return Annotations(names, tuple(videos))


def _invented_spans(
    draws: np.random.Generator, duration_s: float, class_indices: Sequence[int]
) -> list[TruthSpan[int]]:
    spans: list[TruthSpan[int]] = []
    now_s = min(_lognormal(draws, 2.6, 1.6), duration_s / 2)
    while now_s < duration_s - 1 or not spans:
        end_s = min(now_s + max(_lognormal(draws, 3.2, 0.8), 0.3), duration_s)
        class_index = class_indices[len(spans) % len(class_indices)]
        spans.append(TruthSpan(class_index, Span(seconds_to_us(now_s), seconds_to_us(end_s))))
        now_s = end_s + _lognormal(draws, 2.6, 1.6)
    return spans


def _spread(
    timelines: Annotations, subset: str, n_videos: int | None, seed: int
) -> list[AnnotatedVideo]:
    """Choose videos of the classes in turn, so that few videos still show every class."""
    known = [video for video in timelines.videos if video.subset == subset and video.truth]
    if n_videos is None or n_videos >= len(known):
        return known
    order = np.random.default_rng([seed, len(known)]).permutation(len(known))
    waiting = [known[index] for index in order]
    chosen: list[AnnotatedVideo] = []
    for class_index in cycle(range(len(timelines.class_names))):
        if len(chosen) == n_videos:
            return chosen
        video = next((video for video in waiting if class_index in (video.tags or ())), None)
        if video is not None:
            chosen.append(video)
            waiting.remove(video)
    return chosen


def _patterns(draws: np.random.Generator, count: int, width: int) -> FloatArray:
    """Draw ``count`` patterns of which most channels are 0, float32 (N, D)."""
    touched = draws.random((count, width)) < _DENSITY
    return np.asarray(touched * draws.gamma(2.0, 0.5, (count, width)), np.float32)


def _drift(draws: np.random.Generator, n_rows: int, width: int, memory: float) -> FloatArray:
    """Draw noise of unit variance, float32 (T, D), that remembers.

    x(t) = m x(t-1) + sqrt(1 - m²) n, with m = ``memory`` and n white noise.
    """
    rows = draws.normal(size=(n_rows, width)).astype(np.float32)
    for row in range(1, n_rows):
        rows[row] = memory * rows[row - 1] + (1 - memory**2) ** 0.5 * rows[row]
    return rows


def _lognormal(draws: np.random.Generator, middle: float, spread: float) -> float:
    return float(middle * np.exp(draws.normal(0, spread)))


def _length_us(video: AnnotatedVideo) -> int:
    if video.duration_us is not None:
        return video.duration_us
    ends_us = [truth.span.end_us for truth in video.truth or ()]
    return max(ends_us, default=0) + _AFTER_LAST_US


def _json(class_names: Sequence[str], videos: Sequence[AnnotatedVideo]) -> str:
    database = {
        video.name: {
            "subset": video.subset,
            "duration": (video.duration_us or 0) / US_PER_S,
            "camera": video.camera,
            "annotations": [
                {
                    "segment": [
                        truth.span.start_us / US_PER_S,
                        truth.span.end_us / US_PER_S,
                    ],
                    "label": class_names[truth.class_id],
                }
                for truth in video.truth or ()
            ],
        }
        for video in videos
    }
    return json.dumps({"version": 1, "classes": list(class_names), "database": database})
