"""Where a camera stands: which chunks are done, were seen before or are needed again. Pure.

Apart from the recent chunks, this is kept in a ``Place``, which is part of the camera's session
and of its snapshot.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from daemon.sources.base import Position
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.types import ActionEvent, Evidence, Phase, Place, Span, VideoChunk

# How many ended runs are remembered: a producer that comes back after a network cut may still
# deliver chunks of its last runs that it had queued.
N_ENDED_RUNS = 16

# So many chunks are remembered, to say where an event's footage lies: two minutes' worth of a
# second each.
N_CHUNKS = 128


class RecentChunks:
    """Where recent chunks begin; after a restart, the frames of the last ones are needed again."""

    def __init__(self) -> None:
        self._starts: deque[tuple[int, int]] = deque(maxlen=256)  # (offset, stream time in us)

    def add(self, offset: int, start_us: int) -> None:
        """Take note of a chunk whose frames were taken in.

        Args:
            offset: Its offset in the partition.
            start_us: Stream time of its first frame, in microseconds.
        """
        self._starts.append((offset, start_us))

    def clear(self) -> None:
        """Forget all chunks, as no frame so far is needed again."""
        self._starts.clear()

    def low_offset(self, resume_us: int | None) -> int | None:
        """The offset from which a restart must read again; None if it need not.

        Args:
            resume_us: Stream time, in microseconds, from which footage is needed again; None: no
                footage is.
        """
        if resume_us is None:
            self.clear()
            return None
        while len(self._starts) > 1 and self._starts[1][1] <= resume_us:
            self._starts.popleft()
        return self._starts[0][0] if self._starts else None


def is_done(position: Position, done: Position | None) -> bool:
    """True if this delivery was processed before.

    Offsets of another partition, from which the camera may have moved, say nothing about this one.
    """
    return (
        done is not None
        and position.partition == done.partition
        and position.offset <= done.offset
    )


def done_of(session: StreamSession) -> Position:
    """The position of the last delivery that a stored session took in.

    Raises:
        SnapshotError: The session does not hold it.
    """
    place = session.place
    if place.partition is None or place.offset is None:
        raise SnapshotError(f"snapshot names no last delivery: {place}")
    return Position(place.partition, place.offset)


def is_needed_again(place: Place, offset: int) -> bool:
    """True if the camera needs the frames of a chunk that is done.

    If it does not, the chunk is read again for the sake of another camera of the partition.
    """
    return place.low_offset is not None and place.low_offset <= offset


def is_duplicate(session: StreamSession, chunk: VideoChunk) -> bool:
    """True if this chunk was seen before, at whatever offset, or if its run is over."""
    place = session.place
    if chunk.run in place.ended_runs:
        return True
    is_current = session.run == chunk.run
    return is_current and place.sequence is not None and chunk.sequence <= place.sequence


def with_chunk(place: Place, offset: int, start_us: int) -> Place:
    """The place with one more chunk of the run, whose first frame has this stream time."""
    if place.chunks and offset <= place.chunks[-1][0]:
        return place  # read again
    return replace(place, chunks=(*place.chunks, (offset, start_us))[-N_CHUNKS:])


def evidence_of(place: Place, span: Span) -> Evidence | None:
    """Where the chunks lie that show a span; of those too old to be known, none; None: of all."""
    before = [offset for offset, start_us in place.chunks if start_us <= span.start_us]
    within = [offset for offset, start_us in place.chunks if start_us < span.end_us]
    if place.partition is None or not within:
        return None
    return Evidence(place.partition, before[-1] if before else within[0], within[-1])


def stamped(
    place: Place, watermark_us: int, revisions: Sequence[ActionEvent]
) -> list[ActionEvent]:
    """Revisions with what their readers need beyond the event itself.

    Args:
        place: Where their camera stands.
        watermark_us: No event that starts before this stream time will be opened any more.
        revisions: Of one run, oldest first.
    """
    done: list[ActionEvent] = []
    for revision in reversed(revisions):
        evidence = evidence_of(place, revision.span)
        done.append(replace(revision, evidence=evidence, watermark_us=watermark_us))
        # Before this one appeared, its start was not past.
        if revision.phase is Phase.OPENED:
            watermark_us = min(watermark_us, revision.span.start_us)
    return done[::-1]


def with_ended(place: Place, run: str) -> Place:
    """The place with one more ended run, of which chunks that come late are left out.

    Events of an ended run are final, and such chunks would change them.
    """
    return replace(place, ended_runs=(*place.ended_runs, run)[-N_ENDED_RUNS:])
