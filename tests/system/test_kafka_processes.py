"""Real processes over a real Apache Kafka: produce → topic → run → topic, and SIGKILL."""

import asyncio
import random
import signal
from pathlib import Path
from typing import Any

import av
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.support.kafka import MakeTopic
from tests.support.kafka_daemon import (
    EVENT_PARTITIONS,
    a_config,
    produce,
    run_until_all_ended,
    topic_events,
)
from tests.support.processes import (
    PATIENCE_S,
    assert_repeats_agree,
    final_state,
    n_taken_up,
    read_events,
    run_and_kill,
    s2netd,
    start_s2netd,
    without_ids,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.openvino]

# How footage is cut changes nothing: tests/engine/test_invariants.py. One length shows the way.
CHUNK_SECONDS = (
    1.0,
    pytest.param(0.5, marks=pytest.mark.soak),
    pytest.param(5.0, marks=pytest.mark.soak),
)


async def found_by_both_cameras(
    source: Path,
    bundle: Path | str,
    bootstrap: str,
    make_topic: MakeTopic,
    folder: Path,
    chunk_s: float,
) -> list[list[tuple[Any, ...]]]:
    """What a daemon says of two cameras that show the same."""
    chunks, events = await make_topic(1), await make_topic(EVENT_PARTITIONS)
    produce(source, ["a", "b"], bootstrap, chunks, chunk_s)
    # A group of its own: a member that left is waited for until its session times out.
    config = a_config(folder, bundle, bootstrap, chunks, events, group=f"of-{chunks}")
    records = await run_until_all_ended(config, bootstrap, events, 2, folder / "run.log")
    return [without_ids([r for r in records if r["camera_id"] == camera]) for camera in "ab"]


@pytest.mark.parametrize("chunk_s", CHUNK_SECONDS)
async def test_two_interleaved_cameras_give_what_localize_gives(
    tmp_path, bundle, clip, localized, kafka_bootstrap, make_topic, chunk_s
):
    found = await found_by_both_cameras(
        clip, bundle, kafka_bootstrap, make_topic, tmp_path, chunk_s
    )

    assert [localized, localized] == found


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
    found = await found_by_both_cameras(
        source, kinetics400, kafka_bootstrap, make_topic, tmp_path, chunk_s
    )
    out = tmp_path / "out"
    done = s2netd(
        *("localize", source, "--bundle", kinetics400, "--out", out, "--precision", "f32"),
        timeout_s=240,
    )
    assert done.returncode == 0, done.stderr
    wanted = without_ids(read_events(out / "events.jsonl"))

    assert [wanted, wanted] == found
    assert {"opening bottle"} == {row[0] for row in wanted}


@pytest.mark.parametrize("n_kills", [8, pytest.param(20, marks=pytest.mark.soak)])
async def test_kills_lose_nothing_and_contradict_nothing(
    tmp_path, bundle, clip, kafka_bootstrap, make_topic, n_kills
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
    for number in range(n_kills):
        n_before = n_taken_up(log)
        after = None if number % 4 == 0 else lambda n=n_before: n_taken_up(log) > n
        run_and_kill(config, log, rng, after=after)
    for producer in producers:
        producer.send_signal(signal.SIGTERM)
        assert producer.wait(PATIENCE_S) == 0

    clean = a_config(tmp_path, bundle, kafka_bootstrap, chunks, undisturbed, "undisturbed")
    wanted = final_state(await _run_to_the_end(clean, kafka_bootstrap, chunks, undisturbed, log))
    records = await _run_to_the_end(config, kafka_bootstrap, chunks, events, log)

    assert_repeats_agree(records)
    assert len(wanted) >= n_kills / 2
    assert wanted == final_state(records)
    assert log.read_text().count("stream.restored") >= n_kills / 2


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
        async with asyncio.timeout(PATIENCE_S):
            for partition, end in ends.items():
                while (await consumer.committed(partition) or 0) < end:
                    await asyncio.sleep(0.2)
    finally:
        await consumer.stop()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE_S) == 0, log.read_text()
    return await topic_events(bootstrap, events)
