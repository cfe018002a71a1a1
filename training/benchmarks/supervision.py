"""The three kinds of supervision, of the same clips: tags, one click an action, intervals."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from training.benchmarks.ablate import Variant
from training.benchmarks.scenes_baselines import train_supervised
from training.config import training_config, with_overrides
from training.learning.checkpoints import TrainedNetwork
from training.learning.train import train
from training.records import FeatureSet, Point, VideoRecord

Supervision = Literal["tags", "points", "intervals"]
SUPERVISIONS: tuple[Supervision, ...] = get_args(Supervision)


def clicked(annotated: FeatureSet, seed: int) -> FeatureSet:
    """Click every action once, somewhere inside it by chance, and forget its interval.

    Args:
        annotated: Videos with intervals.
        seed: Another seed clicks elsewhere.
    """
    rng = np.random.default_rng([seed, 0xC11C])
    return replace(annotated, records=tuple(_clicked(record, rng) for record in annotated.records))


def _clicked(record: VideoRecord, rng: np.random.Generator) -> VideoRecord:
    points = [
        Point(action.class_id, int(rng.integers(action.span.start_us, action.span.end_us)))
        for action in record.truth or ()
    ]
    in_order = tuple(sorted(points, key=lambda point: (point.time_us, point.class_id)))
    return replace(record, truth=None, points=in_order)


def train_under(
    supervision: Supervision,
    content: Mapping[str, Any],
    seed: int,
    tagged: FeatureSet,
    annotated: FeatureSet,
    out: Path,
    *,
    manifest: Mapping[str, Any] | None = None,
    threads: int | None = 1,
) -> TrainedNetwork:
    """Train one network on what one kind of supervision says; a finished run is given back.

    Args:
        supervision: ``tags`` trains as the configuration says. ``points`` adds clicks, and a
            second round, which grows segments from them. ``intervals`` is one round of the
            network's own losses beside the cross-entropy of every snippet against the truth.
        content: YAML values of the configuration.
        seed: Of weights, order and dropout, and of where is clicked.
        tagged: The clips with their tags.
        annotated: The same with intervals.
        out: The run folder.
        manifest: The features' own manifest.
        threads: CPU threads of torch.
    """
    if supervision == "intervals":
        variant = Variant("intervals", {})
        return train_supervised(
            content, variant, seed, annotated, out, manifest=manifest, threads=threads
        )
    changes = {"seed": seed} | ({"rounds": 2} if supervision == "points" else {})
    config = training_config(with_overrides(content, changes, supervision), supervision)
    videos = clicked(annotated, seed) if supervision == "points" else tagged
    return train(config, videos, out, manifest=manifest, threads=threads)
