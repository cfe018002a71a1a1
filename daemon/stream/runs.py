"""Several producers' runs under one camera's name: which goes on, and what is left out. Pure.

Anybody who may write to a topic can write a camera's name, so no single record ends a run:

- A run ends when a chunk of another one has *decoded*. Records without headers have no run of
  their own; they replace a run with headers only where it is over, or as below.
- An end mark ends its own run and no other.
- Time decides, and a sequence number merely tells gaps: what is newer than all that was seen goes
  on, whatever its number.
- What is left out while another run goes on is counted as the ``Rival``. Once ``N_TO_WIN`` of its
  chunks have come in a row, each newer than the one before and none of them known, it is the live
  one: it becomes the camera's run. So one wild number, one wild time or one stray producer costs
  the camera a few chunks, and not its sight until its producer reconnects.
- Records without headers carry the time of somebody else's clock, which may be set: where it went
  back, a new run begins at once (``daemon.stream.foreign``), but for one that has only just begun
  so: two clocks that take turns are two producers.
"""

from dataclasses import replace
from enum import Enum

from daemon.stream.place import N_CHUNKS
from engine.session import StreamSession
from engine.types import FOREIGN_RUN, Place, Rival, VideoChunk

# Chunks of an ended run that its producer had queued are few, and come before many of the next.
N_TO_WIN = 5

# How many ended runs are remembered: a producer that comes back after a network cut may still
# deliver chunks of its last runs that it had queued.
N_ENDED_RUNS = 16

# Two records without headers whose times are so near are probably of one producer.
_SAME_CLOCK_US = 60_000_000

_ALL_SEEN_US = 2**62


class Claim(Enum):
    """What is to be done with a chunk, given the run that goes on."""

    GOES_ON = "it is the next of the run"
    BEGINS = "once it has decoded, its run is the camera's"
    SEEN = "it was seen before, or its run is over"
    REFUSED = "it is of another producer's run"


def producer_run_of(session: StreamSession) -> str:
    """The run of a session as its producer names it."""
    return session.place.producer_run or session.run


def claim_of(session: StreamSession | None, chunk: VideoChunk) -> tuple[Claim, Rival | None]:
    """What to do with a chunk, and the camera's rival if it is left out.

    Args:
        session: The camera's; None: nothing that it has sent could be used.
        chunk: As it was sent; not decoded.
    """
    if session is None:
        return (Claim.SEEN if chunk.is_end else Claim.BEGINS), None
    if chunk.run == producer_run_of(session):
        return _of_the_run(session, chunk)
    return _of_another(session.place, is_foreign=_is_foreign(session), chunk=chunk)


def claim_of_past(session: StreamSession, chunk: VideoChunk) -> tuple[Claim, Rival | None]:
    """What to do with a chunk of the run whose frames are all older than what was seen."""
    return _past_of_the_run(session.place, chunk, Claim.REFUSED)


def claim_of_step(session: StreamSession, chunk: VideoChunk) -> tuple[Claim, Rival | None]:
    """What to do with a chunk without headers whose clock was set."""
    place, rival = session.place, session.place.rival
    has_just_begun_so = place.producer_run is not None and len(place.chunks) < N_TO_WIN
    is_rival = (
        rival is not None
        and rival.run == chunk.run
        and abs(chunk.start_us - rival.newest_us) < _SAME_CLOCK_US
    )
    if has_just_begun_so or is_rival:
        return claim_of_past(session, chunk)
    return Claim.BEGINS, rival


def name_of_run(place: Place, chunk: VideoChunk, offset: int) -> str:
    """The name of a run that begins: no two runs of a camera have the same.

    Args:
        place: Where the camera stood, with the run before among the ended ones.
        chunk: The run's first.
        offset: Where that lies.
    """
    return f"{chunk.run}@{offset}" if chunk.run in place.ended_runs else chunk.run


def with_ended(place: Place, run: str, seen_us: int | None) -> Place:
    """The place with one more ended run, of which chunks that come late are left out.

    Args:
        place: The place before.
        run: The run as its producer names it.
        seen_us: It was seen up to this stream time; None: nothing of it was.
    """
    ended = {name: us for name, us in _ended(place).items() if name != run}
    ended[run] = -1 if seen_us is None else seen_us
    last = list(ended.items())[-N_ENDED_RUNS:]
    runs, ended_us = (name for name, _ in last), (us for _, us in last)
    return replace(place, ended_runs=tuple(runs), ended_us=tuple(ended_us))


def without_row(place: Place) -> Place:
    """The place after a chunk of the run that goes on: its rival must begin to count anew."""
    rival = place.rival
    return place if rival is None else replace(place, rival=replace(rival, n_in_a_row=0))


def _ended(place: Place) -> dict[str, int]:
    """Ended runs, and up to which stream time each was seen."""
    n_unknown = len(place.ended_runs) - len(place.ended_us)  # an older snapshot does not say it
    return dict(
        zip(place.ended_runs, (*[_ALL_SEEN_US] * n_unknown, *place.ended_us), strict=False)
    )


def _is_foreign(session: StreamSession) -> bool:
    return producer_run_of(session) == FOREIGN_RUN


def _of_the_run(session: StreamSession, chunk: VideoChunk) -> tuple[Claim, Rival | None]:
    place, seen_us = session.place, session.seen_us
    is_next = place.sequence is None or chunk.sequence > place.sequence
    is_newer = seen_us is None or chunk.start_us > seen_us
    if chunk.is_end:
        is_end = (is_next or is_newer) and not place.is_over
        return (Claim.GOES_ON if is_end else Claim.SEEN), place.rival
    if is_next or is_newer:
        return Claim.GOES_ON, place.rival
    return _past_of_the_run(place, chunk, Claim.SEEN)


def _past_of_the_run(place: Place, chunk: VideoChunk, claim: Claim) -> tuple[Claim, Rival]:
    """What to do with a chunk of the run that is not newer: the claim given, or it wins."""
    rival = _next_rival(place, chunk, is_fresh=_is_fresh(place, chunk))
    return (Claim.BEGINS if rival.n_in_a_row >= N_TO_WIN else claim), rival


def _of_another(
    place: Place, *, is_foreign: bool, chunk: VideoChunk
) -> tuple[Claim, Rival | None]:
    is_returning = chunk.run in place.ended_runs
    seen_us = _ended(place).get(chunk.run, -1)
    has_headers = chunk.run != FOREIGN_RUN
    may_be_set_back = place.is_over and not has_headers
    if chunk.is_end or (chunk.start_us <= seen_us and not may_be_set_back):
        return Claim.SEEN, place.rival
    is_weaker = not has_headers and not is_foreign
    is_stronger = has_headers and is_foreign
    if place.is_over or is_stronger or not (is_returning or is_weaker):
        return Claim.BEGINS, place.rival
    rival = _next_rival(place, chunk)
    if rival.n_in_a_row >= N_TO_WIN:
        return Claim.BEGINS, rival
    is_lasting = is_weaker or rival.n_all >= N_TO_WIN
    return (Claim.REFUSED if is_lasting else Claim.SEEN), rival


def _next_rival(place: Place, chunk: VideoChunk, *, is_fresh: bool = True) -> Rival:
    """The rival with one more chunk, which counts in a row only if it is fresh and newer."""
    before = place.rival
    if before is None or before.run != chunk.run:
        return Rival(chunk.run, chunk.start_us, n_in_a_row=int(is_fresh))
    is_newer = before.n_in_a_row == 0 or chunk.start_us > before.newest_us
    n_in_a_row = (before.n_in_a_row if is_newer else 0) + 1
    return Rival(chunk.run, chunk.start_us, n_in_a_row if is_fresh else 0, before.n_all + 1)


def _is_fresh(place: Place, chunk: VideoChunk) -> bool:
    """True if a chunk of the run cannot be an old one that was sent again."""
    starts_us = [start_us for _, start_us in place.chunks]
    if not starts_us or chunk.start_us in starts_us:
        return False
    # Of older ones than are remembered, nobody knows.
    return len(starts_us) < N_CHUNKS or chunk.start_us > min(starts_us)
