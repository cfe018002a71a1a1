"""The dates of a camera's pictures, from RTP packets to the chunks that are published."""

from collections.abc import Callable, Sequence
from itertools import count, pairwise

import pytest

from daemon.produce.runs import SourceRuns
from daemon.wire.facts import ChunkFacts
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import VideoChunk
from engine.video.arrivals import HostClocks
from engine.video.cutting import Transcode, cut_video
from engine.video.frames import PyAvDecoder
from tests.support.scripted_camera import pictures_of
from tests.support.stamping_camera import Script, stamping_camera
from tests.support.videos import make_video

US_PER_S, TICKS_PER_S = 1_000_000, 90_000
UNIX_US = 1_800_000_000 * US_PER_S
FPS, GOP = 25, 10
MOST_OFF_US = 300_000
EVERY_FRAME = Grid(fps=1000, snippet_frames=16, stride_frames=16)
Times = Callable[[int], float]


def nothing(_picture: int) -> float:
    return 0


class Played:
    """A camera that was cut, each connection by itself.

    Attributes:
        chunks: What was published.
        facts: Beside each of them.
        dates_us: When each picture was taken, as the chunks date it.
        notes: What was said.
    """

    def __init__(
        self,
        *,
        connections: Sequence[int] = (500,),
        taken_s: Times = lambda n: n / FPS,
        stamp_s: Times = lambda n: n / FPS,
        delay_s: Times = nothing,
        host_s: Times = nothing,
        says_s: Callable[[int], float | None] = lambda _n: None,
        transcode: Transcode = "auto",
    ) -> None:
        self.chunks: list[VideoChunk] = []
        self.facts: list[ChunkFacts] = []
        self.notes: list[str] = []
        arrived = count()  # each picture's clock is read once

        def steady_s() -> float:
            self._newest = next(arrived)
            return 1000 + taken_s(self._newest) + delay_s(self._newest)

        def unix_us() -> int:
            now_s = taken_s(self._newest) + delay_s(self._newest) + host_s(self._newest)
            return UNIX_US + round(now_s * US_PER_S)

        def says_us(n: int) -> int | None:
            said = says_s(n) if n % 50 == 30 else None
            return None if said is None else UNIX_US + round(said * US_PER_S)

        script = Script(
            pictures_of(make_video(container="h264", n_frames=GOP * 5, gop=GOP)),
            lambda n: 2**31 + round(stamp_s(n) * TICKS_PER_S),
            says_us,
            connections,
        )
        with stamping_camera(script) as url:
            for _ in connections:
                runs = SourceRuns("cam", None)
                pieces = cut_video(
                    url,
                    chunk_s=1,
                    on_note=self.notes.append,
                    live=True,
                    transcode=transcode,
                    clocks=HostClocks(steady_s, unix_us),
                )
                for piece in pieces:
                    self._publish(runs.taken(piece))
                self._publish(runs.ended())
        decoder = PyAvDecoder(FrameGeometry(resize_px=8, crop_px=8), EVERY_FRAME)
        self.dates_us = [
            (chunk.anchor_us or 0) + us - UNIX_US
            for chunk in self.chunks
            if not chunk.is_end
            for us in decoder.decode(chunk).pts_us.tolist()
        ]

    def _publish(self, sent: list[tuple[VideoChunk, ChunkFacts]]) -> None:
        for chunk, facts in sent:
            self.chunks.append(chunk)
            self.facts.append(facts)

    @property
    def n_runs(self) -> int:
        return len({chunk.run for chunk in self.chunks})

    def worst_us(self, wanted_s: Times) -> float:
        """How far off the worst picture is dated; all must be there."""
        return max(abs(us - wanted_s(n) * US_PER_S) for n, us in enumerate(self.dates_us))


def test_pictures_are_dated_by_the_arrival_of_the_first(  # and not by when it was connected to
) -> None:
    played = Played(taken_s=lambda n: 5 + n / FPS)

    assert 500 == len(played.dates_us)
    assert played.worst_us(lambda n: 5 + n / FPS) < 20
    assert 1 == played.n_runs
    assert {"arrival"} == {facts.clock for facts in played.facts}


@pytest.mark.parametrize("transcode", ["auto", "always"])
def test_a_camera_that_stamps_more_pictures_than_it_sends_does_not_drift(
    transcode: Transcode,
) -> None:
    played = Played(connections=(1500,), taken_s=lambda n: n / 21, transcode=transcode)

    off_us = [us - n / 21 * US_PER_S for n, us in enumerate(played.dates_us)]
    assert 1500 == len(off_us)
    assert max(map(abs, off_us[500:])) < MOST_OFF_US


@pytest.mark.parametrize("step_s", [-3600, 3600, 2])
def test_a_host_whose_clock_is_set_begins_a_new_run(step_s: float) -> None:
    played = Played(host_s=lambda n: step_s * (n >= 205))

    assert 500 == len(played.dates_us)
    assert 2 == played.n_runs
    first = [chunk.is_end for chunk in played.chunks].index(True)
    until = sum(facts.n_frames or 0 for facts in played.facts[:first])
    assert 200 - 3 * FPS <= until <= 205
    assert played.worst_us(lambda n: n / FPS + step_s * (n >= until)) < 20
    ordered = [(chunk.run, chunk.sequence) for chunk in played.chunks]
    assert all(b[1] == (a[1] + 1 if a[0] == b[0] else 0) for a, b in pairwise(ordered))
    assert any("a new run begins" in note for note in played.notes)


@pytest.mark.parametrize("step_s", [7 * 3600, -7 * 3600, -3600, -2, 3])
@pytest.mark.parametrize("at", [200, 255])
def test_a_camera_whose_stamps_step_is_dated_as_before(step_s: float, at: int) -> None:
    """Seven hours are more than 31 bits of a clock of 90 kHz hold."""
    played = Played(
        connections=(600,), stamp_s=lambda n: n / FPS + step_s * (n >= at), delay_s=lambda _n: 0.05
    )

    assert 600 == len(played.dates_us)
    assert played.worst_us(lambda n: n / FPS) < MOST_OFF_US


def test_each_connection_is_dated_anew() -> None:
    """The camera is away for a minute, and its stamps begin anew."""

    def taken_s(n: int) -> float:
        return n / FPS + 60 * (n >= 200)

    played = Played(connections=(200, 200), taken_s=taken_s, stamp_s=lambda n: n % 200 / FPS)

    # The last picture of a connection that broke off may be half a picture.
    dates_us = [*played.dates_us[:199], *played.dates_us[-199:]]
    numbers = [*range(199), *range(200, 399)]
    worst = max(abs(us - taken_s(n) * US_PER_S) for n, us in zip(numbers, dates_us, strict=True))
    assert worst < MOST_OFF_US
    assert 2 == played.n_runs


def test_what_a_camera_says_of_its_pictures_is_believed() -> None:
    """They are on the way for 0.6 s."""
    played = Played(delay_s=lambda _n: 0.6, says_s=lambda n: n / FPS)

    off_us = [us - n / FPS * US_PER_S for n, us in enumerate(played.dates_us)]
    assert max(map(abs, off_us[100:])) < 2_000
    assert "rtcp" == [facts.clock for facts in played.facts if facts.n_frames][-1]


def test_a_camera_whose_wall_clock_is_wrong_is_not_believed() -> None:
    played = Played(delay_s=lambda _n: 0.05, says_s=lambda n: n / FPS - 3600)

    assert played.worst_us(lambda n: n / FPS) < 60_000
    assert {"arrival"} == {facts.clock for facts in played.facts}
