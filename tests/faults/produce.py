"""Cameras that one `s2netd produce --config` sends, with a broker that is away for a while.

    python -m tests.faults.produce --minutes 10 --outage-minutes 3 --report reports/produce.md

It runs twice: with a spool that holds the outage, and with one that does not. Each time all that
the topic holds is compared with what each camera's runs had, and what is missing with what was
said to be lost. Cameras run in this process, and only the command's own is measured.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from aiokafka import ConsumerRecord

from daemon.wire.records import parse_chunk
from tests.faults.bench import end_on_sigterm, options_of, say, write_page
from tests.faults.cluster import Cluster, a_cluster, calm_clients
from tests.support.processes import S2NETD
from tests.support.scripted_camera import Picture, ScriptedCamera, pictures_of, serving
from tests.support.videos import make_video

LOOK_S = 1.0
_SIZE = (320, 240)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """How the process was at a moment."""

    at_s: float
    cpu_s: float
    rss_bytes: int


@dataclass(slots=True)
class Round:
    """One run of the command.

    Attributes:
        title: What it is about.
        spool_bytes: The command's.
        samples: How it was, once a second.
        outage_s: From when to when the broker was away, since the start.
        chunks: Chunks in the topic, by camera.
        missing: Of those that were cut, how many are not in the topic, by camera.
        said: Chunks that were said to be lost, by camera.
        repeated: Chunks that are in the topic twice.
        seconds: Footage that was said to be lost.
        end_s: How long the end took, from SIGTERM on.
        exit_code: The command's.
        mean_bytes: Of a chunk.
    """

    title: str
    spool_bytes: int
    samples: list[Sample] = field(default_factory=list)
    outage_s: tuple[float, float] = (0, 0)
    chunks: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    seconds: float = 0.0
    end_s: float = 0.0
    exit_code: int | None = None
    mean_bytes: float = 0.0

    @property
    def is_told(self) -> bool:
        """Is every chunk in the topic, or said to be lost?"""
        return +self.missing == +self.said


def noisy_footage(kbits: int, seconds: int = 4) -> list[Picture]:
    """Footage of about so many kilobits a second, a key frame each second."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 255, (25 * seconds, _SIZE[1], _SIZE[0], 3), dtype=np.uint8)
    options = {"b": f"{kbits}k", "maxrate": f"{kbits}k", "bufsize": f"{kbits}k"}
    video = make_video(container="h264", gop=25, size=_SIZE, pictures=list(noise), options=options)
    return pictures_of(video)


def write_config(
    folder: Path, urls: Sequence[str], bootstrap: str, topic: str, spool: int
) -> Path:
    path = folder / "cameras.yaml"
    plain = {
        "to": {"kind": "kafka", "bootstrap_servers": bootstrap, "topic": topic},
        "cameras": {f"camera-{n:02}": {"url": url} for n, url in enumerate(urls)},
        "spool_bytes": spool,
        "status_interval_s": 1.0,
    }
    path.write_text(yaml.safe_dump(plain))
    return path


class Command:
    """The command, running.

    Args:
        config: Its file.
        log: What it writes.
    """

    def __init__(self, config: Path, log: Path) -> None:
        self._log = log
        self._command = [*S2NETD, "produce", "--config", str(config)]

    async def start(self) -> None:
        with self._log.open("wb") as out:
            self.process = await asyncio.create_subprocess_exec(*self._command, stderr=out)

    def sample(self, began_s: float) -> Sample:
        root = Path(f"/proc/{self.process.pid}")
        ticks = root.joinpath("stat").read_text().rpartition(")")[2].split()
        pages = int(root.joinpath("statm").read_text().split()[1])
        cpu_s = (int(ticks[11]) + int(ticks[12])) / _TICKS
        return Sample(time.monotonic() - began_s, cpu_s, pages * _PAGE_BYTES)

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        for line in self._log.read_text().splitlines():
            if line.startswith("{") and f'"{name}"' in line:
                yield json.loads(line)

    def spooled(self) -> int:
        """Chunks that wait, by the newest status of each camera."""
        newest = {told["camera"]: told["spooled_chunks"] for told in self.events("produce.status")}
        return sum(newest.values())

    async def end(self) -> tuple[float, int]:
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        return time.monotonic() - began_s, code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


async def play(
    cluster: Cluster, urls: Sequence[str], one: Round, options: argparse.Namespace
) -> None:
    """Send, take the broker away and bring it back, end, and compare."""
    topic = f"chunks-{one.spool_bytes}"
    await cluster.make_topic(topic, options.partitions)
    with TemporaryDirectory(prefix="s2netd-produce-") as name:
        folder = Path(name)
        config = write_config(folder, urls, cluster.bootstrap, topic, one.spool_bytes)
        command = Command(config, folder / "log")
        await command.start()
        try:
            lengths_s = 60 * options.minutes, 60 * options.outage_minutes
            await _outage(cluster, command, one, *lengths_s)
            one.end_s, one.exit_code = await command.end()
        finally:
            command.kill()
        for told in command.events("produce.not_sent"):
            one.said[told["camera"]] += told["chunks"]
            one.seconds += told["seconds"]
    compare(one, await cluster.records(topic))


async def _outage(
    cluster: Cluster, command: Command, one: Round, length_s: float, outage_s: float
) -> None:
    began_s = time.monotonic()
    sampling = asyncio.create_task(_sample(command, one, began_s))
    try:
        await asyncio.sleep((length_s - outage_s) / 2)
        away_s = time.monotonic() - began_s
        say(f"{one.title}: the broker goes")
        await asyncio.to_thread(cluster.broker.run, "stop")
        await asyncio.sleep(outage_s)
        await asyncio.to_thread(cluster.broker.start)
        one.outage_s = away_s, time.monotonic() - began_s
        say(f"{one.title}: the broker is back")
        await asyncio.sleep(max(length_s - (time.monotonic() - began_s), 0))
        while command.spooled() > 2 * len(command_cameras(command)):
            await asyncio.sleep(LOOK_S)
    finally:
        sampling.cancel()


def command_cameras(command: Command) -> set[str]:
    """Those of which a status was told."""
    return {told["camera"] for told in command.events("produce.status")}


async def _sample(command: Command, one: Round, began_s: float) -> None:
    while True:
        one.samples.append(command.sample(began_s))
        await asyncio.sleep(LOOK_S)


def compare(one: Round, records: Iterable[ConsumerRecord]) -> None:
    """Hold what the topic has against what each run had, by its end marker."""
    seen: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    wanted: dict[tuple[str, str], int] = {}
    n_bytes = 0
    for record in records:
        chunk = parse_chunk(
            record.key, record.headers, record.value, timestamp_us=0, offset=record.offset
        )
        run = chunk.camera, chunk.run
        if chunk.is_end:
            wanted[run] = chunk.sequence
            continue
        seen[run][chunk.sequence] += 1
        n_bytes += len(chunk.payload)
    for run, sequences in seen.items():
        n_cut = wanted.get(run, max(sequences) + 1)
        one.chunks[run[0]] += len(sequences)
        one.missing[run[0]] += n_cut - len(sequences)
        one.repeated += sequences.total() - len(sequences)
    one.mean_bytes = n_bytes / max(one.chunks.total(), 1)


def page(options: argparse.Namespace, rounds: Sequence[Round]) -> Iterator[str]:
    """The report."""
    yield (
        f"{options.cameras} scripted RTSP cameras ({_SIZE[0]}x{_SIZE[1]}, 25 frames a second, "
        f"about {options.kbits} kbit/s each) are sent by one `s2netd produce --config` for "
        f"{options.minutes:g} minutes, in which the broker is away for {options.outage_minutes:g}."
    )
    yield from ("", "| | " + " | ".join(one.title for one in rounds) + " |")
    yield "|---|" + "---|" * len(rounds)
    for title, value in _ROWS:
        yield f"| {title} | " + " | ".join(value(one, options.cameras) for one in rounds) + " |"
    yield ""
    for one in rounds:
        verdict = "every missing chunk was said" if one.is_told else "CHUNKS ARE MISSING UNSAID"
        yield f"- {one.title}: {verdict}; by camera, missing {_few(one.missing)}"


def _few(counts: Counter[str]) -> str:
    values = sorted(counts.values()) or [0]
    return f"{values[0]} to {values[-1]}"


def _cpu(one: Round, cameras: int, *, in_outage: bool) -> str:
    """Share of a core that a camera takes."""
    begin, end = one.outage_s
    chosen = [s for s in one.samples if (begin + 2 < s.at_s < end) == in_outage]
    chosen = [s for s in chosen if in_outage or 5 < s.at_s < begin]
    if len(chosen) < 2:
        return "-"
    spent = (chosen[-1].cpu_s - chosen[0].cpu_s) / (chosen[-1].at_s - chosen[0].at_s)
    return f"{100 * spent / cameras:.2f} % of a core"


def _memory(one: Round, cameras: int, *, at_most: bool) -> str:
    before = [s.rss_bytes for s in one.samples if s.at_s < one.outage_s[0]]
    chosen = [s.rss_bytes for s in one.samples] if at_most else before[-1:]
    rss = max(chosen, default=0)
    return f"{rss / 2**20:.0f} MiB ({rss / 2**20 / cameras:.1f} a camera)"


_ROWS = (
    ("spool", lambda one, _n: f"{one.spool_bytes / 2**20:.0f} MiB"),
    ("broker away", lambda one, _n: f"{one.outage_s[1] - one.outage_s[0]:.0f} s"),
    (
        "chunks in the topic",
        lambda one, _n: f"{one.chunks.total()} ({one.mean_bytes / 1e3:.1f} kB)",
    ),
    ("missing of those that were cut", lambda one, _n: str(one.missing.total())),
    ("said to be lost", lambda one, _n: f"{one.said.total()}, {one.seconds:.0f} s of footage"),
    ("in the topic twice", lambda one, _n: str(one.repeated)),
    ("CPU, a camera", lambda one, n: _cpu(one, n, in_outage=False)),
    ("CPU, a camera, broker away", lambda one, n: _cpu(one, n, in_outage=True)),
    ("memory before the outage", lambda one, n: _memory(one, n, at_most=False)),
    ("memory at most", lambda one, n: _memory(one, n, at_most=True)),
    ("end after SIGTERM", lambda one, _n: f"{one.end_s:.2f} s, exit code {one.exit_code}"),
)


async def measure(options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    """Play all rounds."""
    end_on_sigterm()
    calm_clients()
    pictures = noisy_footage(options.kbits)
    cameras = [ScriptedCamera(pictures) for _ in range(options.cameras)]
    with serving(cameras) as urls, TemporaryDirectory(prefix="s2netd-produce-") as home:
        async with a_cluster(Path(home) / "kafka") as cluster:
            for one in rounds:
                await play(cluster, urls, one, options)


def main() -> int:
    """Measure, and print the report; the exit code is 1 if a chunk is missing in silence."""
    parser = options_of(
        __doc__,
        cameras=30,
        partitions=4,
        minutes=10.0,
        outage_minutes=3.0,
        kbits=500,
        large_mib=1024,
        small_mib=16,
    )
    options = parser.parse_args()
    rounds = [
        Round("a spool that holds it", options.large_mib * 2**20),
        Round("a spool that does not", options.small_mib * 2**20),
    ]
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(measure(options, rounds))
    done = [one for one in rounds if one.exit_code is not None]
    title = "Cameras that one process sends"
    write_page(title, "tests.faults.produce", page(options, done), options.report)
    is_held = bool(done) and not done[0].missing.total()
    return int(len(done) < len(rounds) or not is_held or not all(one.is_told for one in done))


if __name__ == "__main__":
    sys.exit(main())
