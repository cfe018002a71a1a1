"""Whole clips of real fights, ranked on sources that were not trained on.

The clips are parted so that no source is in two parts. Each part is ranked once by what the others
taught: by S2Net from tags, and by the plainest model there is, a regression on mean features.
Nothing is joined here, so no cut gives anything away.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.types import Float64Array
from training.benchmarks.fights import FIGHT, FightClip, parted_by_source
from training.benchmarks.fights_baselines import area_under_roc
from training.config import TrainingConfig, read_training_config
from training.evaluation.linear import linear_scores, mean_features
from training.learning.scoring import video_scores
from training.learning.train import train
from training.loaders.features import load_features
from training.records import FeatureSet, VideoRecord

N_SPLITS = 5


@dataclass(frozen=True, slots=True)
class SourceSplit:
    """What both reached on one part of the clips.

    Attributes:
        n_clips: Clips that were ranked.
        n_fights: Fights among them.
        n_sources: Sources that they are of; unknown ones count as one.
        linear: Area under the ROC curve of the regression, 0..100.
        network: float64 (R,), that of S2Net under each seed.
    """

    n_clips: int
    n_fights: int
    n_sources: int
    linear: float
    network: Float64Array

    @property
    def gain(self) -> float:
        """By how much S2Net, as the mean over seeds, is above the regression."""
        return float(self.network.mean()) - self.linear


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What was measured, a value for each split."""

    splits: tuple[SourceSplit, ...]

    @property
    def linear(self) -> Float64Array:
        """The regression's areas, float64 (S,)."""
        return np.array([split.linear for split in self.splits])

    @property
    def network(self) -> Float64Array:
        """S2Net's areas, the means over seeds, float64 (S,)."""
        return np.array([split.network.mean() for split in self.splits])

    @property
    def gain(self) -> Float64Array:
        """By how much S2Net is above the regression, float64 (S,)."""
        return np.array([split.gain for split in self.splits])

    @property
    def seed_sd(self) -> float:
        """Standard deviation over seeds of S2Net's mean over the splits; 0 for one seed."""
        means = np.mean([split.network for split in self.splits], axis=0)  # (R,)
        return float(means.std(ddof=len(means) > 1))

    def table(self) -> str:
        """Write the report for people, in Markdown."""
        n_seeds = len(self.splits[0].network)
        lines = [
            f"clip AUC, other sources; {len(self.splits)} splits, {n_seeds} seeds of S2Net",
            "",
            "| split | clips | fights | sources | regression on means | S2Net from tags | gain |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for number, split in enumerate(self.splits, start=1):
            counts = f"{split.n_clips} | {split.n_fights} | {split.n_sources}"
            lines.append(
                f"| {number} | {counts} | {split.linear:.1f} | {_spread(split.network)} "
                f"| {split.gain:+.1f} |"
            )
        both = f"{_spread(self.linear)} | {_spread(self.network)}"
        sd = self.gain.std(ddof=len(self.splits) > 1)
        lines.append(f"| mean ± sd | | | | {both} | {self.gain.mean():+.1f} ± {sd:.1f} |")
        lines += ["", f"S2Net's mean over the splits differs by {self.seed_sd:.1f} between seeds"]
        return "\n".join(lines)

    def rows(self) -> str:
        """Write the report for programs, as CSV: a row for each split and seed."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["split", "clips", "fights", "sources", "seed", "linear_auc", "s2net_auc"])
        for number, split in enumerate(self.splits, start=1):
            for seed, area in enumerate(split.network):
                facts = [number, split.n_clips, split.n_fights, split.n_sources, seed]
                table.writerow([*facts, f"{split.linear:.3f}", f"{area:.3f}"])
        return text.getvalue()


def source_report(
    clips: Sequence[FightClip],
    features: Path,
    config: Path | TrainingConfig,
    runs: Path,
    *,
    n_splits: int = N_SPLITS,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    threads: int | None = None,
    on_run: Callable[[int], None] = lambda _done: None,
) -> SourceReport:
    """Rank every clip by S2Net and by the regression, neither of which knows its source.

    Args:
        clips: All clips.
        features: Folder with the features of every clip, by its name.
        config: How S2Net is trained.
        runs: Folder of the runs; finished ones are kept.
        n_splits: Number of parts.
        seeds: One seed for each training on the other parts.
        threads: CPU threads of torch while it trains.
        on_run: Gets the number of trainings that are done.

    Raises:
        DataError: Features are missing or cannot be used.
    """
    base = read_training_config(config) if isinstance(config, Path) else config
    known = _all_of(clips, features)
    splits: list[SourceSplit] = []
    for number, test in enumerate(parted_by_source(clips, [1 / n_splits] * n_splits), start=1):
        names = {clip.name for clip in test}
        learned = tuple(one for one in known.records if one.name not in names)
        asked = tuple(one for one in known.records if one.name in names)
        areas = []
        for at, seed in enumerate(seeds, start=1):
            seeded = replace(base, seed=seed, content={**base.content, "seed": seed})
            out = runs / f"split-{number}-seed-{seed}"
            run = train(seeded, replace(known, records=learned), out, threads=threads)
            scores = [video_scores(run.network, one, run.camera_mean("")) for one in asked]
            areas.append(_area(np.array(scores, np.float64), asked))
            on_run(len(splits) * len(seeds) + at)
        linear = linear_scores(mean_features(learned), _tags(learned), mean_features(asked))
        n_fights, n_sources = sum(clip.is_fight for clip in test), len({c.source for c in test})
        area = _area(linear, asked)
        splits.append(SourceSplit(len(test), n_fights, n_sources, area, np.array(areas)))
    return SourceReport(tuple(splits))


def _all_of(clips: Sequence[FightClip], features: Path) -> FeatureSet:
    """Read every clip's features, and whether it is a fight; no camera is named."""
    folder = load_features(features)
    folder.require([clip.name for clip in clips], features)
    records = []
    for clip in sorted(clips, key=lambda clip: clip.name):
        found, tags = folder[clip.name], (0,) if clip.is_fight else ()
        end_us = folder.grid.snippet_end_us(int(found.indices[-1]))
        records.append(
            VideoRecord(clip.name, "", found.features, found.indices, end_us, tags, None)
        )
    return FeatureSet((FIGHT,), tuple(records), folder.grid, folder.feature_dim)


def _tags(records: Sequence[VideoRecord]) -> Float64Array:
    """1 for fights, float64 (N, 1)."""
    return np.array([[float(bool(one.tags))] for one in records])


def _area(scores: Float64Array, records: Sequence[VideoRecord]) -> float:
    """Measure how well scores (N, 1) rank fights, 0..100."""
    return 100 * area_under_roc(scores[:, 0], _tags(records)[:, 0] > 0)


def _spread(values: Float64Array) -> str:
    """Mean ± standard deviation of values (N,)."""
    return f"{values.mean():.1f} ± {values.std(ddof=len(values) > 1):.1f}"
