"""Which decoder a configuration gives a camera, and which batches the device."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.compose import batching, journal_settings, options_of
from daemon.config import (
    Config,
    DecodeConfig,
    DirectorySourceConfig,
    JsonlSinkConfig,
    ModelConfig,
    SinkConfig,
    SourceConfig,
    parse,
)
from daemon.decoding.opening import plain_decoders
from daemon.device.requests import BatchPolicy
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.journal.projections.jsonl import JsonlSettings
from daemon.journal.projections.topic import TopicSettings
from daemon.kafka.connection import KafkaConnection
from daemon.kafka_sections import KafkaSecurityConfig, KafkaSinkConfig, KafkaSourceConfig
from daemon.logs import set_up
from daemon.sources.directory import DirectorySourceSettings
from daemon.sources.kafka.settings import KafkaSourceSettings
from engine.video.frames import PyAvDecoder
from tests.support.scripted import a_spec
from tests.support.videos import a_chunk, make_video


def test_without_hardware_it_is_the_cpu_s() -> None:
    new_decoder = plain_decoders(DecodeConfig(), set_up("json", "info", io.StringIO()))
    assert isinstance(new_decoder(a_spec()), PyAvDecoder)


@pytest.mark.parametrize("gpu", [0, 63])
def test_a_camera_whose_gpu_cannot_decode_is_told_of_once_and_seen_all_the_same(gpu: int) -> None:
    said = io.StringIO()
    new_decoder = plain_decoders(
        DecodeConfig(hardware="cuda", gpu=gpu), set_up("json", "info", said)
    )
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
        (JsonlSinkConfig(path=OUT), JsonlSettings, JsonlSettings(OUT)),
        (
            KafkaSourceConfig(bootstrap_servers=BROKER, topic="chunks", group_id="g"),
            KafkaSourceSettings,
            KafkaSourceSettings(KafkaConnection(BROKER), "chunks", "g"),
        ),
        (
            KafkaSinkConfig(bootstrap_servers=BROKER, topic="events"),
            TopicSettings,
            TopicSettings(KafkaConnection(BROKER), "events"),
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


def kafka_config(**journal: object) -> Config:
    kafka = {"kind": "kafka", "bootstrap_servers": BROKER}
    source = {**kafka, "topic": "chunks", "group_id": "the hall", "max_chunk_bytes": 2**20}
    sink = {**kafka, "topic": "events"}
    return parse({"site": "s", "source": source, "sink": sink, "journal": journal}, "x")


@pytest.mark.parametrize(
    ("journal", "changes"),
    [
        ({}, {}),
        ({"kind": "kafka", "guarantee": "at-least-once"}, {"guarantee": "at-least-once"}),
        ({"prefix": "mine"}, {"prefix": "mine"}),
    ],
)
def test_the_journal_in_kafka_is_named_for_its_group(
    journal: dict[str, object], changes: dict[str, Any]
) -> None:
    wanted = KafkaJournalSettings(
        connection=KafkaConnection(BROKER),
        group_id="the hall",
        chunks_topic="chunks",
        events_topic="events",
        prefix="the-hall",
        site="s",
        max_record_bytes=2**20,
    )

    assert replace(wanted, **changes) == journal_settings(kafka_config(**journal))


def test_a_local_journal_has_nothing_in_kafka() -> None:
    assert journal_settings(kafka_config(kind="local")) is None
