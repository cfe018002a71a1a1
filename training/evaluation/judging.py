"""A training's judgement of itself: the same training once more without some of the cameras.

What it has not seen is ranked by it, by chance and by the plainest model there is, a regression
on mean features. Only tags are looked at. Whole cameras are held out, for clips of one camera are
alike; single clips where fewer than three cameras are named, or where each shows classes of its
own.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import DataError
from engine.types import BoolArray, FloatArray
from training.config import TrainingConfig
from training.evaluation.linear import linear_scores, mean_features
from training.learning.progress import Progress
from training.learning.scoring import video_scores
from training.learning.stopping import average_precision
from training.learning.train import train
from training.records import FeatureSet, VideoRecord

HELD_OUT = "held_out.json"
_SHARE = 0.25
_MOST_SHARE = 0.5
_TRIES = 500
_LEAST_VIDEOS = 8
_LEAST_CAMERAS = 3


@dataclass(frozen=True, slots=True)
class ClassJudgement:
    """How well one class's held-out videos are ranked, average precision 0..100.

    Attributes:
        name: The class.
        n_learned: Videos of the class that were trained on.
        n_held_out: And that were not.
        chance: Of an order by chance: the share of the class among the held-out videos.
        linear: Of the regression on mean features.
        network: Of the network.
    """

    name: str
    n_learned: int
    n_held_out: int
    chance: float
    linear: float
    network: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a training is worth on what it has not seen.

    Attributes:
        cameras: Those that were held out; empty: single videos were.
        n_learned: Videos that were trained on.
        n_held_out: Videos that were not.
        classes: Those that both sides have, and that not all held-out videos show.
    """

    cameras: tuple[str, ...]
    n_learned: int
    n_held_out: int
    classes: tuple[ClassJudgement, ...]

    @property
    def chance(self) -> float:
        """Mean over the classes, 0..100."""
        return float(np.mean([row.chance for row in self.classes]))

    @property
    def linear(self) -> float:
        """Mean over the classes, 0..100."""
        return float(np.mean([row.linear for row in self.classes]))

    @property
    def network(self) -> float:
        """Mean over the classes, 0..100."""
        return float(np.mean([row.network for row in self.classes]))

    def lines(self) -> list[str]:
        """It as a table for people."""
        what = f"cameras {', '.join(self.cameras)}" if self.cameras else "clips"
        names = ("clips", "held out", "chance", "linear", "trained")
        told = (
            f"judged on {self.n_held_out} clips of held-out {what}; {self.n_learned} others were "
            "trained on. Average precision of ranking whole clips, by tags alone:"
        )
        rows = [told, f"  {'class':20} {' '.join(f'{name:>8}' for name in names)}"]
        rows += [
            f"  {row.name:20.20} {row.n_learned + row.n_held_out:8} {row.n_held_out:8} "
            f"{row.chance:8.1f} {row.linear:8.1f} {row.network:8.1f}"
            for row in self.classes
        ]
        mean = f"{self.chance:8.1f} {self.linear:8.1f} {self.network:8.1f}"
        return [*rows, f"  {'mean':20} {'':8} {'':8} {mean}"]

    def warning(self) -> str | None:
        """What must be said loudly; None: nothing."""
        if self.network < self.linear:
            return (
                f"on what it has not seen, a plain regression on mean features ranks clips better "
                f"({self.linear:.1f} against {self.network:.1f}): do not trust this network yet; "
                "tag more clips of more cameras, or try another --config"
            )
        return None


def judge(
    config: TrainingConfig,
    feature_set: FeatureSet,
    out: Path,
    *,
    quiet: FeatureSet | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = True,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Judgement:
    """Train without some of the cameras, and rank their clips; ``out`` keeps the judgement.

    Args:
        config: As of the training that is judged.
        feature_set: As of that training.
        out: Its run folder. The second training has a folder in it, and goes on or is given back
            as any other.
        quiet: As of ``train``; that of held-out cameras is held out too.
        device: As of ``train``.
        threads: As of ``train``.
        resume: As of ``train``.
        on_progress: As of ``train``.

    Raises:
        DataError: There are too few clips to hold some out, or the rest cannot be trained on.
    """
    tagged = [record for record in feature_set.records if record.tags is not None]
    tags = _tags_of(tagged, len(feature_set.class_names))
    apart, cameras = _held_out(tagged, tags, config.seed)
    learned = [record for record, is_out in zip(tagged, apart, strict=True) if not is_out]
    judged = [record for record, is_out in zip(tagged, apart, strict=True) if is_out]
    run = train(
        config,
        replace(feature_set, records=tuple(learned)),
        out / "held-out",
        quiet=None if quiet is None else _without(quiet, cameras),
        device=device,
        threads=threads,
        resume=resume,
        on_progress=on_progress,
    )
    network = np.stack(
        [video_scores(run.network, record, run.camera_mean(record.camera)) for record in judged]
    )
    linear = linear_scores(mean_features(learned), tags[~apart], mean_features(judged)).astype(
        np.float32
    )
    rows = tuple(
        ClassJudgement(
            name=feature_set.class_names[index],
            n_learned=int(tags[~apart, index].sum()),
            n_held_out=int(tags[apart, index].sum()),
            chance=100 * float(tags[apart, index].mean()),
            linear=100 * average_precision(linear[:, index], tags[apart, index] > 0),
            network=100 * average_precision(network[:, index], tags[apart, index] > 0),
        )
        for index in _judged_classes(tags, apart)
    )
    judgement = Judgement(cameras, len(learned), len(judged), rows)
    (out / HELD_OUT).write_text(json.dumps(asdict(judgement), indent=1) + "\n", encoding="utf-8")
    return judgement


def _without(quiet: FeatureSet, cameras: Sequence[str]) -> FeatureSet | None:
    """Leave out what is of these cameras; None if nothing is left."""
    left = tuple(record for record in quiet.records if record.camera not in cameras)
    return replace(quiet, records=left) if left else None


def _held_out(
    records: Sequence[VideoRecord], tags: FloatArray, seed: int
) -> tuple[BoolArray, tuple[str, ...]]:
    """Choose whole cameras, or else clips, so that as many classes as possible can be judged.

    Returns:
        bool (N,), true where a video is held out, and the cameras' names.

    Raises:
        DataError: There are too few, or no choice lets any class be judged.
    """
    if len(records) < _LEAST_VIDEOS:
        raise DataError(
            f"{len(records)} tagged clips, and to judge takes {_LEAST_VIDEOS}: tag more"
        )
    cameras = np.array([record.camera for record in records])
    singles = np.arange(len(records)).astype(str)
    if len(np.unique(cameras)) >= _LEAST_CAMERAS and all(cameras):
        apart = _chosen(cameras, tags, seed)
        if apart is not None:
            return apart, tuple(np.unique(cameras[apart]).tolist())
    apart = _chosen(singles, tags, seed)
    if apart is None:
        raise DataError(
            "whichever clips are held out, no class is on both sides: tag more clips, and some "
            "that show nothing"
        )
    return apart, ()


def _chosen(owners: npt.NDArray[np.str_], tags: FloatArray, seed: int) -> BoolArray | None:
    """Choose owners whose videos are held out: the best of many choices by chance; None: none is.

    Args:
        owners: (N,), whose videos stay together.
        tags: float32 (N, C), 1 where tagged.
        seed: Seed of the choices.
    """
    rng = np.random.default_rng([seed, 0x0DD])
    best, chosen = (0, 0.0), None
    for _ in range(_TRIES):
        apart = np.zeros(len(owners), bool)
        for owner in rng.permutation(np.unique(owners)):
            if apart.mean() >= _SHARE:
                break
            apart |= owners == owner
        worth = (len(_judged_classes(tags, apart)), -abs(float(apart.mean()) - _SHARE))
        if apart.mean() <= _MOST_SHARE and worth[0] and (chosen is None or worth > best):
            best, chosen = worth, apart
    return chosen


def _judged_classes(tags: FloatArray, apart: BoolArray) -> list[int]:
    """Classes (C) that are learned, and that some of the held-out videos show and some do not."""
    n_out = tags[apart].sum(axis=0)
    is_judged = (tags[~apart].sum(axis=0) > 0) & (n_out > 0) & (n_out < apart.sum())
    return np.flatnonzero(is_judged).tolist()


def _tags_of(records: Sequence[VideoRecord], n_classes: int) -> FloatArray:
    """float32 (N, C), 1 where tagged."""
    tags = np.zeros((len(records), n_classes), np.float32)
    for row, record in enumerate(records):
        tags[row, list(record.tags or ())] = 1
    return tags
