"""Which decoder a configuration gives a camera, and which batches the device."""

import io

import numpy as np
import pytest

from daemon.compose import batching, decoders
from daemon.config import DecodeConfig, ModelConfig
from daemon.device.batching import BatchPolicy
from daemon.logs import set_up
from engine.video.frames import PyAvDecoder
from tests.support.scripted import a_spec
from tests.support.videos import a_chunk, make_video


def test_without_hardware_it_is_the_cpu_s() -> None:
    new_decoder = decoders(DecodeConfig(), set_up("json", "info", io.StringIO()))
    assert isinstance(new_decoder(a_spec()), PyAvDecoder)


@pytest.mark.parametrize("gpu", [0, 63])
def test_a_camera_whose_gpu_cannot_decode_is_told_of_once_and_seen_all_the_same(gpu: int) -> None:
    said = io.StringIO()
    new_decoder = decoders(DecodeConfig(hardware="cuda", gpu=gpu), set_up("json", "info", said))
    spec = a_spec()
    chunk = a_chunk(make_video(n_frames=20))
    wanted = PyAvDecoder(spec.geometry, spec.grid).decode(chunk)
    decoder = new_decoder(spec)
    for _ in range(5):
        assert np.array_equal(wanted.rgb, decoder.decode(chunk).rgb)
    decoder.close()
    lines = said.getvalue().splitlines()
    # Where there is such a GPU, nothing is said; else once for the chunk, once for the camera.
    assert len(lines) in (0, 2)
    assert all("decoder.fell_back" in line for line in lines)


def test_the_device_waits_in_seconds_for_what_is_configured_in_milliseconds() -> None:
    policy = batching(ModelConfig(bundle="scenes", max_batch=3, max_wait_ms=4))
    assert BatchPolicy(max_size=3, max_wait_s=0.004) == policy
