"""Writes the words and numbers of the timeline page: escaped text, times, scores. Pure."""

import html
from datetime import UTC, datetime, timedelta

US_PER_TENTH = 100_000
MAX_TEXT_CHARS = 200
_RUN = datetime(1970, 1, 1, tzinfo=UTC)


def text(untrusted: str) -> str:
    """Any string as HTML text or attribute value, on one line and of bounded length.

    Names of cameras and classes come from outside. So mark-up characters are escaped, and two
    kinds of characters are replaced: those that cannot be encoded (lone surrogates), and those
    that would reorder the text around them (bidi controls).
    """
    shown = untrusted[:MAX_TEXT_CHARS]
    if len(untrusted) > MAX_TEXT_CHARS:
        shown += "…"
    legible = (" " if char.isspace() else char for char in shown)
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in legible))


def clock(time_us: int, *, tenths: bool = True) -> str:
    """Stream time as ``m:ss.t`` (``h:mm:ss.t`` from an hour on), rounded half up."""
    unit_us = US_PER_TENTH if tenths else 10 * US_PER_TENTH
    units = (2 * time_us + unit_us) // (2 * unit_us)
    seconds, tenth = divmod(units, 10) if tenths else (units, 0)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    whole = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{whole}.{tenth}" if tenths else whole


def between(start_us: int, end_us: int) -> str:
    """Start and end as clock times, joined by an en dash."""
    return f"{clock(start_us)}–{clock(end_us)}"  # noqa: RUF001


def delay(wait_us: int) -> str:
    """A wait in words: ``1.5 s after``, ``1.5 s before`` or ``at``."""
    if abs(wait_us) < US_PER_TENTH // 2:
        return "at"
    return f"{abs(wait_us) / 1_000_000:.1f} s {'before' if wait_us < 0 else 'after'}"


def score(value: float) -> str:
    """A score to two decimals."""
    return f"{value:.2f}"


def scores_apart(low: float, high: float) -> tuple[str, str]:
    """Two scores to two decimals, or to as many more as it takes to tell them apart."""
    for n_decimals in range(2, 7):
        texts = f"{low:.{n_decimals}f}", f"{high:.{n_decimals}f}"
        if texts[0] != texts[1]:
            return texts
    return score(low), score(high)


def count(number: int, noun: str) -> str:
    """A number with its noun: ``1 event``, ``2 events``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def wall_clock(anchor_us: int | None, time_us: int) -> str:
    """Date and time of day in UTC; empty if it is unknown or beyond the calendar."""
    if anchor_us is None:
        return ""
    try:
        moment = _RUN + timedelta(microseconds=anchor_us + time_us)
    except OverflowError:
        return ""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
