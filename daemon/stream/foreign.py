"""Chunks that come without headers → where they lie in stream time. Pure.

Such a chunk has only its record's time (a file's time in a folder), which somebody else's clock
wrote, once for the whole chunk. What that marks is configured: the moment at which the last
picture ends (``end``), that of the first picture (``start``), or that of the first picture to
the microsecond (``record``). With the first two, chunks that come in bursts follow each other as
they were filmed: a chunk is put behind the one before where its time says that they overlap. Where
times go back, the clock was set, and where footage has been ahead of them for long, it is not a
burst: both begin a new run.
"""

import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from daemon.stream.runs import producer_run_of
from engine.session import StreamSession
from engine.snippets import LONGEST_HOLD_US
from engine.types import FOREIGN_RUN, FrameBatch, Place, VideoChunk

ForeignTime = Literal["end", "start", "record"]

# Several threads of one producer may write records, and not in the order of their times.
TREMBLE_US = 2_000_000
# Footage may be ahead of its records' times for so long, by more than so much: a burst.
BURST_US = 10_000_000
_AHEAD_US = 500_000
_N_STAMPS = 16  # records that are known when they come again
# Raw motion JPEG does not say how fast it runs.
_JPEG_START = b"\xff\xd8\xff"
_LEAST_APART_US = 8_000


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a chunk lies.

    Attributes:
        start_us: Stream time of its first picture.
        is_step: The clock was set: this is where a new run begins.
        stamp_us: The chunk's own time.
        ahead_since_us: Since the record of this time footage has been ahead; None: it is not.
        apart_us: How far pictures of a stream are apart that does not say so; None: it does.
    """

    start_us: int
    is_step: bool
    stamp_us: int
    ahead_since_us: int | None = None
    apart_us: int | None = None

    def kept_in(self, place: Place) -> Place:
        """The place of a camera that has taken the chunk in."""
        return replace(
            place,
            stamp_us=self.stamp_us,
            ahead_since_us=self.ahead_since_us,
            apart_us=self.apart_us,
        )


def placed(
    frames: FrameBatch, stamp_us: int, rule: ForeignTime, place: Place, seen_us: int | None
) -> Placement:
    """Where a foreign chunk lies.

    Args:
        frames: Its pictures; times count from whichever moment.
        stamp_us: Its record's time, Unix microseconds.
        rule: What that marks.
        place: Where the camera stands.
        seen_us: The camera's run was seen up to this stream time; None: there is none.
    """
    span_us = int(frames.pts_us[-1] - frames.pts_us[0])
    n_apart = frames.n_decoded - frames.n_late - 1
    apart_us = round(span_us / n_apart) if n_apart > 0 else 0
    start_us = max(0, stamp_us - span_us - apart_us) if rule == "end" else stamp_us
    if seen_us is None:
        return Placement(start_us, is_step=False, stamp_us=stamp_us)
    ahead_us = seen_us + max(apart_us, 1) - start_us
    newest_us = place.stamp_us
    is_back = ahead_us > TREMBLE_US if newest_us is None else stamp_us < newest_us - TREMBLE_US
    if is_back:
        return Placement(start_us, is_step=True, stamp_us=stamp_us)
    newest_us = max(stamp_us, newest_us or 0)
    if rule == "record" or ahead_us <= 0:
        return Placement(start_us, is_step=False, stamp_us=newest_us)
    if ahead_us <= _AHEAD_US:
        return Placement(start_us + ahead_us, is_step=False, stamp_us=newest_us)
    since_us = stamp_us if place.ahead_since_us is None else place.ahead_since_us
    if stamp_us - since_us > BURST_US:
        return Placement(start_us, is_step=True, stamp_us=stamp_us)
    return Placement(
        start_us + ahead_us, is_step=False, stamp_us=newest_us, ahead_since_us=since_us
    )


class Foreigners:
    """One camera's chunks without headers, as they come.

    Args:
        rule: What their records' times mark.
    """

    def __init__(self, rule: ForeignTime) -> None:
        self._rule = rule
        # Whoever sends a record again gives it another offset.
        self._stamps: deque[tuple[int, int]] = deque(maxlen=_N_STAMPS)

    def is_sent_again(self, chunk: VideoChunk) -> bool:
        """Is it one without headers that was taken a moment ago?"""
        # What it holds is looked at only where its time is known.
        if chunk.run != FOREIGN_RUN or all(us != chunk.start_us for us, _ in self._stamps):
            return False
        return _stamp(chunk) in self._stamps

    def take(self, chunk: VideoChunk) -> None:
        """Know a chunk when it comes again."""
        self._stamps.append(_stamp(chunk))

    def placed(
        self, chunk: VideoChunk, frames: FrameBatch, session: StreamSession | None
    ) -> Placement | None:
        """Where a chunk lies; None: it has headers, which say so."""
        if chunk.run != FOREIGN_RUN:
            return None
        place, seen_us = Place(), None
        if session is not None and producer_run_of(session) == FOREIGN_RUN:
            place, seen_us = session.place, session.seen_us
        apart_us = _apart_us(chunk, frames, place)
        placement = placed(spread(frames, apart_us), chunk.start_us, self._rule, place, seen_us)
        return replace(placement, apart_us=apart_us)


def _apart_us(chunk: VideoChunk, frames: FrameBatch, place: Place) -> int | None:
    """How far pictures are apart where only the records' times tell; None: they tell it, too."""
    if not chunk.payload.startswith(_JPEG_START):
        return None
    if place.stamp_us is None:
        return place.apart_us
    apart_us = round((chunk.start_us - place.stamp_us) / frames.n_decoded)
    return apart_us if _LEAST_APART_US <= apart_us <= LONGEST_HOLD_US else place.apart_us


def _stamp(chunk: VideoChunk) -> tuple[int, int]:
    """What two records without headers share only if one is the other sent again."""
    return chunk.start_us, zlib.crc32(chunk.payload)


def spread(frames: FrameBatch, apart_us: int | None) -> FrameBatch:
    """The same pictures, evenly apart; None: as they are."""
    n_apart = frames.n_decoded - frames.n_late - 1
    if apart_us is None or n_apart < 1:
        return frames
    first_us, last_us = frames.pts_us[0], frames.pts_us[-1]
    passed_us = (frames.pts_us - first_us) * (apart_us * n_apart) // (last_us - first_us)
    return replace(frames, pts_us=first_us + passed_us)


def moved(frames: FrameBatch, start_us: int, apart_us: int | None = None) -> FrameBatch:
    """The same pictures, the first of them at ``start_us``."""
    frames = spread(frames, apart_us)
    return replace(frames, pts_us=frames.pts_us + (start_us - frames.pts_us[0]))
