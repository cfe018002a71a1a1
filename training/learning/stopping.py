"""When training stops, judged by tags alone; intervals are never looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import DataError
from engine.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Check:
    """One measurement during training.

    Attributes:
        iterations: Iterations done by then.
        tag_map: mAP of the held-out videos' tags, 0..100.
    """

    iterations: int
    tag_map: float


def chosen_iterations(checks: Sequence[Check], within: float) -> int:
    """Return the iterations of the first check within ``within`` points of the best.

    Longer training keeps the tags right while scores collapse onto the cores of actions. That is
    why the earliest of equally good checks is taken. Source: scenes.md section 3, measured there.
    """
    best = max(check.tag_map for check in checks)
    return next(check.iterations for check in checks if check.tag_map >= best - within)


def tag_map(scores: FloatArray, tags: FloatArray) -> float:
    """Return the mAP, 0..100, of video scores against tags.

    Only classes that have both tagged and untagged videos count.

    Args:
        scores: float32 (N, C).
        tags: float32 (N, C), 1 where tagged.

    Raises:
        DataError: There is no such class.
    """
    judged = [
        average_precision(scores[:, class_index], tags[:, class_index] > 0)
        for class_index in range(tags.shape[1])
        if 0 < tags[:, class_index].sum() < len(tags)
    ]
    if not judged:
        raise DataError(
            "stopping.rule is label_free, but the held-out videos tell no class from another: "
            "set it to fixed, or tag more videos"
        )
    return 100 * float(np.mean(judged))


def average_precision(scores: FloatArray, positive: BoolArray) -> float:
    """Return the mean precision at each positive, in [0, 1]; negatives come first at equal scores.

    Args:
        scores: float32 (N,).
        positive: bool (N,), at least one of them true.
    """
    order = np.lexsort((positive, -scores))
    hits = positive[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def held_out(tags: FloatArray, share: float, seed: int) -> BoolArray:
    """Choose which videos to hold out: about ``share`` of every set of tags, at random.

    Args:
        tags: float32 (N, C), 1 where tagged.
        share: In (0, 1).
        seed: Seed of the choice.

    Returns:
        bool (N,), True where the video is held out.
    """
    shuffled = np.random.default_rng([seed, 0x401D]).permutation(len(tags))
    # Sorted by tags, every (1 / share)-th video takes its share of each set of tags.
    order = shuffled[np.lexsort(tags[shuffled].T)]
    places = np.arange(len(tags)) * share
    taken = np.zeros(len(tags), bool)
    taken[order] = np.floor(places + share) > np.floor(places)
    return taken
