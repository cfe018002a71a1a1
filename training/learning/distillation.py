"""A teacher that saw whole clips → what an online student learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from engine.errors import DataError
from engine.files.strict_yaml import plain
from engine.types import FloatArray
from training.config import Points, PseudoLabels
from training.learning.batches import Bag
from training.learning.checkpoints import TrainedNetwork
from training.learning.second_look import segments_of
from training.networks.online import OnlineConfig, online_config
from training.records import FeatureSet

LOOK_AHEAD = 2  # hops
# The student's one round, twice as long as a teacher's; no other length was tried.
SCHEDULE = {"unit": "epochs", "length": 30}


def student_content(content: Mapping[str, Any], look_ahead: int | None) -> dict[str, Any]:
    """Change a configuration's YAML values into those of an online student.

    Args:
        content: The values. The data, the optimiser and the like stay; so does the whole of a
            configuration that is a student's already.
        look_ahead: Hops after which the student's events are final; None: as many as ``content``
            says, or else ``LOOK_AHEAD``.

    Raises:
        DataError: The student cannot look so far ahead.
    """
    given, stopping = content.get("network"), content.get("stopping")
    if isinstance(given, Mapping) and given.get("kind") == "online":
        known = {} if look_ahead is None else {"look_ahead": look_ahead}
        return {**content, "network": {**given, **known}}
    try:
        network = plain(online_config(LOOK_AHEAD if look_ahead is None else look_ahead))
    except ValueError as error:
        raise DataError(f"--look-ahead: {error}") from error
    changed: dict[str, Any] = {"teacher": {}, "rounds": 1, "schedule": dict(SCHEDULE)}
    if isinstance(stopping, Mapping):
        changed["stopping"] = {**stopping, "rule": "fixed"}
    return {**content, **changed, "network": {"kind": "online", **cast("dict[str, Any]", network)}}


def look_ahead_of(runs: Sequence[TrainedNetwork]) -> int | None:
    """After how many hops the events of students are final, the most of any; None: not all are."""
    configs = [run.config.network.config for run in runs]
    aheads = [config.look_ahead for config in configs if isinstance(config, OnlineConfig)]
    return max(aheads) if len(aheads) == len(configs) else None


def check_teacher(
    teacher: TrainedNetwork,
    student: object,
    feature_set: FeatureSet,
    manifest: Mapping[str, Any] | None,
    background: str,
) -> None:
    """Refuse a teacher that cannot teach this student on these features.

    Args:
        teacher: The run.
        student: The configuration of the network that learns.
        feature_set: What it learns on.
        manifest: The manifest of these features.
        background: What is subtracted from them, as of ``TrainingConfig``.

    Raises:
        DataError: The message says in what they differ.
    """
    if not isinstance(student, OnlineConfig):
        raise DataError("only an online student learns from a teacher: train it with --online")
    pairs = {
        # In any order: its scores are put into the one of these clips.
        "classes": (tuple(sorted(teacher.class_names)), tuple(sorted(feature_set.class_names))),
        "numbers a feature": (teacher.feature_dim, feature_set.feature_dim),
        "time grid": (teacher.grid, feature_set.grid),
        "background": (teacher.config.background, background),
        "features": (teacher.manifest, dict(manifest or {})),
    }
    for what, (known, wanted) in pairs.items():
        if known != wanted:
            raise DataError(
                f"the teacher's {what}: {_short(known)}, these clips': {_short(wanted)}; take a "
                "teacher that was trained on the same features and classes"
            )


def _short(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else f"{value!s:.80}"


def taught(
    bags: Sequence[Bag],
    scores: Sequence[FloatArray],
    config: OnlineConfig,
    labels: PseudoLabels,
    points: Points,
) -> list[Bag]:
    """Give clips the targets of a student.

    They are the teacher's scores of what a clip is tagged with, and the pseudo segments made of
    them, in the shares that the student's configuration says. As cross-entropy is linear in its
    targets, one loss of the mixture is the two losses of both.

    Args:
        bags: The clips, R rows each.
        scores: float32 (R, C) in [0, 1] of each, the teacher's of the whole clip.
        config: It says the shares.
        labels: How segments are made.
        points: How they grow from clicks.
    """
    segments = segments_of(scores, bags, labels, points)
    share = config.segments
    return [
        replace(
            bag,
            targets=np.asarray((1 - share) * found * bag.tags + share * grown, np.float32),
        )
        for bag, found, grown in zip(bags, scores, segments, strict=True)
    ]
