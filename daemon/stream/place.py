"""Where a camera stands in its transport: what is done, over, seen before, and needed again. Pure.

All of it but the recent chunks lies in ``StreamSession.source``, and so in the camera's snapshot:
``partition`` and ``offset`` of the last delivery that is done, ``sequence`` of the last chunk,
``low``, the first offset a restart must read again, and ``ended``, the runs that are over.
"""

from collections import deque

from daemon.sources.base import Position
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import VideoChunk

NO_OFFSET = -1
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
    source = session.source
    try:
        for key in ("low", "sequence"):  # what the other questions rest on
            int(source.get(key, NO_OFFSET))
        return Position(str(source["partition"]), int(source["offset"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"snapshot names no last delivery: {error!r}") from error


def is_needed_again(session: StreamSession, offset: int) -> bool:
    """Does the camera need the frames of a chunk that is done? Others of its partition may."""
    return needs_replay(session) and int(session.source["low"]) <= offset


def needs_replay(session: StreamSession) -> bool:
    """Is there footage that a stored session needs again?"""
    return int(session.source.get("low", NO_OFFSET)) > NO_OFFSET


def is_duplicate(session: StreamSession, chunk: VideoChunk) -> bool:
    """Was this chunk seen before, at whatever offset, or is its run over?"""
    if chunk.run in ended_runs(session):
        return True
    is_current = session.run == chunk.run
    return is_current and chunk.sequence <= int(session.source.get("sequence", NO_OFFSET))


def ended_runs(session: StreamSession) -> list[str]:
    """Runs of the camera that are over, oldest first; run names hold no line ends."""
    return [run for run in str(session.source.get("ended", "")).split("\n") if run]


def remember_ended(session: StreamSession, run: str) -> None:
    """Events of an ended run are final: chunks of it that come late must change nothing."""
    ended = [*ended_runs(session), run][-N_ENDED_RUNS:]
    session.source["ended"] = "\n".join(ended)
