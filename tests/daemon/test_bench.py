"""`s2netd bench` on a network too small to be the bottleneck: does it measure what it says?"""

import asyncio
import json

import pytest

from daemon.bench import LoopingCameras, StageTimes, camera_footage, chunks_of
from engine.frames import probe_video
from tests.support.processes import s2netd
from tests.support.tiny_bundle import write_tiny_bundle


def test_shares_add_up():
    times = StageTimes(1.0, 2.0, 6.0, 1.0, n_snippets=4, video_s=20.0)

    assert pytest.approx(1.0) == sum(times.shares().values())
    assert 0.6 == times.shares()["backbone_share"]


def test_the_footage_is_what_a_small_camera_sends(tmp_path):
    video = camera_footage(tmp_path, 3)
    facts = probe_video(video)

    assert (320, 240, 25, "h264") == (facts.width, facts.height, facts.fps, facts.codec)
    assert [0, 1_000_000, 2_000_000] == [chunk.start_us for chunk in chunks_of(video)]


async def test_every_camera_gets_all_of_its_footage_while_others_are_paused(tmp_path):
    chunks = chunks_of(camera_footage(tmp_path, 2))
    source = LoopingCameras(chunks, n_cameras=2, seconds=4, paced=False)
    source.pause("camera-1")
    seen: dict[str, list[int]] = {}

    async def take() -> None:
        async for delivery in source.deliveries():
            assert delivery.chunk is not None
            seen.setdefault(delivery.stream_id, []).append(delivery.chunk.start_us)

    taking = asyncio.create_task(take())
    await asyncio.sleep(0.05)
    source.resume("camera-1")
    await taking

    assert {"camera-0", "camera-1"} == set(seen)
    assert all([0, 1_000_000, 2_000_000, 3_000_000] == starts for starts in seen.values())


@pytest.mark.slow
@pytest.mark.openvino
def test_the_command_prints_every_figure(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    done = s2netd("bench", "--bundle", bundle, "--cameras", "2", "--seconds", "2", "--json")

    assert 0 == done.returncode, done.stderr
    figures = json.loads(done.stdout)
    assert figures["stages"]["n_snippets"] > 10
    assert figures["stages"]["real_time_factor"] > 0
    assert figures["cameras"]["whole_daemon"] > 0
    assert figures["machine"]["cores"] >= 1
