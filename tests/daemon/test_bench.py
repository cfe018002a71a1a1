"""`s2netd bench` on a network too small to be the bottleneck: does it measure what it says?"""

import asyncio
import json
import time

import pytest

from daemon.bench_batching import compare_batches
from daemon.bench_cameras import LoopingCameras
from daemon.bench_stages import StageTimes, camera_footage, chunks_of
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.device import Device
from daemon.model import OpenModel
from engine.frames import probe_video
from tests.support.processes import s2netd
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec
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


class CallsThatCost(MeanColourExtractor):
    """Every call takes 5 ms, however many snippets are in it."""

    def extract(self, snippets):
        time.sleep(0.005)
        return super().extract(snippets)


def test_calls_that_cost_the_same_at_any_size_are_found_to_be_worth_sharing():
    model = OpenModel(a_spec(), None, CallsThatCost(), SmoothingLocalizer())

    def new_device(policy, metrics):
        return Device(policy, metrics, RunningCalls(SystemClock()))

    found = compare_batches(new_device, model, n_cameras=8, batch=4, seconds=0.5)

    assert 1 == found["one_by_one_mean_batch"]
    assert 4 == found["batched_mean_batch"]
    assert 1.5 < found["speed_up"] <= 8
    assert found["speed_up_least"] <= found["speed_up"] <= found["speed_up_most"]
    assert 0 < found["queue_us_per_snippet"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--cameras", "some"], "wanted auto or a number"),
        (["--cameras", "auto", "--compare-batch"], "wanted how many cameras"),
        (["--compare-batch"], "wanted how many cameras"),
    ],
)
def test_cameras_that_say_nothing_are_refused_in_one_line(options, wanted):
    done = s2netd("bench", *options)

    assert 78 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert wanted in done.stderr


@pytest.mark.slow
@pytest.mark.openvino
def test_the_command_compares_calls_of_many_cameras_with_calls_of_one(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    asked = ("--cameras", "16", "--compare-batch", "--batch", "4", "--seconds", "2", "--json")
    done = s2netd("bench", "--bundle", bundle, *asked)

    assert 0 == done.returncode, done.stderr
    batching = json.loads(done.stdout)["batching"]
    assert (16, 4) == (batching["cameras"], batching["batch"])
    assert 1 == batching["one_by_one_mean_batch"]
    assert 2 < batching["batched_mean_batch"] <= 4
    assert batching["batched_snippets_per_s"] > 0


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
