"""The GPU takes over from the CPU while cameras are served, and touches no event."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bundle.model_bundle import ModelBundle
from tests.support.footage import BUSY, colour_clip
from tests.support.i3d_parts import pulled_kinetics400
from tests.support.live_daemon import CAMERAS, Cameras, LiveDaemon
from tests.support.processes import assert_repeats_agree, read_events

pytestmark = [pytest.mark.gpu, pytest.mark.openvino, pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return pulled_kinetics400()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[LiveDaemon]:
    one = LiveDaemon(tmp_path)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.kill()
        one.process.wait()


@pytest.mark.usefixtures("toolkit")
def test_the_cpu_serves_until_the_gpus_plans_are_built_and_verified(
    daemon: LiveDaemon, bundle: ModelBundle, tmp_path: Path
) -> None:
    clip = colour_clip(tmp_path / "busy.mp4", BUSY)
    cameras = Cameras(tmp_path / "chunks", clip, pace_s=1.5)
    gpu = {"bundle": str(bundle.path), "backend": "tensorrt", "max_batch": 4, "threads": None}
    daemon.configure({**gpu, "precision": "auto", "while_building": "openvino"})
    daemon.start()
    with cameras.sending():
        daemon.wait_for(lambda: daemon.ready()[0] == 200)
        first = daemon.ready()[1]["model"]
        daemon.wait_for(lambda: bool(daemon.logged("model.closed")), timeout_s=500)
    daemon.wait_for(lambda: daemon.count("queued_chunks", camera="a") == 0)
    last = daemon.ready()[1]["model"]
    gaps = [daemon.count("gaps_total", camera=camera) for camera in CAMERAS]
    daemon.stop()

    assert "openvino" in first["serving"]
    assert "tensorrt" in last["serving"]
    assert [0, 0, 0] == gaps
    records = read_events(daemon.events)
    assert_repeats_agree(records)
    assert "model" not in {record["reason"] for record in records}
    assert 1 == len({bundle.model_id, *(record["model"]["id"] for record in records)})
