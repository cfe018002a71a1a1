"""Where a camera stands in its transport: what is done, over, seen before, and needed again. Pure.

All of it but the recent chunks is a ``Place``, which lies in the camera's session and snapshot.
"""

from collections import deque
from dataclasses import replace

from daemon.sources.base import Position
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import Place, VideoChunk

# A producer that comes back after a network cut may still deliver what it had queued.
N_ENDED_RUNS = 16


class RecentChunks:
    """Where recent chunks begin: a restart needs the frames of the last ones again."""

    def __init__(self) -> None:
        self._starts: deque[tuple[int, int]] = deque(maxlen=256)  # (offset, stream time)

    def add(self, offset: int, start_us: int) -> None:
        """A chunk's frames were taken in."""
        self._starts.append((offset, start_us))

    def clear(self) -> None:
        """No earlier frame is needed."""
        self._starts.clear()

    def low_offset(self, resume_us: int | None) -> int | None:
        """The first delivery that a restart must read again, to have the footage from a time on.

        Args:
            resume_us: Stream time; None: no footage is needed again.
        """
        if resume_us is None:
            self.clear()
            return None
        while len(self._starts) > 1 and self._starts[1][1] <= resume_us:
            self._starts.popleft()
        return self._starts[0][0] if self._starts else None


def is_done(position: Position, done: Position | None) -> bool:
    """Was this delivery processed before?

    A camera may have moved to another partition, whose offsets say nothing about this one's.
    """
    return (
        done is not None
        and position.partition == done.partition
        and position.offset <= done.offset
    )


def done_of(session: StreamSession) -> Position:
    """The last delivery that is in a stored session.

    Raises:
        SnapshotError: It does not say.
    """
    place = session.place
    if place.partition is None or place.offset is None:
        raise SnapshotError(f"snapshot names no last delivery: {place}")
    return Position(place.partition, place.offset)


def is_needed_again(place: Place, offset: int) -> bool:
    """Does the camera need the frames of a chunk that is done? Others of its partition may."""
    return place.low_offset is not None and place.low_offset <= offset


def is_duplicate(session: StreamSession, chunk: VideoChunk) -> bool:
    """Was this chunk seen before, at whatever offset, or is its run over?"""
    place = session.place
    if chunk.run in place.ended_runs:
        return True
    is_current = session.run == chunk.run
    return is_current and place.sequence is not None and chunk.sequence <= place.sequence


def with_ended(place: Place, run: str) -> Place:
    """Events of an ended run are final: chunks of it that come late must change nothing."""
    return replace(place, ended_runs=(*place.ended_runs, run)[-N_ENDED_RUNS:])
