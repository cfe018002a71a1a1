"""Cameras of one process: what is away is waited for, what is lost is said, and the end comes."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import daemon.produce.feed
from daemon.errors import ConfigError, RefusedRecordError, TransportError
from daemon.outages import Kind, Outages
from daemon.produce.feed import SPOOL_FULL, STOPPED
from daemon.produce.fleet import Fleet, Target
from daemon.produce.footage import Footage
from daemon.produce.spool import Waiting
from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk
from engine.video.cutting import CutChunk
from tests.support.daemons import LogCapture
from tests.support.scripted_camera import Picture, ScriptedCamera, serving, small_footage
from tests.support.waiting import until

FAST = {"chunk_s": 0.2}


class AWriter:
    """A target that is as a test wants it.

    Attributes:
        trouble: Called with each chunk before it is taken; may raise, or wait.
        start_trouble: Called at each start.
        taken: What it took, by camera.
    """

    most_bytes: int | None = None

    def __init__(self) -> None:
        self.trouble: Callable[[VideoChunk], Any] = lambda _chunk: None
        self.start_trouble: Callable[[], Any] = lambda: None
        self.taken: dict[str, list[VideoChunk]] = defaultdict(list)
        self.facts: list[ChunkFacts] = []

    async def start(self) -> None:
        self.start_trouble()

    async def write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        waiting = self.trouble(chunk)
        if waiting is not None:
            await waiting
        self.taken[chunk.camera].append(chunk)
        self.facts.append(facts)

    async def close(self) -> None:
        """Nothing to close."""


def a_fleet(
    writer: AWriter, *footages: Footage, spool_bytes: int = 10**7
) -> tuple[Fleet, LogCapture]:
    logs = LogCapture()
    target = Target(writer, "the target", Kind.BROKER, Outages(logs.logger()))
    return Fleet(footages, target, spool_bytes=spool_bytes, log=logs.logger()), logs


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(fleet.run())
    try:
        yield task
    finally:
        fleet.stop()
        await task


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return small_footage(gop=5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon.produce.feed, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(daemon.produce.feed, "LAST_RETRY_S", 0.02)
    monkeypatch.setattr(daemon.produce.feed, "_FIRST_WRITE_RETRY_S", 0.01)
    monkeypatch.setattr(daemon.produce.feed, "_LAST_WRITE_RETRY_S", 0.02)
    monkeypatch.setattr("daemon.produce.fleet.DRAIN_S", 60)  # on a machine that is busy


@pytest.fixture
def camera(pictures: list[Picture]) -> Iterator[tuple[ScriptedCamera, str]]:
    scripted = ScriptedCamera(pictures)
    with serving([scripted]) as (url,):
        yield scripted, url


def sequences(chunks: list[VideoChunk]) -> list[int]:
    return [chunk.sequence for chunk in chunks if not chunk.is_end]


async def test_a_target_that_is_away_is_waited_for_and_nothing_is_lost(
    camera: tuple[ScriptedCamera, str],
) -> None:
    writer, n_tries = AWriter(), 0

    def away(_chunk: VideoChunk) -> None:
        nonlocal n_tries
        n_tries += 1
        if n_tries < 40:
            raise TransportError("nobody there")

    writer.trouble = away
    fleet, logs = a_fleet(writer, Footage("gate", camera[1], **FAST))
    async with running(fleet):
        await until(lambda: len(writer.taken["gate"]) >= 5)

    taken = writer.taken["gate"]
    assert list(range(len(taken))) == [chunk.sequence for chunk in taken]
    assert taken[-1].is_end
    assert [] == logs.named("produce.not_sent")


async def test_a_target_that_cannot_be_opened_is_tried_until_it_can(
    camera: tuple[ScriptedCamera, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.produce.fleet._RETRY_S", 0.01)
    writer, n_tries = AWriter(), 0

    def away() -> None:
        nonlocal n_tries
        n_tries += 1
        if n_tries < 10:
            raise TransportError("nobody there")

    writer.start_trouble = away
    fleet, _logs = a_fleet(writer, Footage("gate", camera[1], **FAST))
    async with running(fleet):
        await until(lambda: len(writer.taken["gate"]) >= 2)

    assert 0 == writer.taken["gate"][0].sequence


async def test_a_target_that_does_not_answer_is_told_as_one_that_is_away(
    camera: tuple[ScriptedCamera, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk or file server that hangs raises no error."""
    monkeypatch.setattr(daemon.produce.feed, "SLOW_S", 0.01)
    monkeypatch.setattr("daemon.produce.fleet._BEAT_S", 0.01)
    monkeypatch.setattr("daemon.outages.SETTLE_S", 1e-9)
    monkeypatch.setattr("daemon.outages._FLAP_S", 0.0)
    writer, answers = AWriter(), asyncio.Event()
    writer.trouble = lambda _chunk: answers.wait()
    fleet, logs = a_fleet(writer, Footage("gate", camera[1], **FAST))
    async with running(fleet):
        await until(lambda: bool(logs.named("outage.began")))
        answers.set()
        await until(lambda: bool(logs.named("outage.over")))

    (began, *_) = logs.named("outage.began")
    assert (["the target"], "no answer for 0.01 s") == (began["what"], began["reason"])
    assert [] == logs.named("produce.not_sent")


async def test_a_target_that_is_wrong_ends_everything(camera: tuple[ScriptedCamera, str]) -> None:
    writer = AWriter()

    def wrong() -> None:
        raise ConfigError("no such right")

    writer.start_trouble = wrong
    fleet, _logs = a_fleet(writer, Footage("gate", camera[1], **FAST))
    with pytest.raises(ConfigError, match="no such right"):
        await fleet.run()


async def test_beyond_the_spool_the_oldest_go_and_that_is_said(
    camera: tuple[ScriptedCamera, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.produce.fleet._BEAT_S", 0.01)
    writer, is_away = AWriter(), True

    def away(_chunk: VideoChunk) -> None:
        if is_away:
            raise TransportError("nobody there")

    writer.trouble = away
    fleet, logs = a_fleet(writer, Footage("gate", camera[1], **FAST), spool_bytes=20_000)
    (feed,) = fleet.feeds
    async with running(fleet):
        await until(lambda: feed.losses.n_chunks >= 3)
        is_away = False
        await until(lambda: feed.n_chunks >= 5)

    n_lost = feed.losses.n_chunks  # until the next try, more were lost
    found = sequences(writer.taken["gate"])
    (gap,) = [at for at in range(1, len(found)) if found[at] != found[at - 1] + 1]
    assert n_lost == found[gap] - found[gap - 1] - 1
    said = logs.named("produce.not_sent")
    assert {SPOOL_FULL} == {fields["reason"] for fields in said}
    assert n_lost == sum(fields["chunks"] for fields in said)  # type: ignore[misc]
    assert pytest.approx(0.2 * n_lost, abs=0.01) == feed.status().dropped_s


async def test_a_chunk_that_the_target_never_takes_is_left_out_and_that_is_said(
    camera: tuple[ScriptedCamera, str],
) -> None:
    writer = AWriter()

    def too_large(chunk: VideoChunk) -> None:
        if chunk.sequence == 1:
            raise RefusedRecordError("larger than 7 bytes: cut shorter")

    writer.trouble = too_large
    fleet, logs = a_fleet(writer, Footage("gate", camera[1], **FAST))
    async with running(fleet):
        await until(lambda: len(writer.taken["gate"]) >= 3)

    assert [0, 2, 3] == sequences(writer.taken["gate"])[:3]
    (said,) = logs.named("produce.not_sent")
    assert ("larger than 7 bytes: cut shorter", 1, 0.2) == (
        said["reason"],
        said["chunks"],
        said["seconds"],
    )


async def test_chunks_are_cut_to_what_the_target_takes(camera: tuple[ScriptedCamera, str]) -> None:
    """Chunks of 10 s would be too large for it; GOPs of 0.2 s are not."""
    writer = AWriter()
    writer.most_bytes = 12_000

    def too_large(chunk: VideoChunk) -> None:
        if len(chunk.payload) > 12_000:
            raise RefusedRecordError("too large")

    writer.trouble = too_large
    fleet, logs = a_fleet(writer, Footage("gate", camera[1], chunk_s=10))
    async with running(fleet):
        await until(lambda: len(writer.taken["gate"]) >= 3)

    assert [] == logs.named("produce.not_sent")
    said = [str(note["said"]) for note in logs.named("produce.note")]
    assert any("cut shorter, for their reader takes 12000 bytes" in each for each in said)


async def test_a_camera_that_hangs_or_goes_costs_no_other_one(pictures: list[Picture]) -> None:
    cameras = [ScriptedCamera(pictures) for _ in range(3)]
    cameras[0].is_deaf = True
    writer = AWriter()
    with serving(cameras) as urls:
        names = ["deaf", "wrong", "well"]
        urls[1] = urls[1].replace("rtsp://", "rtsp://u:p@")
        cameras[1].login = "another:login"
        footages = [Footage(name, url, **FAST) for name, url in zip(names, urls, strict=True)]
        fleet, logs = a_fleet(writer, *footages)
        async with running(fleet):
            await until(lambda: len(writer.taken["well"]) >= 5)
            await until(lambda: bool(logs.named("produce.away")))
            states = {feed.footage.camera: feed.status().state for feed in fleet.feeds}
            assert "opening" == states["deaf"]
            assert "live" == states["well"]

    assert {"wrong"} == {fields["camera"] for fields in logs.named("produce.away")}
    assert all("p@" not in str(fields) for fields in logs.named("produce.away"))
    assert ["well"] == list(writer.taken)


async def test_an_error_that_nobody_foresaw_costs_no_other_camera(
    pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.produce.fleet._RETRY_S", 0.01)
    cameras = [ScriptedCamera(pictures) for _ in range(2)]
    writer, n_failures = AWriter(), 0

    def fails_twice(chunk: VideoChunk) -> None:
        nonlocal n_failures
        if chunk.camera == "bad" and n_failures < 2:
            n_failures += 1
            raise ZeroDivisionError("a bug")

    writer.trouble = fails_twice
    with serving(cameras) as urls:
        footages = [
            Footage(name, url, **FAST) for name, url in zip(["bad", "well"], urls, strict=True)
        ]
        fleet, logs = a_fleet(writer, *footages)
        async with running(fleet):
            await until(lambda: len(writer.taken["well"]) >= 5 and len(writer.taken["bad"]) >= 2)

    assert ["bad", "bad"] == [each["camera"] for each in logs.named("produce.camera_failed")]


async def test_an_end_waits_for_no_camera_and_no_target(
    pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that never answers, and chunks that nobody takes: the end comes, and says so."""
    monkeypatch.setattr("daemon.produce.fleet.DRAIN_S", 0.05)
    cameras = [ScriptedCamera(pictures), ScriptedCamera(pictures, is_deaf=True)]
    writer, never = AWriter(), asyncio.Event()
    writer.trouble = lambda _chunk: never.wait()
    with serving(cameras) as urls:
        footages = [
            Footage(name, url, **FAST) for name, url in zip(["well", "deaf"], urls, strict=True)
        ]
        fleet, logs = a_fleet(writer, *footages)
        async with running(fleet):
            await until(lambda: fleet.feeds[0].status().spooled_chunks >= 3)

    assert {} == writer.taken
    said = logs.named("produce.not_sent")
    assert {("well", STOPPED)} == {(fields["camera"], fields["reason"]) for fields in said}
    assert 4 <= sum(fields["chunks"] for fields in said)  # type: ignore[misc]


async def test_a_camera_that_comes_back_goes_on_in_a_new_run(
    camera: tuple[ScriptedCamera, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted, url = camera
    cut: Any = daemon.produce.feed.cut_video

    def breaks_off(*arguments: Any, **options: Any) -> Iterator[CutChunk]:
        yield from [next(pieces := cut(*arguments, **options)), next(pieces)]

    monkeypatch.setattr(daemon.produce.feed, "cut_video", breaks_off)
    writer = AWriter()
    fleet, logs = a_fleet(writer, Footage("gate", url, **FAST))
    async with running(fleet):
        await until(lambda: len({chunk.run for chunk in writer.taken["gate"]}) >= 3)

    runs: dict[str, list[VideoChunk]] = defaultdict(list)
    for chunk in writer.taken["gate"]:
        runs[chunk.run].append(chunk)
    assert [0, 1, 2] == [chunk.sequence for chunk in next(iter(runs.values()))]
    assert all(run[-1].is_end for run in runs.values())
    assert {"the stream ended"} == {
        str(fields["reason"]).partition(": ")[2] for fields in logs.named("produce.away")
    }
    assert scripted.n_connected >= 3


async def test_how_each_camera_is_can_be_told(camera: tuple[ScriptedCamera, str]) -> None:
    logs, writer = LogCapture(), AWriter()
    target = Target(writer, "the target", Kind.BROKER, Outages(logs.logger()))
    shown: list[str] = []
    fleet = Fleet(
        [Footage("gate", camera[1], **FAST)],
        target,
        spool_bytes=10**7,
        log=logs.logger(),
        status_every_s=0.0,
        show=lambda statuses: shown.extend(status.line() for status in statuses),
    )
    async with running(fleet):
        await until(lambda: any(line.startswith("gate: live, fps 25.0, lag ") for line in shown))
        await until(lambda: bool(logs.named("produce.status")))

    (told, *_more) = logs.named("produce.status")
    keys = {"camera", "state", "fps", "lag_s", "spooled_chunks", "spooled_bytes"}
    assert keys | {"dropped_chunks", "dropped_s"} == set(told)


def test_an_end_marker_is_no_loss() -> None:
    end = Waiting(VideoChunk("gate", "r", 3, 0, b"", is_end=True), ChunkFacts())

    assert 0 == end.duration_us
