"""``python -m tests.faults.cost``: what exactly-once costs against at-least-once, and its traffic.

One broker, one daemon, a tiny model, so that delivery weighs as much as it ever can. Backlogs are
worked off in alternating pairs; then cameras run live under either guarantee. The latency of a
revision is from the moment its newest frame was shown to when a read_committed reader has it.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from daemon.wire.facts import ChunkFacts
from daemon.wire.records import chunk_record
from tests.faults.cluster import Cluster, a_cluster
from tests.faults.daemons import Daemon, Place
from tests.faults.feeder import CHUNK_S, LAP_S, Footage, cameras_over, make_footage
from tests.faults.report import _commit, _cpu, _kafka_version
from tests.support.tiny_bundle import write_tiny_bundle

GUARANTEES = ("exactly-once", "at-least-once")
EVENT_PARTITIONS = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share."""

    cluster: Cluster
    bundle: Path
    folder: Path
    footage: Footage
    cameras: list[str]
    n_partitions: int


async def feed(bench: Bench, topic: str, *, live_s: float | None) -> int:
    """Send every camera's lap: at once, or at its own pace for so long; gives the chunks."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.cluster.bootstrap, acks="all", max_batch_size=2**20
    )
    await producer.start()
    loop = asyncio.get_running_loop()
    began_s, anchor_us, n_chunks = loop.time(), time.time_ns() // 1000, 0
    n_steps = int((live_s or LAP_S) / CHUNK_S)
    try:
        for step in range(min(n_steps, *map(len, bench.footage))):
            if live_s is not None:
                await asyncio.sleep(began_s + (step + 1) * CHUNK_S - loop.time())
            sent = []
            for number, camera in enumerate(bench.cameras):
                piece = bench.footage[number % len(bench.footage)][step]
                chunk = piece.to_chunk(camera, topic, step, anchor_us)
                record = chunk_record(chunk, ChunkFacts(), site="default")
                sent.append(
                    await producer.send(
                        topic, record.value, key=record.key, headers=record.headers
                    )
                )
            await asyncio.gather(*sent)
            n_chunks += len(sent)
    finally:
        await producer.stop()
    return n_chunks


@asynccontextmanager
async def a_daemon(bench: Bench, chunks: str, guarantee: str) -> AsyncIterator[tuple[Daemon, str]]:
    """A daemon with a group of its own, and its topic of events."""
    group = f"{guarantee}-{uuid.uuid4().hex[:8]}"
    events = f"events-{group}"
    await bench.cluster.make_topic(events, EVENT_PARTITIONS)
    place = Place(bench.cluster.bootstrap, chunks, events, group, bench.bundle)
    folder = bench.folder / group
    daemon = Daemon(place, folder, journal={"guarantee": guarantee})
    daemon.start()
    try:
        yield daemon, group
        await daemon.stop()
    finally:
        daemon.destroy()


async def backlog(bench: Bench, chunks: str, n_chunks: int, guarantee: str) -> float:
    """Chunks a second that a daemon works off, from when it is ready until all is committed."""
    async with a_daemon(bench, chunks, guarantee) as (daemon, group):
        await daemon.ready()
        began_s = time.monotonic()
        await until_committed(bench, chunks, group)
        return n_chunks / (time.monotonic() - began_s)


async def until_committed(bench: Bench, chunks: str, group: str) -> None:
    ends = {}
    for record in await bench.cluster.records(chunks):
        ends[record.partition] = record.offset + 1
    left = set(ends)
    while left:
        committed = await bench.cluster.committed(group, chunks)
        left = {number for number in left if committed.get(number, 0) < ends[number]}
        await asyncio.sleep(0.02)


async def live(
    bench: Bench, guarantee: str, live_s: float
) -> tuple[list[float], dict[str, float]]:
    """Latencies of revisions in seconds, and bytes a camera and second of each topic."""
    chunks = f"chunks-{uuid.uuid4().hex[:8]}"
    await bench.cluster.make_topic(chunks, bench.n_partitions)
    async with a_daemon(bench, chunks, guarantee) as (daemon, group):
        await daemon.ready()
        latencies: list[float] = []
        reading = asyncio.create_task(read_latencies(bench, f"events-{group}", latencies))
        await feed(bench, chunks, live_s=live_s)
        await until_committed(bench, chunks, group)
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])
    topics = {
        "chunks": chunks,
        "events": f"events-{group}",
        "state": f"{group}.state.v1",
        "features": f"{group}.features.v1",
    }
    seconds = live_s * len(bench.cameras)
    return latencies, {
        name: await bytes_of(bench, topic) / seconds for name, topic in topics.items()
    }


async def read_latencies(bench: Bench, topic: str, latencies: list[float]) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bench.cluster.bootstrap,
        group_id=f"reader-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        async for record in consumer:
            decided: dict[str, Any] = json.loads(record.value)["decided"]
            at_s = datetime.fromisoformat(decided["time"]).timestamp()
            latencies.append(time.time() - at_s)
    finally:
        await consumer.stop()


async def bytes_of(bench: Bench, topic: str) -> int:
    """Keys, headers and values of all that was written to a topic."""
    n_bytes = 0
    for record in await bench.cluster.records(topic):
        headers = sum(len(name) + len(value) for name, value in record.headers)
        n_bytes += len(record.key or b"") + len(record.value or b"") + headers
    return n_bytes


async def measure(options: argparse.Namespace) -> list[str]:
    """All of it, as lines of a report."""
    with tempfile.TemporaryDirectory(prefix="s2netd-cost-") as name:
        folder = Path(name)
        bundle = write_tiny_bundle(folder / "bundle")
        footage = make_footage(folder)
        async with a_cluster(folder / "kafka") as cluster:
            cameras = cameras_over(options.partitions, options.cameras)
            bench = Bench(cluster, bundle, folder, footage, cameras, options.partitions)
            return await _measured(bench, options)


async def _measured(bench: Bench, options: argparse.Namespace) -> list[str]:
    chunks = f"backlog-{uuid.uuid4().hex[:8]}"
    await bench.cluster.make_topic(chunks, bench.n_partitions)
    n_chunks = await feed(bench, chunks, live_s=None)
    rates: dict[str, list[float]] = {guarantee: [] for guarantee in GUARANTEES}
    for pair in range(options.pairs):
        for guarantee in GUARANTEES if pair % 2 else GUARANTEES[::-1]:
            rate = await backlog(bench, chunks, n_chunks, guarantee)
            rates[guarantee].append(rate)
            _say(f"pair {pair + 1}: {guarantee}: {rate:.0f} chunks/s")
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    lines = [
        (
            f"{len(bench.cameras)} cameras on {bench.n_partitions} partitions, chunks of "
            f"{CHUNK_S:.2f} s, one daemon, a tiny model (so that delivery weighs most)."
        ),
        "",
        (
            "**Throughput** of exactly-once against at-least-once, "
            f"{options.pairs} alternating pairs over {n_chunks} chunks: "
            f"{statistics.median(ratios):.3f} "
            f"(median; {min(ratios):.3f} to {max(ratios):.3f}); "
            f"{statistics.median(rates['exactly-once']):.0f} chunks/s."
        ),
        "",
        "| live | revisions | p50 ms | p99 ms | bytes a camera and second |",
        "|---|---|---|---|---|",
    ]
    for guarantee in GUARANTEES:
        latencies, traffic = await live(bench, guarantee, options.live_s)
        told = ", ".join(f"{name} {n_bytes:.0f}" for name, n_bytes in traffic.items())
        p50, p99 = (1000 * _quantile(latencies, share) for share in (0.5, 0.99))
        lines.append(f"| {guarantee} | {len(latencies)} | {p50:.0f} | {p99:.0f} | {told} |")
        _say(lines[-1])
    return lines


def _machine() -> list[str]:
    return [
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- commit: {_commit()}",
        f"- machine: {_cpu()}",
        f"- broker: Apache Kafka {_kafka_version()}, one",
        f"- command: `python -m tests.faults.cost {' '.join(sys.argv[1:])}`",
    ]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--live-s", type=float, default=36.0)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    lines = asyncio.run(measure(options))
    text = "\n".join(["# What exactly-once costs", "", *_machine(), "", *lines, ""])
    if options.report:
        options.report.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
