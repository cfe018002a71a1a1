"""Makes one self-contained HTML file that shows what was reported of a video, and why.

Score curves, revisions of events and thumbnails go in, and the page comes out as a string. The
page loads nothing. It can be read without JavaScript, on paper and at any width, and follows the
reader's light or dark scheme. Nothing here reads a clock or a file, so equal input gives equal
bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from daemon.timeline.chart import chart
from daemon.timeline.lanes import (
    CurveSet,
    Lane,
    Mistakes,
    Thumbnail,
    axes_of,
    gaps,
    lanes_of,
)
from daemon.timeline.nearest import nearest, what_it_lacked
from daemon.timeline.style import CONTENT_POLICY, SCRIPT, STYLE
from daemon.timeline.table import event_table
from daemon.timeline.text import clock, count, score, text, wall_clock
from engine.judging.histories import History, histories
from engine.judging.truth import TruthSpan
from engine.types import ActionEvent

__all__ = ["CurveSet", "Mistakes", "Thumbnail", "render_timeline"]

_MAX_NAMED = 4


def render_timeline(
    *,
    title: str,
    subtitle: str = "",
    duration_us: int,
    events: Sequence[ActionEvent],
    curves: CurveSet | None,
    open_score: float,
    thumbnails: Sequence[Thumbnail] = (),
    class_open_scores: Mapping[str, float] | None = None,
    truth: Sequence[TruthSpan[str]] = (),
    mistakes: Mistakes | None = None,
    anchor_us: int | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Make the page.

    Args:
        title: The video's or camera's name.
        subtitle: A line below the title, such as the model.
        duration_us: Length of the footage; the axis is longer if an event ends later.
        events: Revisions of events of one run, all that are known, in any order.
        curves: Score curves; None if they were not kept.
        open_score: By how much an event must stand out from its surroundings to open; it is
            drawn as a line where the curves tell how much anything did.
        thumbnails: Pictures in order of time; at most ``MAX_THUMBNAILS`` are used.
        class_open_scores: The opening scores of classes that have their own, by class name.
        truth: What is known to have happened; it is drawn below the events of the same class.
        mistakes: Events and truth to mark as false or missed.
        anchor_us: Unix time of stream time 0, in microseconds; None: that of the events, if they
            have one.
        notes: Short facts for the page's head.

    Returns:
        HTML that is also well-formed XML.
    """
    grouped = sorted(histories(events), key=lambda one: one.place)
    if anchor_us is None:
        anchor_us = next((one.anchor_us for one in events if one.anchor_us is not None), None)
    own_scores = class_open_scores or {}
    open_score_of = partial(_open_score_of, own_scores, open_score)
    lanes = lanes_of(grouped, curves, truth, open_score_of)
    near = nearest(curves, open_score_of)
    axes = axes_of(duration_us, lanes, grouped, mistakes or Mistakes())
    facts = (clock(duration_us), wall_clock(anchor_us, 0), *(text(note) for note in notes))
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8" />',
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}" />',
            '<meta name="viewport" content="width=device-width, initial-scale=1" />',
            '<meta name="color-scheme" content="light dark" />',
            f"<title>{text(title)} · timeline</title><style>{STYLE}</style></head><body><main>",
            f"<header><h1><bdi>{text(title)}</bdi></h1>",
            f'<p class="subtitle"><bdi>{text(subtitle)}</bdi></p>' if subtitle else "",
            f'<ul class="facts">{"".join(f"<li>{fact}</li>" for fact in facts if fact)}</ul>',
            f'<p class="verdict">{_verdict(grouped, near)}</p></header>',
            chart(lanes, axes, thumbnails, curves),
            _key(lanes, curves, axes.mistakes),
            _events(grouped, anchor_us),
            f"</main><script>{SCRIPT}</script></body></html>\n",
        )
    )


def _open_score_of(own: Mapping[str, float], usual: float, class_name: str) -> float:
    return own.get(class_name, usual)


def _verdict(events: list[History], near: Lane | None) -> str:
    """What was found, in one or two sentences."""
    standing = [event for event in events if event.is_kept]
    retracted = len(events) - len(standing)
    taken_back = f" {count(retracted, 'event')} opened and taken back." if retracted else ""
    if standing:
        how_many = f"<strong>{count(len(standing), 'event')}{_of_which(standing)}.</strong>"
        return how_many + taken_back
    if near is None:
        return f"<strong>No events.</strong>{taken_back} There are no scores to show."
    lacking = what_it_lacked(near, f"“<bdi>{text(near.class_name)}</bdi>”")
    return f"<strong>No events.</strong>{taken_back} {lacking}"


def _of_which(events: list[History]) -> str:
    """The events' classes: their names if they are few, else how many they are."""
    numbers = Counter(event.last.class_name for event in events)
    if len(numbers) > _MAX_NAMED:
        return f" of {len(numbers)} classes"
    named = [(f"<bdi>{text(name)}</bdi>", n) for name, n in numbers.most_common()]
    if len(named) == 1:
        return f": {named[0][0]}"
    return ": " + ", ".join(f"{name} ({n})" for name, n in named)


def _key(lanes: list[Lane], curves: CurveSet | None, mistakes: Mistakes) -> str:
    """The key, which tells what the marks mean that are on this page."""
    events = [event for lane in lanes for event in lane.events]
    states = {event.state for event in events}
    truth = any(lane.truth for lane in lanes)
    has_contrasts = curves is not None and curves.contrasts is not None
    entries = (
        ("curve-mark", "class curve", curves is not None),
        ("contrast-mark", "how much the best interval stands out", has_contrasts),
        ("threshold", f"how much an event must stand out ({_needed(lanes)})", has_contrasts),
        ("fill closed", "event", "closed" in states),
        ("fill open", "event, its end not settled", "open" in states),
        ("fill retracted", "event taken back", "retracted" in states),
        ("reported", "first reported", bool(events)),
        ("wait", "until decided", any(event.wait_us > 0 for event in events)),
        ("fill closed false", "event that reports nothing true", bool(mistakes.false_events)),
        ("truth", "what happened (ground truth)", truth),
        ("truth missed", "not reported", bool(mistakes.missed)),
        ("gap", "no footage", bool(gaps(curves))),
    )
    items = "".join(f'<li><i class="{mark}"></i>{words}</li>' for mark, words, on in entries if on)
    return f'<ul class="key hue0">{items}</ul>' if items else ""


def _needed(lanes: list[Lane]) -> str:
    needed = sorted({lane.open_score for lane in lanes if lane.open_score is not None})
    if len(needed) > 1:
        return f"{score(needed[0])} to {score(needed[-1])}, by class"
    return score(needed[0]) if needed else "none"


def _events(events: list[History], anchor_us: int | None) -> str:
    if not events:
        return ""
    return f"<section><h2>Events</h2>{event_table(events, anchor_us)}</section>"
