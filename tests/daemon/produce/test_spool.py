"""What waits to be written: within its bytes, the oldest of the greediest goes first."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from daemon.produce.losses import AGAIN_S, Losses
from daemon.produce.spool import Spool, Waiting
from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk
from tests.support.daemons import LogCapture

OVERHEAD = Waiting(VideoChunk("a", "r", 0, 0, b""), ChunkFacts()).n_bytes


def waiting(camera: str, sequence: int, n_bytes: int = 0, *, is_end: bool = False) -> Waiting:
    chunk = VideoChunk(camera, "r", sequence, sequence * 10, bytes(n_bytes), is_end=is_end)
    return Waiting(chunk, ChunkFacts(duration_us=1_500_000))


def taken(spool: Spool, camera: str) -> list[int]:
    found = []
    while (one := spool.take(camera)) is not None:
        found.append(one.chunk.sequence)
        spool.done(one)
    return found


def test_what_is_taken_is_the_oldest_of_its_camera() -> None:
    spool = Spool(10**6)
    for sequence in range(3):
        assert [] == spool.put(waiting("a", sequence))
        spool.put(waiting("b", 10 + sequence))

    assert [0, 1, 2] == taken(spool, "a")
    assert [10, 11, 12] == taken(spool, "b")
    assert spool.take("c") is None


def test_the_camera_that_holds_most_gives_up_its_oldest() -> None:
    spool = Spool(4 * OVERHEAD + 350)
    spool.put(waiting("small", 0, 50))
    gone = [one for n in range(5) for one in spool.put(waiting("large", n, 100))]

    assert [("large", 0), ("large", 1)] == [(w.chunk.camera, w.chunk.sequence) for w in gone]
    assert [0] == taken(spool, "small")
    assert [2, 3, 4] == taken(spool, "large")


def test_what_is_being_written_takes_room_and_is_not_taken_away() -> None:
    spool = Spool(2 * OVERHEAD + 200)
    spool.put(waiting("a", 0, 200))
    in_hand = spool.take("a")
    assert in_hand is not None
    spool.put(waiting("a", 1, 10))

    assert [1] == [one.chunk.sequence for one in spool.put(waiting("a", 2, 10))]
    spool.done(in_hand)
    assert [] == spool.put(waiting("a", 3, 10))


def test_a_cameras_newest_chunk_always_has_a_place() -> None:
    spool = Spool(OVERHEAD)

    assert [] == spool.put(waiting("a", 0, 10_000))
    assert [] == spool.put(waiting("b", 1, 10_000))
    assert [0] == [one.chunk.sequence for one in spool.put(waiting("a", 2, 10_000))]


@given(
    st.integers(OVERHEAD, 20 * OVERHEAD),
    st.lists(
        st.tuples(st.sampled_from(["put", "take"]), st.sampled_from("abc"), st.integers(0, 5000))
    ),
)
def test_nothing_is_lost_in_silence_and_nothing_is_kept_beyond_the_bound(
    most_bytes: int, steps: list[tuple[str, str, int]]
) -> None:
    spool = Spool(most_bytes)
    put: dict[str, list[int]] = defaultdict(list)
    seen: dict[str, list[int]] = defaultdict(list)
    for number, (step, camera, n_bytes) in enumerate(steps):
        if step == "put":
            put[camera].append(number)
            for gone in spool.put(waiting(camera, number, n_bytes)):
                seen[gone.chunk.camera].append(gone.chunk.sequence)
        elif (one := spool.take(camera)) is not None:
            seen[camera].append(one.chunk.sequence)
            spool.done(one)
        held = [spool.held(each) for each in "abc"]
        assert sum(n for _, n in held) <= most_bytes or all(n_chunks <= 1 for n_chunks, _ in held)
    for camera in "abc":
        seen[camera] += taken(spool, camera)
        assert put[camera] == seen[camera]


def test_losses_are_said_at_once_and_then_once_a_minute() -> None:
    logs, losses = LogCapture(), Losses("gate")
    losses.add(waiting("gate", 0, 70), "full")
    losses.tell(logs.logger(), 100)
    for sequence in range(3):
        losses.add(waiting("gate", 1 + sequence, 10), "full")
        losses.tell(logs.logger(), 101 + sequence)
    losses.add(waiting("gate", 9, 5), "other", "in more words")
    losses.add(waiting("gate", 10, is_end=True), "full")
    losses.tell(logs.logger(), 104)
    losses.tell(logs.logger(), 100 + AGAIN_S)
    losses.add(waiting("gate", 11, 10), "full")
    losses.tell(logs.logger(), 101 + AGAIN_S, at_once=True)

    said = [
        (fields["reason"], fields["chunks"], fields["seconds"], fields["bytes"])
        for fields in logs.named("produce.not_sent")
    ]
    assert [
        ("full", 1, 1.5, 70),
        ("in more words", 1, 1.5, 5),
        ("full", 3, 4.5, 30),
        ("full", 1, 1.5, 10),
    ] == said
    assert (6, 9_000_000) == (losses.n_chunks, losses.duration_us)
