"""What a comparison measures of each training, and what is kept of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.types import Float64Array

RESULT = "comparison.json"


@dataclass(frozen=True, slots=True)
class Live:
    """What a live camera gets of a trained network, on the reported videos.

    Attributes:
        open_score: At which score events open: of `OPEN_SCORES` that with the best F1 on the
            validation videos.
        map_last: mAP of the last revisions, in [0, 1].
        precision: In [0, 1].
        recall: In [0, 1].
        open_delay_s: Median seconds from an action's start to its event's opening.
        final_delay_s: Median seconds from an action's end to its event's last revision.
        retraction_rate: In [0, 1].
        false_alarms_per_hour: On videos in which nothing happens.
    """

    open_score: float
    map_last: float
    precision: float
    recall: float
    open_delay_s: float
    final_delay_s: float
    retraction_rate: float
    false_alarms_per_hour: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One trained network, scored on one subset; mAPs are in [0, 1].

    Attributes:
        network: Row of ``NETWORKS``, or ``ensemble``.
        supervision: What it learned from.
        seed: Its seed.
        subset: The subset that was scored.
        per_tiou: The mAP at tIoU .1 to .7.
        per_class: C values, means over the tIoUs; NaN for a class without actions.
        resampled: Its average mAP on each of the same resamples of the videos.
        live: What it is worth live; None on subsets that were not run live.
    """

    network: str
    supervision: str
    seed: int
    subset: str
    per_tiou: tuple[float, ...]
    per_class: tuple[float, ...]
    resampled: tuple[float, ...]
    live: Live | None

    @property
    def average(self) -> float:
        """The mean over the tIoUs."""
        return float(np.mean(self.per_tiou))


def resampled_of(trials: Sequence[Trial]) -> Float64Array:
    """Stack the resampled mAPs of trials of one kind, float64 (S, W)."""
    return np.array([trial.resampled for trial in trials], np.float64)


def kept(path: Path, identity: str, subsets: set[str]) -> list[Trial] | None:
    """What was measured of this very training on these subsets before; None if it was not."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    trials = [_trial(one) for one in content["trials"]]
    is_it = content["identity"] == identity and {one.subset for one in trials} == subsets
    return trials if is_it else None


def keep(path: Path, identity: str, trials: Sequence[Trial]) -> None:
    """Write what ``kept`` reads."""
    content = {"identity": identity, "trials": [asdict(one) for one in trials]}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _trial(plain: dict[str, Any]) -> Trial:
    tuples = {name: tuple(plain[name]) for name in ("per_tiou", "per_class", "resampled")}
    live = None if plain["live"] is None else Live(**plain["live"])
    return Trial(**{**plain, **tuples, "live": live})
