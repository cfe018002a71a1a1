"""What the timeline page shows: the values it is given, and the lanes made of them. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from daemon.timeline.marks import hues
from engine.judging.histories import History
from engine.judging.truth import TruthSpan
from engine.types import FloatArray, Int64Array, Span

MAX_CURVES = 6
CURVE_X_UNITS = 100_000  # so fine that whole numbers do for the axis of a day
CURVE_Y_UNITS = 1000
_MAGNIFIED_BELOW = 0.5
NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True, eq=False)
class CurveSet:
    """Class scores over time.

    Attributes:
        times_us: int64 (N,), strictly increasing, in microseconds of stream time: the middle of
            each snippet that was scored.
        scores: float32 (N, C_shown) in [0, 1].
        class_names: The names of the C_shown classes.
        breaks: Rows that are the first after a gap, each in 1..N-1.
        attention: float32 (N,) in [0, 1]; None if it is not known.
    """

    times_us: Int64Array
    scores: FloatArray
    class_names: tuple[str, ...]
    breaks: tuple[int, ...] = ()
    attention: FloatArray | None = None

    def __post_init__(self) -> None:
        wanted = (len(self.times_us), len(self.class_names))
        if self.scores.shape != wanted:
            raise ValueError(f"scores are {self.scores.shape}, times and labels want {wanted}")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores hold values that are not finite")
        if (np.diff(self.times_us) <= 0).any():
            raise ValueError("times_us must rise")
        if any(not 0 < row < len(self.times_us) for row in self.breaks):
            raise ValueError(f"breaks {self.breaks} must lie in 1..{len(self.times_us) - 1}")
        if self.attention is not None and self.attention.shape != self.times_us.shape:
            raise ValueError(f"attention is {self.attention.shape}, wanted {wanted[:1]}")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG picture of one moment."""

    time_us: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Where reports and truth differ, to be marked on the page.

    Attributes:
        false_events: Ids of the events that report something that did not happen.
        missed: What happened and was not reported.
    """

    false_events: frozenset[str] = frozenset()
    missed: frozenset[TruthSpan[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Curve:
    """One score over time.

    Attributes:
        times_us: int64 (N,), N >= 1, as in ``CurveSet``.
        values: float32 (N,) in [0, 1].
        breaks: As in ``CurveSet``.
    """

    times_us: Int64Array
    values: FloatArray
    breaks: tuple[int, ...]

    @property
    def peak(self) -> float:
        """The highest value."""
        return float(self.values.max())

    @property
    def peak_us(self) -> int:
        """The time of the highest value, in microseconds."""
        return int(self.times_us[self.values.argmax()])


@dataclass(frozen=True, slots=True)
class Lane:
    """What the page shows of one class, or of attention.

    Attributes:
        class_name: The class's name.
        curve: Its scores; None if they are not known.
        events: Its events.
        truth: When it is known to have happened.
        hue: Name of its colour.
        open_score: The score that an event of it needs; None for attention, which has no events.
    """

    class_name: str
    curve: Curve | None
    events: tuple[History, ...] = ()
    truth: tuple[Span, ...] = ()
    hue: str = NEUTRAL
    open_score: float | None = None


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes, on which time runs over ``[0, end_us]`` and scores over ``[0, top]``.

    Attributes:
        end_us: Where the time axis ends, in microseconds.
        top: Where the score axis ends.
        row_of: Row of each event in the table, by event id.
        mistakes: Which events and truth to mark.
    """

    end_us: int
    top: float
    row_of: dict[str, int] = field(default_factory=dict)  # event id → row of the table
    mistakes: Mistakes = field(default_factory=Mistakes)

    def place(self, from_us: int, to_us: int | None = None) -> str:
        """CSS that puts an element at a moment of the time axis, or over an interval of it."""
        left = min(max(from_us, 0), self.end_us)
        at = f"left:{100 * left / self.end_us:.4f}%"
        if to_us is None:
            return at
        right = min(max(to_us, left), self.end_us)
        return f"{at};width:{100 * (right - left) / self.end_us:.4f}%"

    def across(self, time_us: int) -> int:
        """Distance from the left edge of a curve's box, 0..``CURVE_X_UNITS``."""
        return round(CURVE_X_UNITS * max(time_us, 0) / self.end_us)

    def height(self, value: float) -> int:
        """Distance from the top edge of a curve's box, 0..``CURVE_Y_UNITS``."""
        return round(CURVE_Y_UNITS * (1 - min(max(value / self.top, 0.0), 1.0)))


def lanes_of(
    events: list[History],
    curves: CurveSet | None,
    truth: Sequence[TruthSpan[str]],
    open_score_of: Callable[[str], float],
) -> list[Lane]:
    """A lane for each class that has events or truth, then for the highest other classes."""
    found: dict[str, Curve] = {}
    if curves is not None and len(curves.times_us):
        for i, name in enumerate(curves.class_names):
            found[name] = Curve(curves.times_us, curves.scores[:, i], curves.breaks)
    best: dict[str, float] = {span.class_id: -1.0 for span in truth}
    for event in events:
        name = event.last.class_name
        best[name] = max(best.get(name, -1.0), event.last.score)
    shown = sorted(best, key=lambda name: (-best[name], name))
    others = sorted(found.keys() - best.keys(), key=lambda name: (-found[name].peak, name))
    shown += others[: max(MAX_CURVES - len(shown), 0)]
    hue_of = hues(shown)
    lanes = [
        Lane(
            name,
            found.get(name),
            tuple(event for event in events if event.last.class_name == name),
            tuple(sorted(one.span for one in truth if one.class_id == name)),
            f"hue{hue_of[name]}",
            open_score_of(name),
        )
        for name in shown
    ]
    if curves is not None and curves.attention is not None and len(curves.times_us):
        curve = Curve(curves.times_us, curves.attention, curves.breaks)
        lanes.append(Lane("attention (any action)", curve))
    return lanes


def axes_of(
    duration_us: int, lanes: list[Lane], events: list[History], mistakes: Mistakes
) -> Axes:
    """Axes that hold everything there is to draw."""
    ends = [duration_us, 1]
    ends += [event.last.span.end_us for event in events]
    ends += [span.end_us for lane in lanes for span in lane.truth]
    ends += [int(lane.curve.times_us[-1]) for lane in lanes if lane.curve]
    heights = [lane.open_score for lane in lanes if lane.open_score is not None]
    heights += [lane.curve.peak for lane in lanes if lane.curve]
    highest = max(heights, default=0.0)
    # A video without events is not magnified so much that its scores rise above the threshold.
    top = 1.0 if highest > _MAGNIFIED_BELOW else np.ceil(max(highest, 0.05) * 12) / 10
    rows = {event.last.event_id: i for i, event in enumerate(events)}
    return Axes(max(ends), float(top), rows, mistakes)


def gaps(curves: CurveSet | None) -> list[Span]:
    """Where frames are missing: between the snippets on either side of each break."""
    if curves is None or not curves.breaks:
        return []
    times = curves.times_us
    half = int(np.diff(times).min()) // 2
    spans = [(int(times[row - 1]) + half, int(times[row]) - half) for row in curves.breaks]
    return [Span(start, max(end, start + 1)) for start, end in spans]
