"""Where a camera stands: which chunks are done, were seen before or are needed again. Pure.

All of it is kept in a ``Place``, which is part of the camera's session and of its snapshot.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from daemon.sources.base import Position
from engine.errors import SnapshotError
from engine.session import StreamSession
from engine.spec import Rung
from engine.types import ActionEvent, Evidence, Phase, Place, Span

# So many chunks are remembered, to say where an event's footage lies and where that of an
# unfinished snippet begins: two minutes' worth of a second each.
N_CHUNKS = 128


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


def with_chunk(place: Place, offset: int, start_us: int) -> Place:
    """The place with one more chunk of the run, whose first frame has this stream time."""
    if place.chunks and offset <= place.chunks[-1][0]:
        return place  # read again
    return replace(place, chunks=(*place.chunks, (offset, start_us))[-N_CHUNKS:])


def low_offset_of(place: Place, resume_us: int | None) -> int | None:
    """The offset from which a restart must read again; None if it need not.

    Args:
        place: Where the camera stands.
        resume_us: Stream time, in microseconds, from which footage is needed again; None: no
            footage is.
    """
    if resume_us is None or not place.chunks:
        return None
    (low_offset, _), *later = place.chunks
    # Up to the first chunk that begins later: a chunk may begin before the one that precedes it.
    for offset, _ in takewhile(lambda chunk: chunk[1] <= resume_us, later):
        low_offset = offset
    return low_offset


def evidence_of(place: Place, span: Span) -> Evidence | None:
    """Where the chunks lie that show a span; of those too old to be known, none; None: of all."""
    before = [offset for offset, start_us in place.chunks if start_us <= span.start_us]
    within = [offset for offset, start_us in place.chunks if start_us < span.end_us]
    if place.partition is None or not within:
        return None
    return Evidence(place.partition, before[-1] if before else within[0], within[-1])


def stamped(
    place: Place, watermark_us: int, rung: Rung, revisions: Sequence[ActionEvent]
) -> list[ActionEvent]:
    """Revisions with what their readers need beyond the event itself.

    Args:
        place: Where their camera stands.
        watermark_us: No event that starts before this stream time will be opened any more.
        rung: How much of the footage is looked at.
        revisions: Of one run, oldest first.
    """
    done: list[ActionEvent] = []
    for revision in reversed(revisions):
        evidence = evidence_of(place, revision.span)
        done.append(
            replace(revision, evidence=evidence, watermark_us=watermark_us, rung=rung.value)
        )
        # Before this one appeared, its start was not past.
        if revision.phase is Phase.OPENED:
            watermark_us = min(watermark_us, revision.span.start_us)
    return done[::-1]
