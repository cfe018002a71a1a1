"""What came nearest to an event where there was none, in the words of what decides. Pure."""

from collections.abc import Callable

from daemon.timeline.lanes import CurveSet, Lane, lanes_by_class, nearness
from daemon.timeline.text import clock, score, scores_apart


def nearest(curves: CurveSet | None, open_score_of: Callable[[str], float]) -> Lane | None:
    """The class that came nearest to an event; None if no class has a curve."""
    lanes = lanes_by_class(curves, open_score_of).values()
    return min(lanes, key=nearness) if lanes else None


def what_it_lacked(lane: Lane, name: str) -> str:
    """A sentence on what kept a class from an event; empty if nothing did.

    An event's score tells how much it stands out, so a high curve alone makes no event.

    Args:
        lane: The class, with its curve and what it needs.
        name: The class's name as it is to be shown.
    """
    needed = lane.open_score or 0.0
    if lane.contrast is not None and lane.contrast.peak > 0:
        if lane.contrast.peak >= needed:
            return ""
        seen, wanted = scores_apart(lane.contrast.peak, needed)
        return (
            f"{name} came nearest: it stood out from its surroundings by {seen} at "
            f"{clock(lane.contrast.peak_us)}; an event needs {wanted}."
        )
    begin = "The" if lane.contrast is None else "Nothing stood out: the"
    peak = f", {score(lane.curve.peak)} at {clock(lane.curve.peak_us)}" if lane.curve else ""
    return (
        f"{begin} highest curve is that of {name}{peak}; an event must stand out from its "
        f"surroundings by {score(needed)}."
    )


def lacked_briefly(lane: Lane) -> str:
    """The same for a column of scores; empty if nothing stood out."""
    if lane.contrast is None or lane.contrast.peak <= 0:
        return ""
    seen, wanted = scores_apart(lane.contrast.peak, lane.open_score or 0.0)
    return f"{seen} < {wanted}"
