"""What the timeline page shows: the values it is given, and the lanes made of them. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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
        contrasts: float32 (N, C_shown), how much the best interval over each snippet stood out
            from its surroundings, which is what an event's score is; None if it is not known.
        breaks: Rows that are the first after a gap, each in 1..N-1.
        attention: float32 (N,) in [0, 1]; None if it is not known.
    """

    times_us: Int64Array
    scores: FloatArray
    class_names: tuple[str, ...]
    breaks: tuple[int, ...] = ()
    attention: FloatArray | None = None
    contrasts: FloatArray | None = None

    def __post_init__(self) -> None:
        wanted = (len(self.times_us), len(self.class_names))
        if self.scores.shape != wanted:
            raise ValueError(f"scores are {self.scores.shape}, times and labels want {wanted}")
        if self.contrasts is not None and self.contrasts.shape != wanted:
            raise ValueError(f"contrasts are {self.contrasts.shape}, wanted {wanted}")
        for what, values in (("scores", self.scores), ("contrasts", self.contrasts)):
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{what} hold values that are not finite")
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
    """One score, or contrast, over time.

    Attributes:
        times_us: int64 (N,), N >= 1, as in ``CurveSet``.
        values: float32 (N,).
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
        contrast: How much stood out there; None if it is not known, as of attention.
        events: Its events.
        truth: When it is known to have happened.
        hue: Name of its colour.
        open_score: By how much an event of it must stand out; None for attention, which has no
            events.
    """

    class_name: str
    curve: Curve | None
    events: tuple[History, ...] = ()
    truth: tuple[Span, ...] = ()
    hue: str = NEUTRAL
    open_score: float | None = None
    contrast: Curve | None = None

    @property
    def lacking(self) -> float | None:
        """By how much more it must have stood out; None if that is not known."""
        if self.contrast is None or self.open_score is None:
            return None
        return self.open_score - self.contrast.peak


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
    """A lane for each class with events or truth, then for those that came nearest to an event."""
    found = lanes_by_class(curves, open_score_of)
    best: dict[str, float] = {span.class_id: -1.0 for span in truth}
    for event in events:
        name = event.last.class_name
        best[name] = max(best.get(name, -1.0), event.last.score)
    shown = sorted(best, key=lambda name: (-best[name], name))
    others = sorted(found.keys() - best.keys(), key=lambda name: nearness(found[name]))
    shown += others[: max(MAX_CURVES - len(shown), 0)]
    hue_of = hues(shown)
    lanes = [
        replace(
            found.get(name) or Lane(name, None, open_score=open_score_of(name)),
            events=tuple(event for event in events if event.last.class_name == name),
            truth=tuple(sorted(one.span for one in truth if one.class_id == name)),
            hue=f"hue{hue_of[name]}",
        )
        for name in shown
    ]
    if curves is not None and curves.attention is not None and len(curves.times_us):
        curve = Curve(curves.times_us, curves.attention, curves.breaks)
        lanes.append(Lane("attention (any action)", curve))
    return lanes


def lanes_by_class(
    curves: CurveSet | None, open_score_of: Callable[[str], float]
) -> dict[str, Lane]:
    """A lane for each class of which there are curves."""
    if curves is None or not len(curves.times_us):
        return {}
    lanes = {}
    for column, name in enumerate(curves.class_names):
        scores, contrasts = (
            None if values is None else Curve(curves.times_us, values[:, column], curves.breaks)
            for values in (curves.scores, curves.contrasts)
        )
        lanes[name] = Lane(name, scores, open_score=open_score_of(name), contrast=contrasts)
    return lanes


def nearness(lane: Lane) -> tuple[float, float, str]:
    """Sorts lanes: first the one that came nearest to an event, or whose curve is highest."""
    peak = 0.0 if lane.curve is None else lane.curve.peak
    # Where nothing stood out at all, a low threshold brings a class no nearer.
    stood_out = lane.contrast is not None and lane.contrast.peak > 0
    lacking = lane.lacking if stood_out else None
    return (math.inf if lacking is None else lacking, -peak, lane.class_name)


def axes_of(
    duration_us: int, lanes: list[Lane], events: list[History], mistakes: Mistakes
) -> Axes:
    """Axes that hold everything there is to draw."""
    ends = [duration_us, 1]
    ends += [event.last.span.end_us for event in events]
    ends += [span.end_us for lane in lanes for span in lane.truth]
    ends += [int(lane.curve.times_us[-1]) for lane in lanes if lane.curve]
    heights = [lane.open_score for lane in lanes if lane.open_score is not None]
    heights += [curve.peak for lane in lanes for curve in (lane.curve, lane.contrast) if curve]
    highest = max(heights, default=0.0)
    # A video without events is not magnified so much that its curves rise above the threshold.
    is_usual = _MAGNIFIED_BELOW < highest <= 1.0
    top = 1.0 if is_usual else np.ceil(max(highest, 0.05) * (10 if highest > 1 else 12)) / 10
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
