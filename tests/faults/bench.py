"""What the measurements share: a broker, a tiny model, cameras, daemons, and the page they write.

No row of the table of faults uses it: rows judge, and measurements only tell.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.grid import Grid
from engine.video.cutting import CutChunk
from tests.faults.cluster import Cluster, a_cluster
from tests.faults.daemons import Daemon, Place
from tests.faults.feeder import CHUNK_S, Footage, cameras_over, make_footage, still_footage
from tests.faults.report import commit, cpu, kafka_version
from tests.support.footage import FPS
from tests.support.tiny_bundle import write_tiny_bundle

EVENT_PARTITIONS = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share.

    Attributes:
        cluster: The broker.
        bundle: Folder of the tiny model, so that all else weighs as much as it ever can.
        folder: For logs; it goes with the bench.
        footage: What cameras show before which something happens.
        still: What all others show.
        cameras: Their names.
        n_partitions: Of a topic of chunks.
        chunk_s: Length of a chunk.
        acting: Share of the cameras before which something happens.
    """

    cluster: Cluster
    bundle: Path
    folder: Path
    footage: Footage
    still: Footage
    cameras: list[str]
    n_partitions: int
    chunk_s: float
    acting: float

    async def chunks_topic(self) -> str:
        """Make a topic of chunks; gives its name."""
        name = f"chunks-{uuid.uuid4().hex[:8]}"
        await self.cluster.make_topic(name, self.n_partitions)
        return name

    def shown(self, number: int) -> Sequence[CutChunk]:
        """A lap of the camera with this number; those that act are spread evenly over all."""
        is_acting = int((number + 1) * self.acting) > int(number * self.acting)
        clips = self.footage if is_acting else self.still
        return clips[number % len(clips)]

    async def until_committed(self, place: Place) -> None:
        """Wait until a group has committed all chunks that there are now."""
        ends = await self.cluster.ends(place.chunks)
        while not reaches(await self.cluster.committed(place.group, place.chunks), ends):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def a_bench(
    cameras: int,
    partitions: int,
    chunk_s: float = CHUNK_S,
    acting: float = 1.0,
    fps: int = FPS,
    grid: Grid | None = None,
) -> AsyncIterator[Bench]:
    """A broker of our own, as long as the block runs; nothing that was written there is kept.

    Args:
        cameras: How many.
        partitions: Of a topic of chunks.
        chunk_s: Length of a chunk.
        acting: Share of the cameras before which something happens.
        fps: Frames that a camera sends in a second.
        grid: The tiny model's snippets; None: small ones, which weigh most.
    """
    with tempfile.TemporaryDirectory(prefix="s2netd-bench-") as name:
        folder = Path(name)
        bundle = write_tiny_bundle(folder / "bundle", grid=grid)
        footage = make_footage(folder, chunk_s=chunk_s, fps=fps)
        still = still_footage(folder, chunk_s, fps)
        async with a_cluster(folder / "kafka") as cluster:
            names = cameras_over(partitions, cameras)
            yield Bench(
                cluster, bundle, folder, footage, still, names, partitions, chunk_s, acting
            )


@asynccontextmanager
async def a_daemon(
    bench: Bench, chunks: str, name: str = "daemon", **config: Any
) -> AsyncIterator[tuple[Daemon, Place]]:
    """A daemon that is started, with a group and a topic of events of its own.

    Args:
        bench: What all measurements share.
        chunks: The topic that it reads.
        name: What the group's name begins with.
        config: See ``Daemon``.
    """
    group = f"{name}-{uuid.uuid4().hex[:8]}"
    place = Place(bench.cluster.bootstrap, chunks, f"events-{group}", group, bench.bundle)
    await bench.cluster.make_topic(place.events, EVENT_PARTITIONS)
    daemon = Daemon(place, bench.folder / group, **config)
    daemon.start()
    try:
        yield daemon, place
        await daemon.stop()
    finally:
        daemon.destroy()


def reaches(done: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    """True if every partition is done up to its end."""
    return all(done.get(number, 0) >= end for number, end in ends.items())


def write_page(title: str, module: str, lines: Iterable[str], path: Path | None) -> None:
    """Print a page that says where it comes from, and write it to a file if one is named."""
    command = " ".join(["python -m", module, *sys.argv[1:]])
    origin = (
        f"- date: {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"- commit: {commit()}",
        f"- machine: {cpu()}, {os.cpu_count()} cores",
        f"- broker: Apache Kafka {kafka_version()}, one",
        f"- command: `{command}`",
    )
    text = "\n".join([f"# {title}", "", *origin, "", *lines, ""])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def options_of(
    doc: str | None, cameras: int, partitions: int, **more: float
) -> argparse.ArgumentParser:
    """The options that all measurements have, and more that are numbers."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--cameras", type=int, default=cameras)
    parser.add_argument("--partitions", type=int, default=partitions)
    for name, default in more.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, metavar="NUMBER"
        )
    parser.add_argument("--report", type=Path)
    return parser


def quantile(values: Sequence[float], share: float) -> float:
    """The value that a share of all values is below."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def end_on_sigterm() -> None:
    """As on Ctrl-C, so that nothing that was started is left behind."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def say(line: str) -> None:
    """For whoever waits."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
