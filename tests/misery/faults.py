"""The table of faults: what is done, and where a metric and a log line must tell of it.

Each fault has cameras of its own, whose names tell the round, or strikes a camera that is looked
at: a sound one, if it may cost it nothing, or a struck one, if it may cost it the run it is in.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from daemon.wire.facts import ChunkFacts
from daemon.wire.records import chunk_record
from engine.types import VideoChunk
from tests.faults.feeder import Feeder, Footage
from tests.misery.judge import Line, Metric
from tests.misery.machine import MOST_CAMERAS, Instance, Machine, send_signal, until
from tests.misery.payloads import (
    BIG_CHUNK_BYTES,
    MOST_HEADER_BYTES,
    claiming_mp4,
    jpeg_that_takes,
)
from tests.misery.senders import MARK, STRAY, Stranger, an_end, put_foreign, stray_chunks

TOLD_WITHIN_S = 300.0  # no rule depends on it
SLOW_S = 4.0  # of computing for a chunk: too slow, and no more
BOMB_S = 25.0  # far more than a decoder is given
HANG_S = 15.0  # a call that hangs
N_JUNK, N_READABLE = 600, 80
N_KILLS = 2  # in the short run
LORIS_S, N_LORIS = 12.0, 80
_WITHIN_RUN = range(3, 50)  # chunks that neither begin nor end one
_FAR_S = 10**6


@dataclass(slots=True)
class Stage:
    """Where faults happen.

    Attributes:
        machine: The daemons.
        feeders: Instance → its cameras.
        cameras: Instance → their names; the last one is the struck one.
        stranger: Sends to the topic.
        footage: What strangers show.
        is_short: Few and small faults.
        round: How often all faults came before.
        struck: Runs that a fault may cost: (camera, run).
    """

    machine: Machine
    feeders: Mapping[str, Feeder]
    cameras: Mapping[str, Sequence[str]]
    stranger: Stranger
    footage: Footage
    is_short: bool
    round: int = 0
    struck: set[tuple[str, str]] = field(default_factory=set)

    @property
    def struck_camera(self) -> str:
        """The camera of the topic that may lose runs."""
        return self.cameras["topic"][-1]

    def name(self, camera: str) -> str:
        """A camera of a fault's own in this round."""
        return f"{camera}-{self.round}"

    async def next_chunk(self, instance: str, camera: str) -> Any:
        """The chunk that a camera sends next."""
        feeder = self.feeders[instance]
        before = feeder.last_sent(camera)
        while (chunk := feeder.last_sent(camera)) is None or chunk is before:
            await asyncio.sleep(0.02)
        return chunk

    async def strike(self, instance: str, camera: str) -> Any:
        """A chunk of a camera's run, which is not judged any more, and goes on for long enough."""
        while True:
            chunk = await self.next_chunk(instance, camera)
            if chunk.sequence in _WITHIN_RUN:
                self.struck.add((camera, chunk.run))
                return chunk


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table.

    Attributes:
        name: What is done, in a few words.
        instance: To which instance.
        inject: Does it.
        metric: Grows then.
        line: Is logged then.
        least: By how much the metric grows at least.
        needs_hang: It needs calls that hang.
        restarts: The instance is stopped and started anew.
    """

    name: str
    instance: str
    inject: Callable[[Stage], Awaitable[None]]
    metric: Callable[[Stage], Metric]
    line: Callable[[Stage], Line]
    least: float = 1
    needs_hang: bool = False
    restarts: bool = False


def _dropped(camera: Callable[[Stage], str], error: str) -> dict[str, Any]:
    return {
        "metric": lambda s: Metric(
            "s2netd_corrupt_chunks_total", {"camera": camera(s), "error": error}
        ),
        "line": lambda s: Line("chunk.dropped", {"camera": camera(s), "error": error}),
    }


def _won_back(camera: str) -> Line:
    """The run that a fault has cost its camera goes on, under a name of its own."""
    return Line("stream.opened", {"camera": camera, "run": "*@"})


async def _headerless(stage: Stage) -> None:
    camera = stage.cameras["topic"][0]
    for piece in stage.footage[3][:8]:
        await stage.next_chunk("topic", camera)
        await stage.stranger.send(camera, piece.payload)


async def _second_producer(stage: Stage) -> None:
    camera = stage.struck_camera
    await stage.strike("topic", camera)
    for chunk in _strays(stage, camera):
        await stage.stranger.send_chunk(chunk)


async def _second_producer_of_files(stage: Stage) -> None:
    camera = stage.cameras["folder"][-1]
    await stage.strike("folder", camera)
    for chunk in _strays(stage, camera):
        await stage.feeders["folder"].put(chunk_record(chunk, ChunkFacts(), site="default"))


def _strays(stage: Stage, camera: str) -> list[VideoChunk]:
    return stray_chunks(camera, stage.footage[4][:3], f"{STRAY}-{stage.round}")


async def _wild_sequence(stage: Stage) -> None:
    camera = stage.cameras["topic"][1]
    while (chunk := await stage.next_chunk("topic", camera)).sequence not in _WITHIN_RUN:
        continue
    await stage.next_chunk("topic", camera)  # so that the chunk itself comes before its copy
    await stage.stranger.send_chunk(replace(chunk, sequence=10**15))


async def _wild_time(stage: Stage) -> None:
    chunk = await stage.strike("topic", stage.struck_camera)
    far = chunk.start_ticks + round(_FAR_S / chunk.time_base)
    await stage.stranger.send_chunk(replace(chunk, start_ticks=far))


async def _foreign_end(stage: Stage) -> None:
    chunk = await stage.next_chunk("topic", stage.cameras["topic"][0])
    for number in range(3):
        await stage.stranger.send_chunk(an_end(chunk, f"{STRAY}-{number}"))


async def _own_end(stage: Stage) -> None:
    # Of gaps of one camera, one a minute is logged, so it is not the one that is struck most.
    chunk = await stage.strike("topic", stage.cameras["topic"][1])
    await stage.stranger.send_chunk(an_end(chunk, chunk.run))


async def _junk_names(stage: Stage) -> None:
    name = stage.name("junk")
    for number in range(N_JUNK):
        await stage.stranger.send(f"{name}-{number}", b"no video at all", [MARK])
    for number in range(N_READABLE):
        await stage.stranger.send(f"readable-{name}-{number}", stage.footage[0][0].payload)


async def _samples(stage: Stage) -> None:
    await stage.stranger.send(stage.name("samples"), claiming_mp4())


async def _bomb(stage: Stage) -> None:
    await stage.stranger.send(stage.name("bomb"), jpeg_that_takes(BOMB_S))


async def _slow_pictures(stage: Stage) -> None:
    for camera in (stage.name("slow-a"), stage.name("slow-b")):
        folder = stage.machine.make_folder(camera)
        for number in range(4):
            payload = jpeg_that_takes(SLOW_S)
            await asyncio.to_thread(put_foreign, folder, number, payload, ".mjpeg")


async def _hogs(stage: Stage) -> None:
    payload = jpeg_that_takes(SLOW_S, BIG_CHUNK_BYTES)
    for number in range(3 if stage.is_short else 12):
        for _ in range(4):
            await stage.stranger.send(stage.name(f"hog-{number}"), payload)


async def _header(stage: Stage) -> None:
    header = ("vc_epoch", b"e" * MOST_HEADER_BYTES)
    await stage.stranger.send(stage.name("header"), b"x", [header])


async def _pipe(stage: Stage) -> None:
    folder = stage.machine.make_folder(stage.name("pipe"))
    os.mkfifo(folder / "0000000000.mp4", 0o644)
    put_foreign(folder, 1, stage.footage[0][0].payload, ".mp4")


async def _dead_server(stage: Stage) -> None:
    folder = stage.machine.make_folder(stage.name("dead-nfs"))
    async with stage.machine.hanging("open"):
        put_foreign(folder, 0, stage.footage[0][0].payload, ".mp4")
        put_foreign(folder, 1, stage.footage[0][1].payload, ".mp4")
        await asyncio.sleep(HANG_S)


async def _hung_fsync(stage: Stage) -> None:
    async with stage.machine.hanging("fsync"):
        await asyncio.sleep(HANG_S)


async def _damaged(stage: Stage) -> None:
    camera, instance = stage.cameras["folder"][-1], stage.machine.folder
    await stage.strike("folder", camera)
    await instance.stop()
    await asyncio.to_thread(stage.machine.damage, camera)
    await instance.start()


def _killing(
    of: Callable[[Machine], Instance], number: signal.Signals
) -> Callable[[Stage], Awaitable[None]]:
    async def kill(stage: Stage) -> None:
        for _ in range(N_KILLS if stage.is_short else 5 * N_KILLS):
            instance = of(stage.machine)
            before = instance.decoders()  # all, for which one is asked next nobody knows
            await send_signal(before, number)

            def is_new(instance: Instance = instance, before: Sequence[int] = before) -> bool:
                return bool(set(instance.decoders()) - set(before))

            await until(is_new, f"a decoder that takes the place of one with {number.name}")
            await send_signal(before, signal.SIGCONT)

    return kill


async def _slow_clients(stage: Stage) -> None:
    port = stage.machine.topic.port
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(N_LORIS)]
    try:
        for client in clients:
            client.settimeout(5)
            client.send(b"GET /metrics HTTP/1.1\r\nX: ")
        await until(lambda: bool(stage.machine.topic.metrics()), "an answer beside slow clients")
        await asyncio.sleep(LORIS_S)
    finally:
        for client in clients:
            client.close()


def _lost(reason: str) -> dict[str, Any]:
    return {
        "metric": lambda _stage: Metric("s2netd_lost_decoders_total", {}),
        "line": lambda _stage: Line("decoder.lost", {"reason": reason}),
    }


# What is done to the folder's daemon when it begins comes first, so that no later one is stopped.
FAULTS: tuple[Fault, ...] = (
    Fault(
        "one value changed in what the journal keeps of a camera",
        "folder",
        _damaged,
        lambda s: Metric("s2netd_snapshots_refused_total", {"camera": s.cameras["folder"][-1]}),
        lambda s: Line("stream.snapshot_refused", {"camera": s.cameras["folder"][-1]}),
        restarts=True,
    ),
    Fault(
        "records without headers under a camera's name",
        "topic",
        _headerless,
        **_dropped(lambda s: s.cameras["topic"][0], "RivalRunError"),
    ),
    Fault(
        "a chunk of a camera's run with a wild sequence number",
        "topic",
        _wild_sequence,
        **_dropped(lambda s: s.cameras["topic"][1], "StaleChunkError"),
    ),
    Fault(
        "end marks of runs that are not there",
        "topic",
        _foreign_end,
        lambda s: Metric("s2netd_duplicate_chunks_total", {"camera": s.cameras["topic"][0]}),
        lambda s: Line("chunk.duplicate", {"camera": s.cameras["topic"][0]}),
    ),
    Fault(
        "a second producer under a camera's name (costs the run)",
        "topic",
        _second_producer,
        lambda s: Metric("s2netd_duplicate_chunks_total", {"camera": s.struck_camera}),
        lambda s: _won_back(s.struck_camera),
    ),
    Fault(
        "a second producer in a camera's folder (costs the run)",
        "folder",
        _second_producer_of_files,
        lambda s: Metric("s2netd_duplicate_chunks_total", {"camera": s.cameras["folder"][-1]}),
        lambda s: _won_back(s.cameras["folder"][-1]),
    ),
    Fault(
        "a chunk of a camera's run from a far future (costs the run)",
        "topic",
        _wild_time,
        lambda s: Metric(
            "s2netd_corrupt_chunks_total", {"camera": s.struck_camera, "error": "StaleChunkError"}
        ),
        lambda s: _won_back(s.struck_camera),
    ),
    Fault(
        "an end mark of a camera's own run (costs the run)",
        "topic",
        _own_end,
        lambda s: Metric("s2netd_gaps_total", {"camera": s.cameras["topic"][1]}),
        lambda s: Line("stream.gap", {"camera": s.cameras["topic"][1]}),
    ),
    Fault(
        "an MP4 that claims two thousand million samples",
        "topic",
        _samples,
        **_dropped(lambda s: s.name("samples"), "RefusedChunkError"),
    ),
    Fault(
        "a progressive JPEG that holds its decoder for minutes",
        "topic",
        _bomb,
        **_dropped(lambda s: s.name("bomb"), "DecoderLostError"),
    ),
    Fault(
        "two cameras of slow JPEGs",
        "folder",
        _slow_pictures,
        lambda _stage: Metric("s2netd_quarantines_total", {"camera": "slow-"}),
        lambda _stage: Line("camera.quarantined", {"camera": "slow-"}),
        least=2,
    ),
    Fault(
        "a header of 7.5 MiB",
        "topic",
        _header,
        **_dropped(lambda s: s.name("header"), "MalformedRecordError"),
    ),
    Fault(
        "a pipe in place of a chunk file",
        "folder",
        _pipe,
        **_dropped(lambda s: s.name("pipe"), "MalformedRecordError"),
    ),
    Fault(
        f"a file that does not open for {HANG_S:g} s, as of a dead file server",
        "folder",
        _dead_server,
        lambda _stage: Metric("s2netd_waiting", {"for": "folder"}),
        lambda s: Line("outage.began", {"what": f"*{s.name('dead-nfs')}"}),
        needs_hang=True,
    ),
    Fault(
        f"an fsync that hangs for {HANG_S:g} s",
        "folder",
        _hung_fsync,
        lambda _stage: Metric("s2netd_waiting", {"for": "disk"}),
        lambda _stage: Line("outage.began", {"waiting_for": "disk"}),
        needs_hang=True,
    ),
    *(
        Fault(
            f"decoders that get {number.name}",
            name,
            _killing(of, number),
            **_lost(told),
            least=N_KILLS,
        )
        for name, of, number, told in (
            ("topic", lambda m: m.topic, signal.SIGKILL, "it was ended by signal 9"),
            ("folder", lambda m: m.folder, signal.SIGSEGV, "it was ended by signal 11"),
            ("topic", lambda m: m.topic, signal.SIGSTOP, "it did nothing for"),
        )
    ),
    Fault(
        f"{N_LORIS} HTTP clients that send one drop",
        "topic",
        _slow_clients,
        lambda _stage: Metric("s2netd_http_dropped_total", {}),
        lambda _stage: Line("http.dropped", {}),
        least=N_LORIS - 16,
    ),
    Fault(
        "many large chunks that are slow to decode",
        "topic",
        _hogs,
        lambda _stage: Metric("s2netd_quarantines_total", {"camera": "hog-"}),
        lambda _stage: Line("camera.quarantined", {"camera": "hog-"}),
        least=3,
    ),
    Fault(
        f"{N_JUNK} names that send nothing usable, and {N_READABLE} that do, for "
        f"{MOST_CAMERAS} places",
        "topic",
        _junk_names,
        lambda _stage: Metric("s2netd_corrupt_chunks_total", {"camera": "(refused)"}),
        lambda _stage: Line("chunk.dropped", {"camera": "(refused)"}),
    ),
)
