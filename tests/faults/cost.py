"""``python -m tests.faults.cost``: what exactly-once costs against at-least-once, and its traffic.

One broker, one daemon, a tiny model, so that delivery weighs as much as it ever can. Backlogs are
worked off in alternating pairs; then cameras run live under either guarantee. The latency of a
revision is from the moment its newest frame was shown to when a read_committed reader has it.
"""

import argparse
import asyncio
import json
import statistics
import time
import uuid
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from daemon.wire.facts import ChunkFacts
from daemon.wire.records import chunk_record
from engine.grid import Grid
from tests.faults.bench import (
    Bench,
    a_bench,
    a_daemon,
    options_of,
    quantile,
    say,
    write_page,
)
from tests.faults.feeder import CHUNK_S, LAP_S
from tests.support.footage import FPS

GUARANTEES = ("exactly-once", "at-least-once")


async def feed(bench: Bench, topic: str, *, live_s: float | None) -> int:
    """Send every camera's lap: at once, or at its own pace for so long; gives the chunks.

    Live, each camera sends its chunks at moments of its own.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.cluster.bootstrap, acks="all", max_batch_size=2**20
    )
    await producer.start()
    loop = asyncio.get_running_loop()
    began_s, anchor_us, n_chunks = loop.time(), time.time_ns() // 1000, 0
    n_steps = int((live_s or LAP_S) / bench.chunk_s)
    try:
        for step in range(min(n_steps, *map(len, bench.footage), len(bench.still[0]))):
            sent = []
            for number, camera in enumerate(bench.cameras):
                late_s = bench.chunk_s * number / len(bench.cameras)
                if live_s is not None:
                    due_s = began_s + (step + 1) * bench.chunk_s + late_s
                    await asyncio.sleep(max(due_s - loop.time(), 0))
                piece = bench.shown(number)[step]
                chunk = piece.to_chunk(camera, topic, step, anchor_us + round(late_s * 1e6))
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


async def backlog(bench: Bench, chunks: str, n_chunks: int, guarantee: str) -> float:
    """Chunks a second that a daemon works off, from when it is ready until all is committed."""
    config = {"guarantee": guarantee}
    async with a_daemon(bench, chunks, guarantee, journal=config) as (daemon, place):
        await daemon.ready()
        began_s = time.monotonic()
        await bench.until_committed(place)
        return n_chunks / (time.monotonic() - began_s)


async def live(
    bench: Bench, guarantee: str, live_s: float
) -> tuple[list[float], dict[str, float]]:
    """Latencies of revisions in seconds, and bytes a camera and second of each topic."""
    chunks, config = await bench.chunks_topic(), {"guarantee": guarantee}
    async with a_daemon(bench, chunks, guarantee, journal=config) as (daemon, place):
        await daemon.ready()
        latencies: list[float] = []
        reading = asyncio.create_task(read_latencies(bench, place.events, latencies))
        await feed(bench, chunks, live_s=live_s)
        await bench.until_committed(place)
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])
    topics = {
        "chunks": chunks,
        "events": place.events,
        "state": f"{place.group}.state.v1",
        "features": f"{place.group}.features.v1",
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
    frames = options.snippet_frames
    async with a_bench(
        options.cameras,
        options.partitions,
        options.chunk_s,
        options.acting,
        options.fps,
        Grid(fps=FPS, snippet_frames=frames, stride_frames=frames),
    ) as bench:
        return await _measured(bench, options)


async def _measured(bench: Bench, options: argparse.Namespace) -> list[str]:
    chunks = await bench.chunks_topic()
    n_chunks = await feed(bench, chunks, live_s=None)
    rates: dict[str, list[float]] = {guarantee: [] for guarantee in GUARANTEES}
    for pair in range(options.pairs):
        for guarantee in GUARANTEES if pair % 2 else GUARANTEES[::-1]:
            rate = await backlog(bench, chunks, n_chunks, guarantee)
            rates[guarantee].append(rate)
            say(f"pair {pair + 1}: {guarantee}: {rate:.0f} chunks/s")
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    lines = [
        (
            f"{len(bench.cameras)} cameras on {bench.n_partitions} partitions, chunks of "
            f"{bench.chunk_s:.2f} s of {options.fps} frames a second, one daemon, a tiny model "
            "(so that delivery weighs most) that looks each "
            f"{options.snippet_frames / FPS:.2f} s. Something happens before "
            f"{100 * bench.acting:g} % of them, most of the time."
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
        p50, p99 = (1000 * quantile(latencies, share) for share in (0.5, 0.99))
        lines.append(f"| {guarantee} | {len(latencies)} | {p50:.0f} | {p99:.0f} | {told} |")
        say(lines[-1])
    return lines


def main() -> None:
    """Measure, and print the report."""
    options = options_of(
        __doc__,
        cameras=16,
        partitions=4,
        pairs=5,
        live_s=36.0,
        chunk_s=CHUNK_S,
        acting=1.0,
        fps=FPS,
        snippet_frames=4,
    ).parse_args()
    lines = asyncio.run(measure(options))
    write_page("What exactly-once costs", "tests.faults.cost", lines, options.report)


if __name__ == "__main__":
    main()
