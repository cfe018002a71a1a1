"""A fault that only one camera's footage brings about costs that camera's run and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.decoding.base import Decoded
from daemon.journal.memory import MemoryJournal, MemoryRecords
from daemon.sources.memory import MemoryChunkSource
from engine.errors import DecoderLostError, DeviceError
from engine.spec import ModelSpec
from engine.types import Reason, VideoChunk
from engine.video.frames import PyAvDecoder
from tests.support.daemons import TestDaemon, a_log, final_of, straight_line
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.swaps import check_grammar

Trips = dict[tuple[str, int], Exception | float]


class TrippingDecoder:
    """At a camera's chunk of a number, it raises what a test likes, or takes so many seconds."""

    def __init__(self, spec: ModelSpec, trips: Trips) -> None:
        self._decoder = PyAvDecoder(spec.geometry, spec.grid)
        self._trips = trips

    async def decode(self, chunk: VideoChunk) -> Decoded:
        trip = self._trips.get((chunk.camera, chunk.sequence), 0.0)
        if isinstance(trip, Exception):
            raise trip
        return Decoded(self._decoder.decode(chunk), trip)

    def close(self) -> None:
        self._decoder.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_clip(tmp_path_factory.mktemp("clips") / "busy.mp4", BUSY)


async def served(clip: Path, trips: Trips) -> tuple[TestDaemon, MemoryRecords]:
    log = a_log(*chunks_of(clip, "good", chunk_s=0.4), *chunks_of(clip, "bad", chunk_s=0.4))
    kept = MemoryRecords()
    daemon = TestDaemon(
        MemoryChunkSource(log),
        MemoryJournal(kept),
        new_decoder=lambda spec: TrippingDecoder(spec, trips),
    )
    await daemon.serve()
    return daemon, kept


ERRORS: dict[str, Callable[[], Exception]] = {
    "a fault of the code": lambda: ZeroDivisionError("of all things"),
    "no memory": lambda: MemoryError("too much"),
    "a wrong type": lambda: TypeError("no number"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
async def test_an_unexpected_error_costs_the_cameras_run_and_is_named(
    clip: Path, error: Callable[[], Exception]
) -> None:
    daemon, kept = await served(clip, {("bad", 5): error()})

    good = [event for event in kept.events if event.camera == "good"]
    bad = [event for event in kept.events if event.camera == "bad"]
    assert straight_line(clip, "good") == good
    assert Reason.GAP in {event.reason for event in bad}
    check_grammar(bad)
    assert all(event.final for event in final_of(bad).values())
    (failed,) = daemon.logs.named("camera.failed")
    assert ("bad", 5, type(error()).__name__) == (
        failed["camera"],
        failed["offset"],
        failed["error"],
    )
    (letter,) = kept.dead
    assert ("bad", 5, "CameraFailedError") == (letter.camera, letter.offset, letter.error)
    assert 1 == daemon.count("camera_failures_total", camera="bad")
    n_chunks = len(chunks_of(clip, "bad", chunk_s=0.4))
    assert n_chunks == kept.next_offset("bad")
    assert n_chunks - 2 == daemon.count("chunks_total", camera="bad")  # with the end mark


@pytest.mark.parametrize("error", [KeyError("a"), DecoderLostError("it took too long")])
async def test_a_camera_that_does_harm_again_is_not_tried_for_a_while(
    clip: Path, error: Exception
) -> None:
    daemon, kept = await served(clip, {("bad", 3): error, ("bad", 5): error})

    assert straight_line(clip, "good") == [e for e in kept.events if e.camera == "good"]
    (quarantined,) = daemon.logs.named("camera.quarantined")
    assert "bad" == quarantined["camera"]
    n_chunks = len(chunks_of(clip, "bad", chunk_s=0.4))
    refused = daemon.count("corrupt_chunks_total", camera="bad", error="QuarantineError")
    assert n_chunks - 6 == refused
    assert n_chunks == kept.next_offset("bad")
    assert n_chunks - 6 + 2 == len(kept.dead)
    assert all(event.final for event in final_of(kept.events).values())


@pytest.mark.parametrize(("first", "n_tried"), [(3, 2), (0, 1)])  # nobody forgives a new name
async def test_a_camera_whose_chunks_take_far_longer_than_they_play_is_not_tried_for_a_while(
    clip: Path, first: int, n_tried: int
) -> None:
    daemon, kept = await served(clip, {("bad", number): 3.0 for number in range(first, 100)})

    assert straight_line(clip, "good") == [e for e in kept.events if e.camera == "good"]
    assert first + n_tried == daemon.count("chunks_total", camera="bad")
    assert n_tried == len(daemon.logs.named("camera.too_slow"))
    assert 1 == daemon.count("quarantines_total", camera="bad")


async def test_a_failing_device_still_ends_the_daemon(clip: Path) -> None:
    with pytest.raises(DeviceError):
        await served(clip, {("bad", 3): DeviceError("it is gone")})
