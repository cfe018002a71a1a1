"""Fights found in composited streams, by a network trained from tags and by what needs no network.

Two baselines measure what the data gives away: a classifier of nothing but a clip's original
width and height, and a cut detector whose segments are scored by how much moves in them. All
numbers are of composited streams. A method that knows the cuts starts from the true boundaries of
every clip; the row of random scores says how far these boundaries alone go.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.proposals import curve_of
from engine.scores import ScoredSnippets
from engine.types import Float64Array, Proposal, Span
from training.benchmarks.fights import FPS, GRID, CompositedStream, FightClip, FightSet
from training.benchmarks.fights_baselines import (
    BoolArray,
    area_under_roc,
    average_precision,
    cuts_of,
    frame_differences,
    segments_of,
)
from training.config import TrainingConfig, read_training_config
from training.evaluation.average_precision import THUMOS_TIOUS, mean_average_precision
from training.evaluation.linear import linear_scores
from training.evaluation.matching import Detections, Truth
from training.evaluation.whole_video import attended_scores, proposals_of
from training.learning.checkpoints import TrainedNetwork
from training.learning.train import train
from training.live_defaults import PROPOSALS
from training.loaders.clips import load_annotated, load_clips
from training.loaders.features import read_manifest
from training.records import FeatureSet, VideoRecord

METRICS = ("clip AP", "clip AUC", "frame AP", "frame AUC", "mAP", "mAP@.5")
SEEDS = (0, 1, 2, 3, 4)

_STEP_US = PROPOSALS.step_us
_CHANCE_DRAWS = 20
_RIDGE = 1e-3  # of the regression on sizes, for each clip


@dataclass(frozen=True, slots=True)
class FightRow:
    """What one method reached.

    Attributes:
        name: Name of the method.
        values: float64 (R, M) in percent, a row for each of R runs and a column for each of
            ``METRICS``; NaN where a metric does not apply.
    """

    name: str
    values: Float64Array

    def text(self) -> str:
        """Write a row of a Markdown table: means and, if there are several runs, ± sd."""
        cells = []
        for column in self.values.T:
            mean, sd = float(column.mean()), float(column.std(ddof=len(column) > 1))
            spread = f" ± {sd:.1f}" if len(column) > 1 else ""
            cells.append("-" if np.isnan(mean) else f"{mean:.1f}{spread}")
        return f"| {' | '.join([self.name, *cells])} |"


@dataclass(frozen=True, slots=True)
class FightReport:
    """What was measured, all of it composited.

    Attributes:
        description: The data, in a line.
        rows: One row for each method.
        n_cuts: Number of scene cuts that are there.
        n_cuts_found: Number of these that were found, within a frame.
        n_cuts_wrong: Number of cuts found where none is.
    """

    description: str
    rows: tuple[FightRow, ...]
    n_cuts: int
    n_cuts_found: int
    n_cuts_wrong: int

    def value(self, method: str, metric: str) -> float:
        """Return a method's metric in percent, as the mean over its runs."""
        row = next(row for row in self.rows if row.name == method)
        return float(row.values[:, METRICS.index(metric)].mean())

    def table(self) -> str:
        """Write the report for people, in Markdown."""
        what = "percent, mean ± sd over seeds or draws; mAP: mean over tIoU .1:.1:.7"
        found = f"{self.n_cuts_found} of {self.n_cuts} cuts found within a frame"
        lines = [
            f"composited: {self.description}; {what}",
            "",
            f"| method | {' | '.join(METRICS)} |",
            f"|---|{'---:|' * len(METRICS)}",
            *(row.text() for row in self.rows),
            "",
            f"cut detector: {found}, {self.n_cuts_wrong} found that are none",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method says of one stream.

    Attributes:
        curve: float64 (N,), a score for every cell of 80 ms from the stream's start.
        proposals: Scored intervals.
    """

    curve: Float64Array
    proposals: tuple[Proposal, ...]


def fight_report(
    data: FightSet,
    folder: Path,
    features: Path,
    config: Path | TrainingConfig,
    runs: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    threads: int | None = None,
    on_seed: Callable[[int], None] = lambda _seed: None,
) -> FightReport:
    """Train from tags under every seed; score it and the baselines on the composited streams.

    Args:
        data: What ``build_fights`` gave.
        folder: The folder that ``build_fights`` wrote its tables to.
        features: Folder of the features that ``s2net extract`` made of all its videos.
        config: How to train.
        runs: Folder of the runs; finished ones are kept.
        seeds: One seed for each run.
        threads: CPU threads of torch while it trains.
        on_seed: Gets the seed of each run that is done.

    Raises:
        DataError: Features are missing or cannot be used.
    """
    tagged = _without(data.test, load_clips(features, folder / "tags.csv"))
    streams = load_annotated(features, folder / "annotations.json", "testing").records
    manifest = read_manifest(features)
    base = read_training_config(config) if isinstance(config, Path) else config
    motion = {stream.name: frame_differences(stream.path) for stream in data.streams}
    segments = {name: segments_of(found) for name, found in motion.items()}
    by_seed, rescored = [], []
    for seed in seeds:
        seeded = replace(base, seed=seed, content={**base.content, "seed": seed})
        run = train(seeded, tagged, runs / f"seed-{seed}", manifest=manifest, threads=threads)
        answers = {record.name: network_answer(run, record) for record in streams}
        by_seed.append(_measured(data, answers))
        rescored.append(
            _measured(
                data,
                {
                    name: _on_segments(answer.curve, segments[name])
                    for name, answer in answers.items()
                },
            )
        )
        on_seed(seed)
    moving = {
        name: _on_segments(_cells_of(found), segments[name]) for name, found in motion.items()
    }
    return FightReport(
        _description(data),
        (
            FightRow("S2Net from tags", np.array(by_seed)),
            FightRow("cut detector + S2Net's scores", np.array(rescored)),
            FightRow("cut detector + motion energy", np.array([_measured(data, moving)])),
            FightRow("width and height only", np.array([_metadata_only(data)])),
            FightRow("cut detector + chance", np.array(_by_chance(data, segments))),
        ),
        *_cut_counts(data, segments),
    )


def _without(clips: Sequence[FightClip], known: FeatureSet) -> FeatureSet:
    """Leave clips out that are seen in the streams; their footage shall not count twice."""
    names = {clip.name for clip in clips}
    return replace(known, records=tuple(one for one in known.records if one.name not in names))


def network_answer(run: TrainedNetwork, record: VideoRecord) -> Answer:
    """Give the network's answer for a whole stream."""
    scores = attended_scores(run, record)
    track = ScoredSnippets(int(record.indices[0]), 0, scores)
    curve = curve_of(track, 0, run.grid, _STEP_US).values
    return Answer(curve, tuple(proposals_of(record, scores, run.grid, PROPOSALS, (0,))))


def _measured(data: FightSet, answers: Mapping[str, Answer]) -> list[float]:
    """Return one value for each of ``METRICS``, in percent."""
    clips, clip_scores, frames, frame_scores = [], [], [], []
    for stream in data.streams:
        curve = answers[stream.name].curve
        wanted = _wanted_cells(stream, len(curve))
        frames.append(wanted)
        frame_scores.append(curve)
        for part in stream.parts:
            clips.append(part.clip.is_fight)
            clip_scores.append(_mean_inside(curve, part.span))
    clip, frame = np.array(clips), np.concatenate(frames)
    by_clip, by_frame = np.array(clip_scores), np.concatenate(frame_scores)
    values = [
        average_precision(by_clip, clip),
        area_under_roc(by_clip, clip),
        average_precision(by_frame, frame),
        area_under_roc(by_frame, frame),
        *_maps(data.streams, answers),
    ]
    return [100 * value for value in values]


def _maps(
    streams: Sequence[CompositedStream], answers: Mapping[str, Answer]
) -> tuple[float, float]:
    rows = [
        (number, one.class_id, one.span.start_us, one.span.end_us)
        for number, stream in enumerate(streams)
        for one in stream.truth
    ]
    names = tuple(stream.name for stream in streams)
    truth = Truth(names, *np.array(rows, np.int64).reshape(-1, 4).T)
    detections = Detections.of({name: answers[name].proposals for name in names}, names)
    found = mean_average_precision(truth, detections, 1, THUMOS_TIOUS)
    return found.average, found.average_between(0.5, 0.5)


def _on_segments(curve: Float64Array, segments: Sequence[Span]) -> Answer:
    """Make each segment a proposal with the mean score of its cells; ``curve`` is (N,)."""
    return _scored(segments, [_mean_inside(curve, span) for span in segments], len(curve))


def _scored(segments: Sequence[Span], scores: Sequence[float], n_cells: int) -> Answer:
    """Make an answer of segments with one score each, for a curve of ``n_cells``."""
    level = np.zeros(n_cells)
    for span, score in zip(segments, scores, strict=True):
        level[_cells(span, n_cells)] = score
    found = zip(segments, scores, strict=True)
    return Answer(level, tuple(Proposal(0, span, score) for span, score in found))


def _cells(span: Span, n_cells: int) -> slice:
    """Return the cells whose centre lies inside the span; at least one, the nearest."""
    first = min(-(-(span.start_us - _STEP_US // 2) // _STEP_US), n_cells - 1)
    end = -(-(span.end_us - _STEP_US // 2) // _STEP_US)
    return slice(first, max(end, first + 1))


def _mean_inside(curve: Float64Array, span: Span) -> float:  # curve (N,)
    return float(curve[_cells(span, len(curve))].mean())


def _wanted_cells(stream: CompositedStream, n_cells: int) -> BoolArray:
    """Say which cells lie in a fight, bool (N,)."""
    wanted = np.zeros(n_cells, bool)
    for one in stream.truth:
        wanted[_cells(one.span, n_cells)] = True
    return wanted


def _cells_of(differences: Float64Array) -> Float64Array:
    """Turn differences of pictures (N,) into the motion in every cell (M,).

    What changes at a cut is no motion.
    """
    still = differences.copy()
    still[cuts_of(differences)] = 0
    per_cell = _STEP_US * FPS // 1_000_000
    n_cells = -(-len(still) // per_cell)
    padded = np.pad(still, (0, n_cells * per_cell - len(still)), mode="edge")
    return np.asarray(padded.reshape(n_cells, per_cell).mean(axis=1), np.float64)


def _metadata_only(data: FightSet) -> list[float]:
    test = [part.clip for stream in data.streams for part in stream.parts]
    wanted = np.array([clip.is_fight for clip in test])
    trained = np.array([clip.is_fight for clip in data.train])
    ridge = _RIDGE * len(trained)
    scores = linear_scores(_sizes(data.train), trained[:, None], _sizes(test), ridge=ridge)[:, 0]
    nothing = float("nan")
    known = [average_precision(scores, wanted), area_under_roc(scores, wanted)]
    return [*(100 * value for value in known), nothing, nothing, nothing, nothing]


def _sizes(clips: Sequence[FightClip]) -> Float64Array:
    """Return the logarithms of each clip's width and height, (N, 2)."""
    return np.log(np.array([(clip.width_px, clip.height_px) for clip in clips], np.float64))


def _by_chance(data: FightSet, segments: Mapping[str, Sequence[Span]]) -> list[list[float]]:
    """Measure what boundaries alone are worth: every segment gets a random score."""
    draws = np.random.default_rng(0)
    rows = []
    for _ in range(_CHANCE_DRAWS):
        answers = {}
        for stream in data.streams:
            found = segments[stream.name]
            scores = draws.random(len(found)).tolist()
            answers[stream.name] = _scored(found, scores, stream.duration_us // _STEP_US)
        rows.append(_measured(data, answers))
    return rows


def _cut_counts(data: FightSet, segments: Mapping[str, Sequence[Span]]) -> tuple[int, int, int]:
    n_cuts = n_found = n_wrong = 0
    for stream in data.streams:
        wanted = np.array([part.span.start_us for part in stream.parts[1:]])
        seen = np.array([span.start_us for span in segments[stream.name][1:]])
        near = np.abs(wanted[:, None] - seen[None, :]) <= GRID.frame_us
        n_cuts += len(wanted)
        n_found += int(near.any(axis=1).sum())
        n_wrong += int((~near.any(axis=0)).sum())
    return n_cuts, n_found, n_wrong


def _description(data: FightSet) -> str:
    parts = [part for stream in data.streams for part in stream.parts]
    n_fights = sum(part.clip.is_fight for part in parts)
    n_trained = sum(clip.is_fight for clip in data.train)
    seconds = sum(stream.duration_us for stream in data.streams) / 1e6
    return (
        f"{len(data.train)} training clips ({n_trained} fights), {len(data.streams)} streams of "
        f"{len(parts)} other-source clips ({n_fights} fights), {seconds:.0f} s"
    )
