"""What a network is compared with: chance, motion energy, supervision with intervals."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.grid import Grid
from engine.spec import FrameGeometry, ProposalSpec
from engine.tiou import Intervals, covers
from engine.types import FloatArray, Proposal, Span
from engine.video.frames import read_video
from training.benchmarks.ablate import Variant
from training.config import TrainingConfig, training_config, with_overrides
from training.evaluation.whole_video import proposals_of
from training.learning.batches import Bag, camera_means, training_bags
from training.learning.checkpoints import CHECKPOINT, TrainedNetwork, load_run, save_run
from training.learning.learner import Learner
from training.records import FeatureSet, VideoRecord

GUESSES_A_TAG = 10
MOTION_GEOMETRY = FrameGeometry(resize_px=64, crop_px=64)

_PHASE = 3  # part of every seed; the trainer's own phases are 0..2
_DARKEST = 5  # percentile of a video's motion that counts as none


def chance(
    records: Sequence[VideoRecord], training: FeatureSet, rng: np.random.Generator
) -> dict[str, list[Proposal]]:
    """Guess random intervals for every true tag.

    Lengths are drawn as in training, places and scores uniformly.
    """
    lengths_us = np.array(
        [action.span.duration_us for record in training.records for action in record.truth or ()],
        np.int64,
    )
    return {
        record.name: [
            _guess(record, class_index, int(rng.choice(lengths_us)), rng)
            for class_index in record.tags or ()
            for _ in range(GUESSES_A_TAG)
        ]
        for record in records
    }


def _guess(
    record: VideoRecord, class_index: int, length_us: int, rng: np.random.Generator
) -> Proposal:
    length_us = min(length_us, record.duration_us)
    start_us = int(rng.integers(record.duration_us - length_us + 1))
    return Proposal(class_index, Span(start_us, start_us + length_us), float(rng.random()))


def motion_curves(
    records: Sequence[VideoRecord], videos: Path, grid: Grid, cache: Path
) -> dict[str, FloatArray]:
    """Measure the motion energy at every row of every record, reading ``VIDEO.mp4`` only once.

    Args:
        records: The videos.
        videos: Folder of the video files.
        grid: Grid of the records' snippets.
        cache: An npz file that keeps what was measured.

    Returns:
        Video → float32 (T,), in [0, 1].
    """
    kept: dict[str, FloatArray] = {}
    if cache.exists():
        with np.load(cache, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
    wanted = {record.name: record for record in records}
    if missing := [record for name, record in wanted.items() if name not in kept]:
        kept |= {
            record.name: motion_curve(videos / f"{record.name}.mp4", record, grid)
            for record in missing
        }
        with cache.open("wb") as file:
            np.savez(file, **kept)  # type: ignore[arg-type] # the stub knows no names
    return {name: kept[name] for name in wanted}


def motion_curve(video: Path, record: VideoRecord, grid: Grid) -> FloatArray:
    """Return each snippet's mean absolute change from frame to frame, float32 (T,), in [0, 1].

    0 is the video's 5th percentile and 1 its maximum, so that what a fixed camera's noise adds is
    taken off.
    """
    times_us, changes = [], []
    before = None
    for batch in read_video(video, MOTION_GEOMETRY, grid):
        grey = batch.rgb.mean(axis=-1, dtype=np.float32)
        for time_us, frame in zip(batch.pts_us.tolist(), grey, strict=True):
            times_us.append(time_us)
            changes.append(0.0 if before is None else float(np.abs(frame - before).mean()))
            before = frame
    sums = np.concatenate([[0.0], np.cumsum(changes)])
    starts_us = [grid.snippet_start_us(int(index)) for index in record.indices]
    first = np.searchsorted(times_us, starts_us)
    end = np.searchsorted(times_us, np.add(starts_us, grid.snippet_us))
    energy = (sums[end] - sums[first]) / np.maximum(end - first, 1)
    low = np.percentile(energy, _DARKEST)
    spread = max(float(energy.max() - low), 1e-9)
    return np.asarray(np.clip((energy - low) / spread, 0, 1), np.float32)


def motion_proposals(
    record: VideoRecord, curve: FloatArray, n_classes: int, grid: Grid, spec: ProposalSpec
) -> list[Proposal]:
    """Make proposals of a motion curve float32 (T,) as of scores, for every true tag."""
    scores = np.repeat(curve[:, None], n_classes, axis=1)
    return proposals_of(record, scores, grid, spec, record.tags or ())


def frame_targets(record: VideoRecord, n_classes: int, grid: Grid) -> FloatArray:
    """Return the share of each snippet's middle that a class's actions cover, float32 (T, C).

    The middle is as long as the stride, so that the middles of all snippets tile the video.
    """
    targets = np.zeros((len(record.indices), n_classes), np.float32)
    inset_us = (grid.snippet_us - grid.stride_us) // 2
    starts_us = np.array([grid.snippet_start_us(int(i)) for i in record.indices]) + inset_us
    hops = Intervals(starts_us, starts_us + grid.stride_us)
    for action in record.truth or ():
        targets[:, action.class_id] += covers(hops, action.span)
    return np.minimum(targets, 1)


def train_supervised(
    content: Mapping[str, Any],
    variant: Variant,
    seed: int,
    annotated: FeatureSet,
    out: Path,
    *,
    manifest: Mapping[str, Any] | None = None,
    threads: int | None = 1,
) -> TrainedNetwork:
    """Train the same network on the true intervals, in one round of frame cross-entropy.

    Args:
        content: YAML values of the configuration.
        variant: Its changes, such as a ``schedule.length`` of this baseline's own.
        seed: Seed of weights, order and dropout.
        annotated: Records with intervals.
        out: Run folder; if it holds a finished training of the same configuration and data, that
            is given back.
        manifest: The features' own manifest.
        threads: CPU threads of torch while it trains.
    """
    changes = {**variant.changes, "seed": seed, "rounds": 1}
    config = training_config(with_overrides(content, changes, variant.name), variant.name)
    known = camera_means(annotated.records)
    if config.background == "none":
        known = {"": np.zeros(annotated.feature_dim, np.float32)}
    bags = _labelled(annotated, known)
    identity = _identity(config, bags)
    if (out / CHECKPOINT).exists():
        run = load_run(out)
        if run.identity == identity:
            return run
    out.mkdir(parents=True, exist_ok=True)
    run = TrainedNetwork(
        network=_learned(config, bags, identity, threads),
        config=config,
        class_names=annotated.class_names,
        feature_dim=annotated.feature_dim,
        grid=annotated.grid,
        camera_means=known,
        manifest=dict(manifest or {}),
        identity=identity,
    )
    save_run(run, out)
    return run


def _labelled(annotated: FeatureSet, known: Mapping[str, FloatArray]) -> list[Bag]:
    """Make bags with true targets (T, C); ``known`` is camera → camera mean float32 (D,)."""
    n_classes = len(annotated.class_names)
    targets = {
        record.name: frame_targets(record, n_classes, annotated.grid)
        for record in annotated.records
    }
    return [replace(bag, targets=targets[bag.name]) for bag in training_bags(annotated, known)]


def _learned(config: TrainingConfig, bags: list[Bag], identity: str, threads: int | None) -> Any:
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads or n_threads)
        try:
            learner = Learner(
                config,
                config.network,
                bags,
                round_number=_PHASE,
                name="supervised",
                device=torch.device("cpu"),
                identity=identity,
            )
            for step in range(config.schedule.iterations(len(bags), config.batches.bags)):
                learner.step(step)
        finally:
            torch.set_num_threads(n_threads)
    return learner.average


def _identity(config: TrainingConfig, bags: list[Bag]) -> str:
    unused = {"log", "points", "hard_negatives"}  # nothing is clicked, and nothing is quiet
    decisive = {key: value for key, value in config.content.items() if key not in unused}
    digest = hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=16)
    for bag in bags:
        digest.update(bag.name.encode())
        digest.update(np.ascontiguousarray(bag.features).data)
        digest.update(np.ascontiguousarray(bag.targets).data)
    return f"supervised-{digest.hexdigest()}"
