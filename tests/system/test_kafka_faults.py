"""What a group and a broker do to cameras that run: a rebalance, a hang, a SIGKILL.

A camera must never stand still, and in the end each must have told what it would have told
undisturbed. Ten rounds of each fault instead of one: S2NETD_TEST_SOAK=1.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from daemon.kafka.connection import KafkaConnection
from daemon.produce.kafka_writer import KafkaChunkWriter, KafkaWriterSettings
from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.kafka import OwnBroker
from tests.support.kafka_daemon import a_config, topic_events
from tests.support.processes import (
    assert_repeats_agree,
    log_entries,
    read_events,
    s2netd,
    start_s2netd,
    without_ids,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.openvino]

CAMERAS = ("a", "b", "c", "d", "e", "f")
LAPS = 3  # the clip's, each a run, in a round
HANG_S = 15.0  # longer than one attempt to send, shorter than the patience with a broker
GONE_S = 5.0
PATIENCE_S = 240

_log = logging.getLogger(__name__)

soak = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
]


class Supervised:
    """`s2netd run` on a configuration, started again when it fails, as systemd does it."""

    def __init__(self, config: Path) -> None:
        self.n_restarts = 0
        self.log = config.with_suffix(".log")
        self._config = config
        self._start()

    def _start(self) -> None:
        self._process = start_s2netd("run", "--config", self._config, log=self.log)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self._entries() if entry["event"] == event]

    def _entries(self) -> list[dict[str, Any]]:
        return log_entries(self.log.read_text())

    def around(self, camera: str, run: str) -> str:
        """What was logged of a camera's run, and of everything but cameras meanwhile."""
        entries = self._entries()
        of_run = [
            n for n, e in enumerate(entries) if (e.get("camera"), e.get("run")) == (camera, run)
        ]
        return "\n".join(
            str(entry)
            for entry in entries[max(min(of_run, default=0) - 20, 0) : max(of_run, default=0) + 20]
            if entry.get("camera", camera) == camera
        )

    async def until(self, holds: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait, and say what the daemon said if it takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await _truth(holds()):
                    self._start_again_if_it_failed()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"stood still: {self.log.read_text()[-6000:]}")

    def _start_again_if_it_failed(self) -> None:
        if self._process.poll() is not None:
            assert self._process.returncode == 1, self.log.read_text()[-6000:]
            self.n_restarts += 1
            assert self.n_restarts == len(self.logged("daemon.failed"))
            self._start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0, self.log.read_text()[-6000:]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


async def _truth(answer: bool | Awaitable[bool]) -> bool:  # noqa: FBT001 - whatever a question answers
    return answer if isinstance(answer, bool) else await answer


class World:
    """A broker of the test's own, with a topic of chunks, one of events, and a bundle."""

    def __init__(self, folder: Path, broker: OwnBroker, bundle: Path) -> None:
        self.broker = broker
        self.bootstrap = broker.start()
        for topic in ("chunks", "events"):
            broker.run("topic", topic, "2")
        self._folder = folder
        self._bundle = bundle
        self._daemons: list[Supervised] = []
        connection = KafkaConnection(self.bootstrap, connect_timeout_s=PATIENCE_S)
        self.writer = KafkaChunkWriter(KafkaWriterSettings(connection, "chunks"))

    def daemon(self, name: str) -> Supervised:
        """A member of the one group, with a state of its own."""
        folder = self._folder / name
        folder.mkdir()
        config = a_config(folder, self._bundle, self.bootstrap, "chunks", "events", "group")
        self._daemons.append(Supervised(config))
        return self._daemons[-1]

    def kill_daemons(self) -> None:
        for daemon in self._daemons:
            daemon.kill()

    async def is_all_committed(self) -> bool:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id="group")
        await consumer.start()
        try:
            ends = await consumer.end_offsets([TopicPartition("chunks", p) for p in (0, 1)])
            return all([end == (await consumer.committed(p) or 0) for p, end in ends.items()])
        finally:
            await consumer.stop()

    def alone(self, clip: Path) -> list[tuple[Any, ...]]:
        """What one camera tells of the clip when nothing disturbs it."""
        out = self._folder / "alone"
        done = s2netd(
            *("localize", clip, "--bundle", self._bundle, "--out", out, "--precision", "f32")
        )
        assert done.returncode == 0, done.stderr
        return without_ids(read_events(out / "events.jsonl"))

    async def told(self, camera: str) -> dict[str, list[tuple[Any, ...]]]:
        """By run, what was told of a camera."""
        records = await topic_events(self.bootstrap, "events")
        assert_repeats_agree(records)
        mine = [record for record in records if record["camera_id"] == camera]
        return {
            run: without_ids([record for record in mine if record["epoch"] == run])
            for run in {record["epoch"] for record in mine}
        }


@pytest.fixture
async def world(tmp_path: Path, own_broker: OwnBroker, bundle: Path) -> AsyncIterator[World]:
    world = World(tmp_path, own_broker, bundle)
    await world.writer.start()
    yield world
    world.kill_daemons()
    await world.writer.close()


@pytest.fixture(scope="session")
def odd_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of 13 frames end within a snippet, so a camera always needs frames again."""
    return colour_clip(tmp_path_factory.mktemp("clips") / "odd.mp4", BUSY, gop=13)


async def send(world: World, chunks: list[VideoChunk]) -> None:
    for chunk in chunks:
        await world.writer.write(chunk, ChunkFacts())


async def test_rebalances_cut_no_event_of_cameras_that_stay_or_move(
    world: World, odd_clip: Path
) -> None:
    daemon = world.daemon("first")
    per_camera = [chunks_of(odd_clip, camera, chunk_s=0.5) for camera in CAMERAS]
    turns = list(zip(*per_camera, strict=True))
    # Each time in the middle of an event, and of a snippet.
    for number, part in enumerate((turns[:5], turns[5:11], turns[11:])):
        if number:
            other = world.daemon(f"other-{number}")
            await other.until(lambda other=other: bool(other.logged("daemon.ready")))
        await send(world, [chunk for turn in part for chunk in turn])
        await daemon.until(world.is_all_committed)
    daemon.stop()

    assert daemon.logged("partition.kept")
    wanted = world.alone(odd_clip)
    for camera in CAMERAS:
        assert {"file": wanted} == await world.told(camera)


async def hang(broker: OwnBroker) -> None:
    broker.signal(signal.SIGSTOP)
    await asyncio.sleep(HANG_S)
    broker.signal(signal.SIGCONT)


async def kill(broker: OwnBroker) -> None:
    broker.signal(signal.SIGKILL)
    await asyncio.sleep(GONE_S)
    await asyncio.to_thread(broker.start)


@pytest.mark.parametrize("fault", [hang, kill])
@pytest.mark.parametrize("n_rounds", [1, pytest.param(10, marks=soak)])
async def test_no_camera_stands_still_after_a_fault_of_the_broker(
    world: World, odd_clip: Path, fault: Callable[[OwnBroker], Awaitable[None]], n_rounds: int
) -> None:
    daemon = world.daemon("daemon")
    for number in range(n_rounds):
        runs = [f"{number}-{lap}" for lap in range(LAPS)]
        async with asyncio.TaskGroup() as group:
            for camera in CAMERAS:
                laps = [chunks_of(odd_clip, camera, chunk_s=0.5, run=run) for run in runs]
                group.create_task(send(world, [chunk for lap in laps for chunk in lap]))
            second_lap = {(camera, runs[1]) for camera in CAMERAS}
            await daemon.until(lambda lap=second_lap: lap <= seen(daemon, "stream.opened"))
            await fault(world.broker)
        ended = {(camera, run) for camera in CAMERAS for run in runs}
        await daemon.until(lambda ended=ended: ended <= seen(daemon, "stream.ended"))
        await daemon.until(world.is_all_committed)
        _log.info(
            "%s %d: all cameras go on, %d restarts so far",
            *(fault.__name__, number + 1, daemon.n_restarts),
        )
    daemon.stop()

    wanted = world.alone(odd_clip)
    assert len(wanted) >= 4
    everything = {f"{number}-{lap}" for number in range(n_rounds) for lap in range(LAPS)}
    for camera in CAMERAS:
        told = await world.told(camera)
        assert everything == told.keys()
        for run, events in told.items():
            assert wanted == events, daemon.around(camera, run)


def seen(daemon: Supervised, event: str) -> set[tuple[str, str]]:
    """Cameras and runs of which something was logged."""
    return {(entry["camera"], entry["run"]) for entry in daemon.logged(event)}
