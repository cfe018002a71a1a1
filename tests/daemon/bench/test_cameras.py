"""`s2netd bench` on a network too small to be the bottleneck: does it measure what it says?"""

import asyncio
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from daemon.bench.cameras import whole_daemon
from daemon.bench.cameras.batches import compare_batches
from daemon.bench.cameras.decoding import Decoding, decode_config, stage_decoder
from daemon.bench.cameras.model import BenchModel
from daemon.bench.cameras.overload import Load, Looked, figures_of, overload
from daemon.bench.cameras.run import BenchOptions, _config
from daemon.bench.cameras.stages import (
    Footage,
    StageTimes,
    camera_footage,
    footage_of,
    parse_size,
)
from daemon.bench.cameras.whole_daemon import (
    LoopingCameras,
    Served,
    fed_enough,
    most_cameras,
    serve_cameras,
)
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import DecodeConfig
from daemon.device.thread import Device
from daemon.errors import ConfigError
from daemon.models.reading import OpenModel
from daemon.stream import ladder
from engine.errors import CorruptChunkError
from engine.spec import EconomySpec, Rung
from engine.video.frames import PyAvDecoder, probe_video
from tests.support.cli import Cli, in_process
from tests.support.footage import colour_clip
from tests.support.processes import s2netd
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec
from tests.support.tiny_bundle import write_tiny_bundle


def test_shares_add_up():
    times = StageTimes(1.0, 2.0, 6.0, 1.0, n_snippets=4, n_looks=4, video_s=20.0)

    assert pytest.approx(1.0) == sum(times.shares().values())
    assert 0.6 == times.shares()["backbone_share"]


@pytest.mark.parametrize("size", [(320, 240), (100, 60)])
def test_the_footage_is_what_a_small_camera_sends(tmp_path, size):
    video = camera_footage(tmp_path, 3, size)
    facts = probe_video(video)

    assert (*size, 25, "h264") == (facts.width, facts.height, facts.fps, facts.codec)
    footage = footage_of(video)
    assert [0, 1_000_000, 2_000_000] == [chunk.start_us for chunk in footage.chunks]
    assert (1_000_000,) * 3 == footage.durations_us


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("big", "wanted WIDTHxHEIGHT"),
        ("1920x1080p", "wanted WIDTHxHEIGHT"),
        ("321x240", "wanted even sides"),
        ("8x8", "wanted sides of 16"),
        ("8000x8000", "at most 8847360 pixels"),
    ],
)
def test_a_resolution_that_is_none_is_refused(text, wanted):
    with pytest.raises(ConfigError, match=f"--resolution is '{text}'.*{wanted}"):
        parse_size(text)


def test_a_resolution_is_width_and_height():
    assert (1920, 1080) == parse_size("1920x1080")


async def test_every_camera_gets_all_of_its_footage_while_others_are_paused(tmp_path):
    footage = footage_of(camera_footage(tmp_path, 2))
    source = LoopingCameras(footage, n_cameras=2, seconds=4, paced=False)
    source.pause("camera-1")
    seen: dict[str, list[int]] = {}

    async def take() -> None:
        async for delivery in source.deliveries():
            assert delivery.chunk is not None
            seen.setdefault(delivery.camera, []).append(delivery.chunk.start_us)

    taking = asyncio.create_task(take())
    await asyncio.sleep(0.05)
    source.resume("camera-1")
    await taking

    assert {"camera-0", "camera-1"} == set(seen)
    assert all([0, 1_000_000, 2_000_000, 3_000_000] == starts for starts in seen.values())


async def test_chunks_of_two_seconds_follow_one_another_from_loop_to_loop(tmp_path):
    footage = footage_of(camera_footage(tmp_path, 5, key_frame_s=2))
    source = LoopingCameras(footage, n_cameras=1, seconds=8, paced=False)
    chunks = [delivery.chunk async for delivery in source.deliveries()]

    assert (2_000_000, 2_000_000, 1_000_000) == footage.durations_us
    assert [0, 2_000_000, 4_000_000, 5_000_000, 7_000_000] == [c.start_us for c in chunks]
    assert 9.0 == source.footage_s
    spec = a_spec()
    decoder = PyAvDecoder(spec.geometry, spec.grid)
    pts_us = [int(time_us) for chunk in chunks for time_us in decoder.decode(chunk).pts_us]
    assert [40_000] == sorted({after - before for before, after in itertools.pairwise(pts_us)})


@pytest.fixture
def scripted():
    model = OpenModel(a_spec(), None, MeanColourExtractor(), SmoothingLocalizer())
    with ThreadPoolExecutor(1) as thread:
        yield BenchModel(model, thread, batch=4)


async def test_capacity_counts_the_snippets_that_were_whole(tmp_path, scripted):
    footage = footage_of(camera_footage(tmp_path, 2))
    served = await serve_cameras(
        footage, scripted, 3, 2, paced=False, decoding=Decoding(DecodeConfig())
    )

    # Of the twelve and a half strides of 0.16 s in each camera's 2 s.
    assert 3 * 12 == served.n_snippets
    assert 2.0 == served.footage_s
    assert pytest.approx(3 * 12 * 0.16 / served.spent_s) == served.cameras(160_000)
    assert served.cameras(160_000) < 3 * 2 / served.spent_s


@pytest.mark.parametrize(
    ("carried", "wanted_fed"),
    [
        (0.0, [4]),
        (1.9, [4]),
        (4.0, [4]),
        (9.9, [4, 12]),
        (17.5, [4, 12, 27]),
        (40.0, [4, 12, 36, 60]),
    ],
)
def test_a_machine_is_fed_more_cameras_than_it_carries(carried, wanted_fed):
    """Each camera has twice its own pace where it need not wait for others."""
    fed = []

    def feed(n_cameras: int) -> Served:
        fed.append(n_cameras)
        worth = min(2.0 * n_cameras, carried)
        return Served(spent_s=1.0, footage_s=5.0, n_snippets=round(worth * 1000))

    served = fed_enough(feed, stride_us=1_000)

    assert pytest.approx(carried) == served.cameras(1_000)
    assert wanted_fed == fed


async def test_of_a_surge_it_is_told_when_the_ladder_engaged_and_was_left(tmp_path, monkeypatch):
    """Each look takes so long that four cameras are too many, and one is not."""
    monkeypatch.setattr(ladder, "LOWER_AT_S", 0.5)
    monkeypatch.setattr(ladder, "RAISE_AT_S", 0.3)
    monkeypatch.setattr(ladder, "SETTLE_S", 0.5)
    monkeypatch.setattr(ladder, "CALM_S", 0.5)

    class SlowExtractor(MeanColourExtractor):
        def extract(self, snippets):
            time.sleep(0.06 * len(snippets))
            return super().extract(snippets)

    spec = a_spec(economy=EconomySpec(lowest=Rung.GATED))
    model = OpenModel(spec, None, SlowExtractor(), SmoothingLocalizer())
    footage = footage_of(camera_footage(tmp_path, 4))
    with ThreadPoolExecutor(1) as thread:
        bench = BenchModel(model, thread, batch=4)
        load = Load(n_cameras=1, n_more=4, surge_s=8, after_s=8)
        figures = await overload(footage, bench, load, Decoding(DecodeConfig()))

    assert "5 for 8 s, then 1 for 8 s" == figures["cameras"]
    assert 0 < figures["engaged_after_s"] < 8
    assert figures["most_lag_s"] > 0.5
    assert figures["lag_at_the_end_s"] < figures["most_lag_s"]


def test_of_a_surge_it_is_told_how_late_cameras_were_and_whether_all_is_looked_at_again():
    load = Load(n_cameras=2, n_more=4, surge_s=10, after_s=5)
    surge = [Looked(2, 0, 0.5, 1), Looked(4, 3, 3, 5), Looked(6, 6, 1, 2), Looked(9, 6, 0.5, 1)]
    lowered, full = Looked(12, 2, 0.4, 0.5), Looked(14, 0, 0.2, 0.3)

    figures = figures_of([*surge, lowered, full], load)

    assert "6 for 10 s, then 2 for 5 s" == figures["cameras"]
    assert (4, 5) == (figures["engaged_after_s"], figures["most_lag_s"])
    assert (0.75, 0.2) == (figures["lag_in_the_second_half_s"], figures["lag_at_the_end_s"])
    assert 2 == figures["full_again_after_s"]
    assert "never" == figures_of([*surge, lowered], load)["full_again_after_s"]
    assert "never" == figures_of([surge[0], full], load)["engaged_after_s"]


class NoHardware(PyAvDecoder):
    """Its GPU decodes nothing."""

    def __init__(self, *arguments, gpu=None, **options):
        super().__init__(*arguments, **options)
        self._gpu = gpu

    def decode(self, chunk):
        if self._gpu is not None:
            raise CorruptChunkError(f"GPU {self._gpu} decodes nothing")
        return super().decode(chunk)


async def test_falling_back_to_the_cpu_is_told(tmp_path, scripted, monkeypatch):
    monkeypatch.setattr("daemon.decoding.opening.PyAvDecoder", NoHardware)
    decoding = Decoding(decode_config("cuda", gpu=5))
    footage = footage_of(camera_footage(tmp_path, 4))
    served = await serve_cameras(footage, scripted, 2, 4, paced=False, decoding=decoding)

    assert 2 * 25 == served.n_snippets
    figures = decoding.figures()
    assert ("GPU 5", 4) == (figures["decode_asked"], figures["decode_fallbacks_to_cpu"])
    assert "GPU 5 decodes nothing" in str(figures["decode_first_fallback"])
    wanted = {"decode_asked": "CPU", "decode_isolation": "process"}
    assert wanted == Decoding(decode_config("none", gpu=5)).figures()


def test_a_gpu_that_decodes_everything_is_told_too():
    decoding = Decoding(decode_config("cuda", gpu=0))
    assert {"decode_asked": "GPU 0", "decode_fallbacks_to_cpu": 0} == decoding.figures()


def test_stages_are_timed_on_the_cpu_where_the_gpu_decodes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.bench.cameras.decoding.PyAvDecoder", NoHardware)
    spec, (chunk, *_) = a_spec(), footage_of(camera_footage(tmp_path, 1)).chunks
    decoder, where = stage_decoder(decode_config("cuda", gpu=5), spec, chunk)

    assert 25 == decoder.decode(chunk).n_decoded
    assert "CPU: GPU 5 decodes nothing" == where
    assert "CPU" == stage_decoder(decode_config("none", gpu=5), spec, chunk)[1]


def some_options(**changes) -> BenchOptions:
    plain = {
        "bundle": "tiny",
        "video": None,
        "seconds": 2,
        "cameras": "0",
        "compare_batch": False,
        "batch": 8,
        "backend": "tensorrt",
        "precision": "auto",
        "threads": None,
    }
    return BenchOptions(**(plain | changes))


def test_the_gpu_of_the_command_line_runs_the_networks():
    assert 3 == _config(some_options(gpu=3)).gpu


@pytest.mark.parametrize(("seconds", "wanted_s"), [(30, 30), (2, 4), (240, 240)])
def test_cameras_are_fed_as_long_as_they_are_then_served_live(monkeypatch, seconds, wanted_s):
    """A whole day, too, whose hours differ."""
    fed_s = []

    async def nothing(_footage, _bench, _n_cameras, each_s, **_how) -> Served:
        fed_s.append(each_s)
        return Served(spent_s=1.0, footage_s=each_s, n_snippets=0)

    monkeypatch.setattr(whole_daemon, "serve_cameras", nothing)
    model = OpenModel(a_spec(), None, MeanColourExtractor(), SmoothingLocalizer())
    with ThreadPoolExecutor(1) as thread:
        bench = BenchModel(model, thread, batch=4)
        decoding = Decoding(DecodeConfig())
        served, carried = most_cameras(Footage((), ()), bench, seconds, Console(), decoding)

    assert [wanted_s] == fed_s
    assert (0, 0) == (served.n_snippets, carried)


class CallsThatCost(MeanColourExtractor):
    """Every call takes 50 ms, however many snippets are in it, beside which little else counts."""

    def extract(self, snippets):
        time.sleep(0.05)
        return super().extract(snippets)


def test_calls_that_cost_the_same_at_any_size_are_found_to_be_worth_sharing():
    model = OpenModel(a_spec(), None, CallsThatCost(), SmoothingLocalizer())

    def new_device(policy, metrics):
        return Device(policy, metrics, RunningCalls(SystemClock()))

    found = compare_batches(new_device, model, n_cameras=8, batch=4, seconds=2)

    assert 1 == found["one_by_one_mean_batch"]
    assert 4 == found["batched_mean_batch"]
    assert 1.5 < found["speed_up"]  # 4 on a machine without other work
    assert found["speed_up_least"] <= found["speed_up"] <= found["speed_up_most"]
    assert 0 < found["queue_us_per_snippet"]


@pytest.fixture
def cli(monkeypatch, capsys) -> Cli:
    return in_process(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("--cameras some", "wanted auto or a number"),
        ("--cameras auto --compare-batch", "wanted how many cameras"),
        ("--compare-batch", "wanted how many cameras"),
        ("--decode vaapi", "--decode is 'vaapi', wanted none or cuda"),
        ("--resolution large", "--resolution is 'large'"),
        ("--resolution 64x64 --video clip.mp4", "leave out --video"),
        ("--footage night", "--footage is 'night', wanted one of 'moving', 'day'"),
        ("--footage day --video clip.mp4", "--footage is of footage made on the spot"),
        ("--rung low", "rung"),
        ("--under-load low", "under_load"),
        ("--surge 3", "wanted how many --surge multiplies"),
        ("--surge 3 --cameras auto", "wanted how many --surge multiplies"),
        ("--motion-gate on", "motion_gate"),
        ("--device cpu --rung half", "--rung goes without --device"),
        ("--also tiny", "--also goes with --device"),
        ("--report bench.md", "--report goes with --device"),
        ("--leak-batches 10", "--leak-batches goes with --device"),
        ("--device cpu --video clip.mp4", "--video goes without --device"),
        ("--device cpu --cameras 2", "--cameras goes without --device"),
        ("--device cpu --compare-batch", "--compare-batch goes without --device"),
        ("--device cpu --backend openvino", "--backend goes without --device"),
        ("--device cuda --decode none", "--decode goes without --device"),
        ("--device cuda --resolution 64x64", "--resolution goes without --device"),
        ("--device cpu --gpu 1", "--gpu goes with --device cuda"),
    ],
)
def test_options_that_say_nothing_are_refused_in_one_line(cli, options, wanted):
    answer = cli("bench", *options.split())

    assert 78 == answer.code
    assert wanted in answer.complaint


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
    assert figures["stages"]["n_snippets"] == figures["stages"]["n_looks"] > 10
    assert figures["stages"]["real_time_factor"] > 0
    assert figures["cameras"]["whole_daemon"] > 0
    assert figures["cameras"]["snippets"] > 10
    assert "carried_live" not in figures["cameras"]
    assert "320x240, 25 fps, h264" == figures["footage"]
    assert figures["machine"]["cores"] >= 1


@pytest.mark.slow
@pytest.mark.openvino
def test_a_day_has_24_short_hours(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    asked = ("--footage", "day", "--resolution", "64x48", "--motion-gate", "static", "--json")
    done = s2netd("bench", "--bundle", bundle, *asked)

    assert 0 == done.returncode, done.stderr
    figures = json.loads(done.stdout)
    assert "full, motion gate static" == figures["economy"]
    assert figures["stages"]["video_s"] == pytest.approx(240, abs=0.1)
    assert 0 < figures["stages"]["n_looks"] < figures["stages"]["n_snippets"]


@pytest.mark.slow
@pytest.mark.openvino
def test_the_command_finds_out_how_many_live_cameras_are_carried(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    clip = colour_clip(tmp_path / "clip.mp4", [(4, 0, 200)], gop=25)
    asked = ("--cameras", "auto", "--video", clip, "--seconds", "2", "--json")
    done = s2netd("bench", "--bundle", bundle, *asked)

    assert 0 == done.returncode, done.stderr
    cameras = json.loads(done.stdout)["cameras"]
    assert 0 < cameras["carried_live"] <= cameras["whole_daemon"]
