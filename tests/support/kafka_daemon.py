"""A daemon from a topic of chunks to a topic of events, and the producers that feed it."""

import asyncio
import json
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from daemon.kafka.connection import KafkaConnection
from daemon.kafka.reading import written_ends
from tests.support.processes import PATIENCE_S, S2NETD, start_s2netd, write_config

EVENT_PARTITIONS = 2


def a_config(
    folder: Path, bundle: Path | str, bootstrap: str, chunks: str, events: str, group: str
) -> Path:
    kafka = {"kind": "kafka", "bootstrap_servers": bootstrap}
    return write_config(
        folder / f"{group}.yaml",
        model={"bundle": str(bundle), "precision": "f32"},
        source={**kafka, "topic": chunks, "group_id": group, "start": "earliest"},
        sink={**kafka, "topic": events},
        journal={"path": str(folder / f"{group}.sqlite")},
    )


async def topic_events(
    bootstrap: str, topic: str, n_partitions: int = EVENT_PARTITIONS
) -> list[dict[str, Any]]:
    """Every record of a topic, as a subscriber reads it."""
    # With a group: without one, aiokafka 0.14 cannot stop a consumer that never had to wait.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=f"reader-{uuid.uuid4()}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(n_partitions)]
        consumer.assign(partitions)
        # A transaction that was committed a moment ago may not be marked so yet: wait for that.
        ends = await written_ends(KafkaConnection(bootstrap), *partitions)
        records: list[dict[str, Any]] = []
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                records += [json.loads(record.value) for record in batch]
        return records
    finally:
        await consumer.stop()


def produce(source: Path, cameras: list[str], bootstrap: str, topic: str, chunk_s: float) -> None:
    """All cameras at once, so that their chunks interleave."""
    running = [
        subprocess.Popen(
            _command(source, camera, bootstrap, topic, chunk_s), stderr=subprocess.PIPE, text=True
        )
        for camera in cameras
    ]
    for process in running:
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr


def _command(source: Path, camera: str, bootstrap: str, topic: str, chunk_s: float) -> list[str]:
    return [
        *(*S2NETD, "produce", str(source), "--camera", camera, "--to", f"kafka:{topic}"),
        *("--bootstrap", bootstrap, "--chunk-seconds", str(chunk_s), "--transcode", "never"),
    ]


async def run_until_all_ended(
    config: Path,
    bootstrap: str,
    events: str,
    n_cameras: int,
    log: Path,
    timeout_s: float = PATIENCE_S,
) -> list[dict[str, Any]]:
    """A daemon, until it has ended every camera's run; then SIGTERM."""
    daemon = start_s2netd("run", "--config", config, log=log)
    deadline = time.monotonic() + timeout_s
    while log.read_text().count("stream.ended") < n_cameras:
        assert daemon.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)  # the end marker's own records are published after the log line
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE_S) == 0, log.read_text()
    return await topic_events(bootstrap, events)
