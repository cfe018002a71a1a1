"""Which decoder a configuration gives a camera, and which batches the device."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.compose import batching, decoders, options_of
from daemon.config import (
    DecodeConfig,
    DirectorySourceConfig,
    JsonlSinkConfig,
    KafkaSecurityConfig,
    KafkaSinkConfig,
    KafkaSourceConfig,
    ModelConfig,
    SinkConfig,
    SourceConfig,
)
from daemon.device.batching import BatchPolicy
from daemon.kafka.connection import KafkaConnection
from daemon.logs import set_up
from daemon.sinks.jsonl import JsonlSinkSettings
from daemon.sinks.kafka import KafkaSinkSettings
from daemon.sources.directory import DirectorySourceSettings
from daemon.sources.kafka import KafkaSourceSettings
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


IN, OUT, BROKER = Path("chunks"), Path("events.jsonl"), "a:1,b:2"


@pytest.mark.parametrize(
    ("section", "settings", "expected"),
    [
        (DirectorySourceConfig(path=IN), DirectorySourceSettings, DirectorySourceSettings(IN)),
        (JsonlSinkConfig(path=OUT), JsonlSinkSettings, JsonlSinkSettings(OUT)),
        (
            KafkaSourceConfig(bootstrap_servers=BROKER, topic="chunks"),
            KafkaSourceSettings,
            KafkaSourceSettings(KafkaConnection(BROKER), "chunks"),
        ),
        (
            KafkaSinkConfig(bootstrap_servers=BROKER, topic="events"),
            KafkaSinkSettings,
            KafkaSinkSettings(KafkaConnection(BROKER), "events"),
        ),
    ],
)
def test_what_a_section_leaves_out_is_what_its_adapter_does_by_itself(
    section: SourceConfig | SinkConfig, settings: Any, expected: object
) -> None:
    assert expected == settings(**options_of(section))


def test_every_key_of_the_broker_s_security_reaches_its_connection(tmp_path: Path) -> None:
    files = ("ca_file", "certificate_file", "key_file", "key_password_file")
    tls = {"protocol": "SASL_SSL"} | {file: tmp_path / file for file in files}
    password = {
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": "me",
        "sasl_password_file": tmp_path / "password",
    }
    token = {"sasl_mechanism": "OAUTHBEARER", "sasl_token_file": tmp_path / "token"}

    for login in (password, token):
        security = KafkaSecurityConfig(**tls, **login)
        section = KafkaSinkConfig(bootstrap_servers=BROKER, topic="events", security=security)

        assert KafkaConnection(BROKER, **tls, **login) == options_of(section)["connection"]
    assert set(KafkaSecurityConfig.model_fields) == {*tls, *password, *token}
