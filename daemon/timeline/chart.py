"""Draws pictures, curves and event bars on one time axis, as HTML and inline SVG. Pure."""

import base64
from collections.abc import Sequence
from itertools import groupby

from daemon.timeline.lanes import (
    CURVE_X_UNITS,
    CURVE_Y_UNITS,
    Axes,
    Curve,
    CurveSet,
    Lane,
    Thumbnail,
    gaps,
)
from daemon.timeline.marks import Tick, decimated, label_rooms, packed, runs, ticks
from daemon.timeline.style import LABEL_WIDTHS_PX
from daemon.timeline.table import summary
from daemon.timeline.text import between, clock, score, scores_apart, text
from engine.judging.histories import History
from engine.judging.truth import TruthSpan
from engine.types import Span

MAX_THUMBNAILS = 12
_FRAME_COUNTS = (12, 9, 6, 3)  # multiples of three, for a narrow page shows every third picture
_PX_A_CHARACTER = 6.2  # width of digits and punctuation of 12 px, in a wide typeface
_DENSE_POINTS = 500
_EDGE = 0.02  # share of the axis in which a centred label would stick out


def chart(
    lanes: list[Lane], axes: Axes, thumbnails: Sequence[Thumbnail], curves: CurveSet | None
) -> str:
    """The chart as HTML: all that lies on the time axis; empty if there is nothing to draw."""
    if not lanes and not thumbnails:
        return ""
    grid = "".join(_tick(tick, axes) for tick in ticks(axes.end_us))
    missing = "".join(_gap(span, axes) for span in gaps(curves))
    rows = "".join(_lane(lane, axes) for lane in lanes)
    return (
        '<section aria-label="Timeline" class="timeline">'
        '<div class="tools" hidden=""><output id="moment"></output>'
        '<button type="button" id="zoom-out">zoom out</button>'
        '<button type="button" id="zoom-in">zoom in</button></div>'
        '<div class="scroller" tabindex="0" role="group" aria-label="Scores and events over time">'
        f'<div class="chart" data-end-us="{axes.end_us}" data-top="{axes.top}">'
        f"{_film(thumbnails, axes)}"
        f'<div class="plot"><div class="grid">{grid}{missing}</div>{rows}'
        '<i class="cursor" hidden=""></i></div></div></div></section>'
    )


def _tick(tick: Tick, axes: Axes) -> str:
    share = tick.time_us / axes.end_us
    edge = " first" if share < _EDGE else " last" if share > 1 - _EDGE else ""
    label = f"<b>{clock(tick.time_us, tenths=tick.tenths)}</b>"
    place = axes.place(tick.time_us)
    return f'<i class="tick level{tick.level}{edge}" style="{place}">{label}</i>'


def _gap(span: Span, axes: Axes) -> str:
    words = f"no footage, {between(span.start_us, span.end_us)}"
    place = axes.place(span.start_us, span.end_us)
    return f'<i class="gap" style="{place}" title="{words}"></i>'


def _film(thumbnails: Sequence[Thumbnail], axes: Axes) -> str:
    """The pictures, in equal slots along the axis: in each the one nearest to its middle."""
    if not thumbnails:
        return ""
    most = min(len(thumbnails), MAX_THUMBNAILS)
    n_slots = next((n for n in _FRAME_COUNTS if n <= most), most)
    slot_us = axes.end_us / n_slots
    frames = []
    for slot in range(n_slots):
        middle_us = (slot + 0.5) * slot_us
        nearest = min(thumbnails, key=lambda one: abs(one.time_us - middle_us))
        inside = abs(nearest.time_us - middle_us) <= slot_us / 2
        frames.append(_picture(nearest) if inside else "")
    threes = " threes" if n_slots in _FRAME_COUNTS else ""
    items = "".join(f"<li>{frame}</li>" for frame in frames)
    return f'<ol class="film{threes}">{items}</ol>' if any(frames) else ""


def _picture(thumbnail: Thumbnail) -> str:
    at = clock(thumbnail.time_us)
    encoded = base64.b64encode(thumbnail.jpeg).decode("ascii")
    return f'<img alt="frame at {at}" title="{at}" src="data:image/jpeg;base64,{encoded}" />'


def _lane(lane: Lane, axes: Axes) -> str:
    size = " tall" if lane.events else ""
    return (
        f'<div class="lane {lane.hue}{size}"><div class="name">'
        f'<b><bdi>{text(lane.class_name)}</bdi></b><span class="peak">{_peaks(lane)}</span>'
        '<output class="now"></output></div>'
        f"{_curves(lane, axes)}{_bars(lane.events, axes)}{_truths(lane, axes)}</div>"
    )


def _peaks(lane: Lane) -> str:
    """The lane's figures: how high its curve gets, and how much it stood out of what it must."""
    if lane.curve is None:
        return "no curve"
    peak = f"peak {score(lane.curve.peak)} at {clock(lane.curve.peak_us)}"
    if lane.contrast is None or lane.open_score is None:
        return peak
    seen, needed = scores_apart(lane.contrast.peak, lane.open_score)
    return f"{peak} · stood out by {seen}, needs {needed}"


def _curves(lane: Lane, axes: Axes) -> str:
    """The class's curve; and how much stood out there, with the line that it must reach."""
    if lane.curve is None:
        return ""
    drawn = _line(lane.curve, "line", axes, area=True)
    if lane.contrast is not None and lane.open_score is not None:
        drawn += _line(lane.contrast, "contrast", axes)
        threshold = f"M0 {axes.height(lane.open_score)}H{CURVE_X_UNITS}"
        drawn += f'<path class="threshold" d="{threshold}" />'
    box = f'viewBox="0 0 {CURVE_X_UNITS} {CURVE_Y_UNITS}" preserveAspectRatio="none"'
    return (
        f'<div class="curve"><svg {box} aria-hidden="true">{drawn}</svg>'
        f'<span class="top">{axes.top:g}</span></div>'
    )


def _line(curve: Curve, mark: str, axes: Axes, *, area: bool = False) -> str:
    kept = decimated(curve.values)
    lines, areas = [], []
    for run in runs(kept, curve.breaks):
        xs = [axes.across(int(curve.times_us[i])) for i in run]
        ys = [axes.height(float(curve.values[i])) for i in run]
        points = "L".join(f"{x} {y}" for x, y in zip(xs, ys, strict=True))
        lines.append(f"M{points}" if len(xs) > 1 else f"M{points}L{points}")
        areas.append(f"M{xs[0]} {CURVE_Y_UNITS}L{points}L{xs[-1]} {CURVE_Y_UNITS}Z")
    dense = " dense" if len(kept) > _DENSE_POINTS else ""
    filled = f'<path class="area" d="{"".join(areas)}" />' if area else ""
    return f'{filled}<path class="{mark}{dense}" d="{"".join(lines)}" />'


def _bars(events: tuple[History, ...], axes: Axes) -> str:
    rows = packed([event.last.span for event in events])
    by_row = sorted(zip(rows, events, strict=True), key=lambda pair: (pair[0], pair[1].last.span))
    return "".join(
        _bar_row([event for _, event in row], axes)
        for _, row in groupby(by_row, key=lambda pair: pair[0])
    )


def _bar_row(events: list[History], axes: Axes) -> str:
    rooms = label_rooms([event.last.span for event in events], axes.end_us)
    bars = "".join(_bar(event, room, axes) for event, room in zip(events, rooms, strict=True))
    return f'<div class="bars">{bars}</div>'


def _bar(event: History, room_us: int, axes: Axes) -> str:
    """An event's bar, its label twice: inside and beside it; the style sheet shows what fits."""
    last, span = event.last, event.last.span
    label = f"{between(span.start_us, span.end_us)} · {score(last.score)}"
    is_false = last.event_id in axes.mistakes.false_events
    mark, label = (" false", f"false: {label}") if is_false else ("", label)
    side = "right" if room_us >= 0 else "left"
    room = f"width:{100 * abs(room_us) / span.duration_us:.2f}%"
    wait = _wait(span.end_us, last.decided_us, axes) if event.wait_us > 0 else ""
    return (
        f'{wait}<a class="bar {event.state}{mark} {_width_class(label)}"'
        f' href="#event-{axes.row_of[last.event_id]}"'
        f' data-start-us="{span.start_us}" data-end-us="{span.end_us}"'
        f' style="{axes.place(span.start_us, span.end_us)}" title="{text(summary(event))}">'
        f'<i class="fill"></i><span class="inside">{label}</span>'
        f'<span class="room {side}" style="{room}"><span class="beside">{label}</span></span></a>'
        f'<i class="reported" style="{axes.place(event.first.decided_us)}"></i>'
    )


def _wait(end_us: int, decided_us: int, axes: Axes) -> str:
    return f'<i class="wait" style="{axes.place(end_us, decided_us)}"></i>'


def _width_class(label: str) -> str:
    needed_px = len(label) * _PX_A_CHARACTER + 16
    fitting = (width for width in LABEL_WIDTHS_PX if width >= needed_px)
    return f"needs{next(fitting, LABEL_WIDTHS_PX[-1])}"


def _truths(lane: Lane, axes: Axes) -> str:
    marks = "".join(_truth(TruthSpan(lane.class_name, span), axes) for span in lane.truth)
    return f'<div class="truths">{marks}</div>' if marks else ""


def _truth(truth: TruthSpan[str], axes: Axes) -> str:
    span, is_missed = truth.span, truth in axes.mistakes.missed
    kind, words = ("truth missed", " (not reported)") if is_missed else ("truth", "")
    return (
        f'<i class="{kind}" style="{axes.place(span.start_us, span.end_us)}"'
        f' title="truth: {between(span.start_us, span.end_us)}{words}"></i>'
    )
