"""How an exported network is run live, unless somebody measured something better for theirs.

Windows and thresholds are those that the study of online localization on rendered scenes found.
They are given in seconds, so that they hold at any stride.
"""

from dataclasses import replace
from typing import Any

from engine.grid import US_PER_S, Grid
from engine.spec import ProposalSpec, TrackerSpec, WindowSpec

WINDOW_S = 7.68
RESCORED_S = 2.56
TRACKED_S = 15.36
MAX_GAP_US = 500_000

PROPOSALS = ProposalSpec(
    step_us=80_000,
    absolute_levels=(0.03, 0.06, *(round(0.05 * n, 2) for n in range(2, 20))),
    relative_levels=tuple(round(0.1 * n, 1) for n in range(1, 10)),
    outer_weight=1.0,
    outer_ratio=0.25,
    video_weight=0.2,
    min_us=1_200_000,
    soft_nms_sigma=0.3,
    min_peak=0.1,
)
# For long videos of many classes, whose scores are softmax shares: every class is searched at
# levels relative to its own peak, and whether it happens at all is left to the score (methods.md
# section 1.6, recipe A).
PUBLISHED_PROPOSALS = ProposalSpec(
    step_us=80_000,
    absolute_levels=(),
    relative_levels=tuple(round(0.05 * n, 2) for n in range(2, 19)),
    outer_weight=1.0,
    outer_ratio=0.25,
    video_weight=0.2,
    min_us=0,
    soft_nms_sigma=0.3,
    min_peak=1e-4,
)
# Chosen on the validation videos of rendered scenes (DECISIONS, 20).
TRACKER = TrackerSpec(
    open_score=0.33,
    keep_score=0.2,
    freeze_us=640_000,
    retract_hops=2,
    nms_tiou=0.1,
    block_tiou=0.2,
    block_cover=0.5,
)


def live_defaults(grid: Grid, look_ahead: int | None = None) -> dict[str, Any]:
    """Return the fields of ``ModelCard`` that ``export`` sets: window, proposals, tracker.

    Args:
        grid: The grid of the features.
        look_ahead: Of an online student, after how many hops an event's end is final. None: a
            network that was trained on whole videos.
    """

    def snippets(length_s: float) -> int:
        return max(1, round(length_s * US_PER_S / grid.stride_us))

    window = WindowSpec(
        window_snippets=snippets(WINDOW_S),
        hop_snippets=1,
        rescore_snippets=snippets(RESCORED_S),
        track_snippets=snippets(TRACKED_S),
        max_gap_us=MAX_GAP_US,
    )
    tracker = TRACKER
    if look_ahead is not None:
        tracker = replace(TRACKER, freeze_us=look_ahead * grid.stride_us)
    return {"window": window, "proposals": PROPOSALS, "tracker": tracker}
