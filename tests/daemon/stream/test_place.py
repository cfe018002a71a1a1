"""Where a camera stands: what a restart reads again, and where an event's footage lies."""

from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.stream.place import N_CHUNKS, evidence_of, low_offset_of, with_chunk
from engine.types import Evidence, Place, Span

starts = st.lists(st.integers(0, 40), min_size=1, max_size=20)


def a_place(starts_us: list[int]) -> Place:
    """Chunks at every third offset, as other cameras' lie between them."""
    place = Place("chunks/0", 0)
    for number, start_us in enumerate(starts_us):
        place = with_chunk(place, 3 * number, start_us)
    return place


@given(starts, st.integers(0, 45))
def test_a_restart_reads_every_chunk_that_may_hold_a_frame_it_needs(starts_us, resume_us):
    """A frame lies in the last chunk that begins before it, or in a later one."""
    assume(starts_us[0] <= resume_us)  # what is held came with a chunk
    low_offset = low_offset_of(a_place(starts_us), resume_us)

    needed = [n for n, start_us in enumerate(starts_us) if start_us > resume_us]
    first_later = min(needed, default=len(starts_us))
    assert 3 * (first_later - 1) == low_offset


def test_a_restart_that_needs_no_frame_reads_nothing_again():
    assert low_offset_of(a_place([0, 10]), None) is None
    assert low_offset_of(Place("chunks/0", 7), 5) is None


def test_a_chunk_that_is_read_again_is_known_already():
    place = a_place([0, 10, 20])

    assert place == with_chunk(place, 3, 10)


def test_only_so_many_chunks_are_remembered():
    place = a_place(list(range(N_CHUNKS + 5)))

    assert N_CHUNKS == len(place.chunks)
    assert (15, 5) == place.chunks[0]


def test_evidence_is_from_the_chunk_an_event_begins_in_to_the_one_it_ends_in():
    place = a_place([0, 10, 20, 30])

    assert Evidence("chunks/0", 3, 6) == evidence_of(place, Span(12, 30))
    assert Evidence("chunks/0", 0, 0) == evidence_of(place, Span(0, 10))
    assert evidence_of(Place(), Span(0, 10)) is None
