"""Real processes over a real Apache Kafka: produce → topic → run → topic, and SIGKILL."""

import asyncio
import json
import random
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import av
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.support.kafka import MakeTopic
from tests.support.processes import (
    S2NETD,
    assert_repeats_agree,
    final_state,
    read_events,
    s2netd,
    start_s2netd,
    without_ids,
    write_config,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.openvino]

CHUNK_SECONDS = (0.5, 1.0, 5.0)
N_KILLS = 20
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
        state={"path": str(folder / f"{group}.sqlite")},
    )


async def topic_events(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Every record of a topic, as a subscriber reads it."""
    # With a group: without one, aiokafka 0.14 cannot stop a consumer that never had to wait.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=f"reader-{uuid.uuid4()}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(EVENT_PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
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
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr


def _command(source: Path, camera: str, bootstrap: str, topic: str, chunk_s: float) -> list[str]:
    return [
        *(*S2NETD, "produce", str(source), "--camera", camera, "--to", f"kafka:{topic}"),
        *("--bootstrap", bootstrap, "--chunk-seconds", str(chunk_s), "--transcode", "never"),
    ]


async def run_until_all_ended(
    config: Path, bootstrap: str, events: str, n_cameras: int, log: Path, timeout_s: float = 240
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
    assert daemon.wait(240) == 0, log.read_text()
    return await topic_events(bootstrap, events)


async def agree_with_localize(
    source: Path,
    bundle: Path | str,
    bootstrap: str,
    make_topic: MakeTopic,
    folder: Path,
    chunk_s: float,
) -> list[tuple[Any, ...]]:
    chunks, events = await make_topic(1), await make_topic(EVENT_PARTITIONS)
    produce(source, ["a", "b"], bootstrap, chunks, chunk_s)
    config = a_config(folder, bundle, bootstrap, chunks, events, "g")
    records = await run_until_all_ended(config, bootstrap, events, 2, folder / "run.log")
    done = s2netd(
        *("localize", source, "--bundle", bundle, "--out", folder / "out", "--precision", "f32"),
        timeout_s=240,
    )
    assert done.returncode == 0, done.stderr
    wanted = without_ids(read_events(folder / "out" / "events.jsonl"))
    for camera in ("a", "b"):
        assert wanted == without_ids([r for r in records if r["camera_id"] == camera])
    return wanted


@pytest.mark.parametrize("chunk_s", CHUNK_SECONDS)
async def test_two_interleaved_cameras_give_what_localize_gives(
    tmp_path, bundle, clip, kafka_bootstrap, make_topic, chunk_s
):
    wanted = await agree_with_localize(
        clip, bundle, kafka_bootstrap, make_topic, tmp_path, chunk_s
    )

    assert len(wanted) >= 4


def with_short_gops(source: Path, target: Path, seconds: float) -> Path:
    """The beginning of a clip, encoded once more with a key frame every half second."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        out = made.add_stream("libx264", rate=stream.average_rate, options={"crf": "18"})
        out.width, out.height, out.pix_fmt = stream.width, stream.height, "yuv420p"
        out.codec_context.time_base = stream.time_base
        out.gop_size = round(float(stream.average_rate) / 2)
        for frame in given.decode(stream):
            if frame.time > seconds:
                break
            frame.pict_type = 0
            made.mux(out.encode(frame))
        made.mux(out.encode(None))
    return target


@pytest.mark.weights
@pytest.mark.shared_data
@pytest.mark.parametrize("chunk_s", CHUNK_SECONDS)
async def test_a_real_clip_with_the_real_network_gives_what_localize_gives(
    tmp_path, kinetics400, shared_clips, kafka_bootstrap, make_topic, chunk_s
):
    source = with_short_gops(
        shared_clips / "bottle-detection.mp4", tmp_path / "bottle.mp4", seconds=20
    )
    wanted = await agree_with_localize(
        source, kinetics400, kafka_bootstrap, make_topic, tmp_path, chunk_s
    )

    assert {"opening bottle"} == {row[0] for row in wanted}


async def test_20_kills_lose_nothing_and_contradict_nothing(
    tmp_path, bundle, clip, kafka_bootstrap, make_topic
):
    rng = random.Random(4)  # noqa: S311 - reproducible moments, no secret
    chunks = await make_topic(2)
    events, undisturbed = [await make_topic(EVENT_PARTITIONS) for _ in range(2)]
    log = tmp_path / "log"
    config = a_config(tmp_path, bundle, kafka_bootstrap, chunks, events, "killed")
    producers = [
        start_s2netd(
            *("produce", clip, "--camera", camera, "--to", f"kafka:{chunks}"),
            *("--bootstrap", kafka_bootstrap, "--chunk-seconds", 0.5, "--realtime", "--loop"),
            log=tmp_path / f"{camera}.log",
        )
        for camera in ("a", "b", "c")
    ]
    for _ in range(N_KILLS):
        daemon = start_s2netd("run", "--config", config, log=log)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(rng.uniform(1.0, 4.0))
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    for producer in producers:
        producer.send_signal(signal.SIGTERM)
        assert producer.wait(240) == 0

    clean = a_config(tmp_path, bundle, kafka_bootstrap, chunks, undisturbed, "undisturbed")
    wanted = final_state(await _run_to_the_end(clean, kafka_bootstrap, chunks, undisturbed, log))
    records = await _run_to_the_end(config, kafka_bootstrap, chunks, events, log)

    assert_repeats_agree(records)
    assert len(wanted) >= 10
    assert wanted == final_state(records)
    assert log.read_text().count("stream.restored") >= N_KILLS / 2


async def _run_to_the_end(
    config: Path, bootstrap: str, chunks: str, events: str, log: Path
) -> list[dict[str, Any]]:
    """A daemon, until its group has committed the whole topic; then SIGTERM."""
    daemon = start_s2netd("run", "--config", config, log=log)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=config.stem)
    await consumer.start()
    try:
        partitions = [TopicPartition(chunks, p) for p in (0, 1)]
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(240):
            for partition, end in ends.items():
                while (await consumer.committed(partition) or 0) < end:
                    await asyncio.sleep(0.2)
    finally:
        await consumer.stop()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(240) == 0, log.read_text()
    return await topic_events(bootstrap, events)
