"""Geometry of the timeline page: which points, ticks, rows and colours are drawn. Pure.

Everything is placed in shares of the time axis, so the same page fits a phone and a wall. Only the
style sheet knows the width, and it hides what does not fit.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine.types import FloatArray, Int64Array, Span

MAX_CURVE_POINTS = 2000
N_HUES = 6

_SECOND_US = 1_000_000
_NICE_STEPS_US = (
    *(100_000, 200_000, 500_000),
    *(s * _SECOND_US for s in (1, 2, 5, 10, 15, 30)),
    *(60 * m * _SECOND_US for m in (1, 2, 5, 10, 15, 30)),
    *(3600 * h * _SECOND_US for h in (1, 2, 6, 12, 24)),
)
# Most ticks at level 0 (always shown), 1, 2 and 3 (shown as the axis gets wider).
_MAX_TICKS = (5, 12, 40, 120)


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment on the time axis with a label.

    Attributes:
        time_us: The moment.
        level: From which width on it is shown; 0: always.
        tenths: Whether the label shows tenths of a second.
    """

    time_us: int
    level: int
    tenths: bool


def ticks(axis_us: int) -> list[Tick]:
    """Round moments on ``[0, axis_us]``: those of coarse levels first, then finer ones between."""
    levels: dict[int, int] = {}
    step_us = 0
    for level, most in enumerate(_MAX_TICKS):
        step_us = _step(axis_us, most, step_us)
        for time_us in range(0, axis_us + 1, step_us):
            levels.setdefault(time_us, level)
    return [
        Tick(time_us, level, tenths=step_us < _SECOND_US and time_us % (_SECOND_US) != 0)
        for time_us, level in sorted(levels.items())
    ]


def _step(axis_us: int, most: int, coarser_us: int) -> int:
    """The smallest round step that gives at most ``most`` ticks and divides the coarser step."""
    for step_us in _NICE_STEPS_US:
        if axis_us // step_us < most and coarser_us % step_us == 0:
            return step_us
    days = axis_us // (_NICE_STEPS_US[-1] * most) + 1
    return coarser_us or days * _NICE_STEPS_US[-1]


def decimated(values: FloatArray, limit: int = MAX_CURVE_POINTS) -> Int64Array:
    """Choose at most ``limit`` of a curve's values, so that its peaks keep their height.

    The curve is cut into equal pieces, and the lowest and the highest value of each are kept. So
    the peak of a single snippet is as high in a day's curve as in a minute's.

    Args:
        values: float32 (N,).
        limit: At least 4.

    Returns:
        Indices of the values, int64 (M,), rising, M <= limit, with the first and the last index.
    """
    if len(values) <= limit:
        return np.arange(len(values), dtype=np.int64)
    edges = np.linspace(0, len(values), (limit - 2) // 2 + 1).astype(np.int64)
    kept = {0, len(values) - 1}
    for start, end in pairwise(edges):
        piece = values[start:end]
        kept |= {int(start + piece.argmin()), int(start + piece.argmax())}
    return np.array(sorted(kept), dtype=np.int64)


def runs(indices: Int64Array, breaks: Sequence[int]) -> list[Int64Array]:
    """Split rising row indices, int64 (M,), wherever a break lies between two of them.

    A break is the first row after a gap. The pieces, each int64 (M_piece,), are not empty.
    """
    cuts = np.searchsorted(indices, sorted(breaks))
    inner = sorted({int(cut) for cut in cuts} - {0, len(indices)})
    return [run for run in np.split(indices, inner) if len(run)]


def packed(spans: Sequence[Span]) -> list[int]:
    """A row number for each span, so that spans of one row do not overlap; few rows are used."""
    rows = [0] * len(spans)
    ends: list[int] = []
    for i in sorted(range(len(spans)), key=lambda i: spans[i]):
        free = (row for row, end_us in enumerate(ends) if end_us <= spans[i].start_us)
        rows[i] = next(free, len(ends))
        ends[rows[i] : rows[i] + 1] = [spans[i].end_us]
    return rows


def label_rooms(spans: Sequence[Span], axis_us: int) -> list[int]:
    """The room beside each bar of one row, in microseconds, that the bar's label may use.

    A positive room is to the right of the bar, a negative one to the left. No room is given to two
    labels.

    Args:
        spans: The bars, sorted and disjoint.
        axis_us: Where the axis ends.
    """
    rooms = []
    taken_us = 0  # up to here the room in the row is taken
    for i, span in enumerate(spans):
        after_us = spans[i + 1].start_us if i + 1 < len(spans) else axis_us
        left, right = span.start_us - taken_us, after_us - span.end_us
        to_the_right = right >= left
        rooms.append(right if to_the_right else -left)
        taken_us = after_us if to_the_right else span.end_us
    return rooms


def hues(names: Iterable[str]) -> dict[str, int]:
    """The number of a colour for each class, if possible the same one on all pages.

    If two classes of one page want the same colour, the later one takes the next free one. With
    more classes than colours, colours repeat; each lane carries its class's name.
    """
    chosen: dict[str, int] = {}
    for name in names:
        own = zlib.crc32(name.encode("utf-8", "replace")) % N_HUES
        options = [(own + i) % N_HUES for i in range(N_HUES)]
        used = list(chosen.values())
        chosen.setdefault(name, min(options, key=used.count))
    return chosen
