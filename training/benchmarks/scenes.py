"""A scenes folder with features → every variant under every seed, scored beside baselines.

The folder's tags are all that is trained on. Its intervals are read to score the subsets, and by
the one baseline that says so (full supervision). Which subsets are scored is the caller's choice:
whoever chooses settings asks for ``validation`` alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.economy import seen_on_rung
from engine.spec import ProposalSpec, Rung
from engine.types import FloatArray, Proposal
from training.benchmarks.ablate import Trial, Variant, ablate
from training.benchmarks.draws import Scenes
from training.benchmarks.scenes_baselines import (
    chance,
    motion_curves,
    motion_proposals,
    train_supervised,
)
from training.benchmarks.scenes_results import BenchmarkResults, ResultRow, row_of
from training.evaluation.average_precision import map_of
from training.evaluation.whole_video import propose_whole_video
from training.export.ensemble import ensemble_of
from training.learning.checkpoints import TrainedNetwork, load_run
from training.live_defaults import PROPOSALS
from training.records import VideoRecord

MOTION_CACHE = "motion.npz"
RANDOM_DRAWS = 20  # how often the chance baseline is drawn; its mean is what is reported

# Subset whose cameras were not trained on → name of the row scored with their own mean.
OWN_CAMERA_MEAN = "{subset}, own background"

# Networks of one variant → name of the row in which they are one.
TOGETHER = "{variant}, {n} as one"

Found = Mapping[str, Sequence[Proposal]]


def run_benchmark(
    scenes: Scenes,
    content: Mapping[str, Any],
    variants: Sequence[Variant],
    seeds: Sequence[int],
    out: Path,
    *,
    supervised: Sequence[Variant] = (),
    proposals: ProposalSpec = PROPOSALS,
    rungs: Sequence[Rung] = (Rung.FULL,),
    together: int = 1,
    threads: int | None = 1,
    on_rows: Callable[[Sequence[ResultRow]], None] = lambda _rows: None,
) -> BenchmarkResults:
    """Train and score everything; trained runs under ``out`` are not trained again.

    Args:
        scenes: One draw.
        content: YAML values of the configuration that variants change.
        variants: Variants that are trained on tags.
        seeds: Each variant is trained under each seed.
        out: Folder of the benchmark. ``VARIANT/seed-N`` in it are run folders; results and the
            motion curves lie beside them.
        supervised: Variants that are trained on the intervals of the training subset; may be
            empty.
        proposals: How scores become intervals.
        rungs: Networks are scored on what each of these rungs looks at; see ``engine.economy``.
        together: Of each variant, so many seeds after one another are scored as one network, too;
            1 for none.
        threads: CPU threads of torch.
        on_rows: Gets the rows of every finished trial.

    Returns:
        Rows in the order they were made, the untrained baselines first.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = untrained_baselines(scenes, proposals, out / MOTION_CACHE)
    on_rows(rows)

    def score(variant: str, seed: int, run: TrainedNetwork) -> None:
        found = [
            row
            for rung in rungs
            for row in subset_rows(run, on_rung(scenes, rung), variant, seed, proposals)
        ]
        rows.extend(found)
        BenchmarkResults(tuple(rows), scenes.tagged.class_names).write(out)
        on_rows(found)

    def score_trial(trial: Trial) -> None:
        score(trial.variant, trial.seed, load_run(out / trial.variant / f"seed-{trial.seed}"))

    ablate(
        content,
        variants,
        seeds,
        scenes.tagged,
        out,
        _no_measures,  # runs are scored anew each time: proposals and subsets may have changed
        manifest=scenes.manifest,
        threads=threads,
        on_trial=score_trial,
    )
    for variant in variants:
        for group in _groups(seeds, together):
            runs = [load_run(out / variant.name / f"seed-{seed}") for seed in group]
            score(TOGETHER.format(variant=variant.name, n=together), group[0], ensemble_of(runs))
    for variant, seed in itertools.product(supervised, seeds):
        folder = out / variant.name / f"seed-{seed}"
        run = train_supervised(content, variant, seed, scenes.annotated, folder, threads=threads)
        score(variant.name, seed, run)
    results = BenchmarkResults(tuple(rows), scenes.tagged.class_names)
    results.write(out)
    return results


def _groups(seeds: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return seeds by ``size``, each once; those that fill no group are left out."""
    starts = range(0, len(seeds) - size + 1, size) if size > 1 else ()
    return [seeds[start : start + size] for start in starts]


def on_rung(scenes: Scenes, rung: Rung) -> Scenes:
    """Return the same with what is scored as a camera sees it that looks at less."""
    if rung is Rung.FULL:
        return scenes
    seen = {
        f"{subset}, {rung.value}": tuple(
            replace(one, features=seen_on_rung(one.features, one.indices, rung.every))
            for one in records
        )
        for subset, records in scenes.subsets.items()
    }
    return replace(scenes, subsets=seen)


def subset_rows(
    run: TrainedNetwork,
    scenes: Scenes,
    variant: str,
    seed: int,
    proposals: ProposalSpec = PROPOSALS,
) -> list[ResultRow]:
    """Score a run: a row for each subset, and a second one if training did not know its cameras.

    For a camera that training did not know, the first row takes the mean of all training videos,
    as a daemon does that sees the camera for the first time. The second row takes the mean of the
    camera's *other* videos, as a daemon has it that watched the camera for some minutes before.
    """
    rows = []
    for subset, records in scenes.subsets.items():
        camera_means = {record.name: run.camera_mean(record.camera) for record in records}
        found = _localized(run, records, camera_means, proposals)
        rows.append(_row(scenes, variant, seed, subset, records, found))
        is_new = any(record.camera not in run.camera_means for record in records)
        if is_new and run.config.background == "camera":
            own = {record.name: other_videos_mean(record, records) for record in records}
            found = _localized(run, records, own, proposals)
            name = OWN_CAMERA_MEAN.format(subset=subset)
            rows.append(_row(scenes, variant, seed, name, records, found))
    return rows


def _localized(
    run: TrainedNetwork,
    records: Sequence[VideoRecord],
    camera_means: Mapping[str, FloatArray],
    proposals: ProposalSpec,
) -> Found:
    """Find proposals in each record; ``camera_means`` is record → float32 (D,)."""
    return {
        record.name: propose_whole_video(run, record, camera_means[record.name], proposals)
        for record in records
    }


def other_videos_mean(record: VideoRecord, records: Sequence[VideoRecord]) -> FloatArray:
    """Average the features of the camera's other videos, or of its only one; float32 (D,)."""
    camera = [one for one in records if one.camera == record.camera]
    others = [one.features for one in camera if one.name != record.name] or [record.features]
    return np.asarray(np.concatenate(others).mean(axis=0, dtype=np.float64), np.float32)


def untrained_baselines(scenes: Scenes, proposals: ProposalSpec, cache: Path) -> list[ResultRow]:
    """Score chance and motion energy; both know each video's true tags, the networks do not.

    Where there are no video files, there is no motion energy.
    """
    rows = []
    for subset, some in scenes.subsets.items():
        for seed in range(RANDOM_DRAWS):
            guesses = chance(some, scenes.annotated, np.random.default_rng(seed))
            rows.append(_row(scenes, "chance", seed, subset, some, guesses))
    return (
        rows if scenes.videos is None else rows + _motion(scenes, scenes.videos, proposals, cache)
    )


def _motion(scenes: Scenes, videos: Path, proposals: ProposalSpec, cache: Path) -> list[ResultRow]:
    """Score motion energy on every subset."""
    grid, n_classes = scenes.tagged.grid, len(scenes.tagged.class_names)
    records = [record for some in scenes.subsets.values() for record in some]
    curves = motion_curves(records, videos, grid, cache)
    moving = {
        record.name: motion_proposals(record, curves[record.name], n_classes, grid, proposals)
        for record in records
    }
    return [
        _row(
            scenes, "motion energy", 0, subset, some, {one.name: moving[one.name] for one in some}
        )
        for subset, some in scenes.subsets.items()
    ]


def _row(
    scenes: Scenes,
    variant: str,
    seed: int,
    subset: str,
    records: Sequence[VideoRecord],
    found: Found,
) -> ResultRow:
    result = map_of(records, found, len(scenes.tagged.class_names))
    return row_of(scenes.name, variant, seed, subset, result)


def _no_measures(_run: TrainedNetwork) -> Mapping[str, float]:
    return {}
