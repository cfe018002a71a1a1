"""What a teacher found in clips → the targets of a second look at them."""

from collections.abc import Sequence

from engine.types import FloatArray
from training.config import Points, PseudoLabels
from training.learning.batches import Bag
from training.learning.click_looks import leaning_scores, spread_of_clicks
from training.learning.point_segments import with_points
from training.learning.pseudo_labels import pseudo_targets

# Clicks anywhere in rendered actions have .53, late ones .18, those in the middle .07.
_LEAST_SPREAD = 0.25


def segments_of(
    scores: Sequence[FloatArray], bags: Sequence[Bag], labels: PseudoLabels, clicks: Points
) -> list[FloatArray]:
    """Make pseudo labels of all clips, grown from clicks where given.

    Args:
        scores: float32 (R, C) in [0, 1] of each clip, the teacher's.
        bags: The clips, R rows each.
        labels: How pseudo labels are made.
        clicks: How segments grow from clicks.

    Returns:
        float32 (R, C) in [0, 1] of each clip.
    """
    targets = [
        pseudo_targets(found, bag.tags, labels) for found, bag in zip(scores, bags, strict=True)
    ]
    points = [bag.points for bag in bags]
    if all(clicked is None for clicked in points):
        return targets
    features, means = [bag.features for bag in bags], [bag.camera_mean for bag in bags]
    leant = leaning_scores(scores, features, means, points, labels.share, clicks)
    return [
        each
        if clicked is None
        else with_points(each, found, clicked, share=labels.share, level=clicks.level)
        for each, found, clicked in zip(targets, leant, points, strict=True)
    ]


def click_note(
    scores: Sequence[FloatArray], bags: Sequence[Bag], labels: PseudoLabels, clicks: Points
) -> str | None:
    """Say if clicks lie so that they tell little of edges; arguments as of ``segments_of``."""
    if not clicks.lean:
        return None
    spread = spread_of_clicks(scores, [bag.points for bag in bags], labels.share, clicks.reach)
    if spread is None or spread >= _LEAST_SPREAD:
        return None
    return (
        f"clicks keep to one part of their actions (spread {spread:.2f}; anywhere in them has "
        "about 0.5), so they say little of where these begin and end: click sooner and later, too"
    )
