"""Reaching a broker: security comes from files, and what fails is named with the fix."""

import socket
import subprocess
from pathlib import Path

import pytest

from daemon.errors import ConfigError, TransportError
from daemon.kafka.connection import KafkaConnection, describe_topic

MAKE_CERTIFICATE = (
    *("openssl", "req", "-x509", "-nodes", "-subj", "/CN=test"),
    *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
)
NOBODY = "127.0.0.1:1"


def test_plaintext_needs_nothing() -> None:
    options = KafkaConnection("a:1,b:2").options()

    assert {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT"} == options


@pytest.mark.parametrize(
    "servers",
    ["", "a:", ":1", "a:b", "a:0", "a:65536", "a:1,,b:2", "a..b:1", "a:1,.b:1", f"{'a' * 64}:1"],
)
def test_an_address_that_is_none_is_refused(servers: str) -> None:
    with pytest.raises(ConfigError, match=r"bootstrap_servers is '.*', wanted host:port"):
        KafkaConnection(servers).options()


@pytest.mark.parametrize(
    "servers", ["a:1", "a", "a:1, b:65535", "[::1]:9092", "[::1]", "a.b.:1", "türen:1"]
)
def test_addresses_are_taken_as_they_are(servers: str) -> None:
    assert servers == KafkaConnection(servers).options()["bootstrap_servers"]


def test_sasl_takes_its_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret with space \n")
    connection = KafkaConnection(
        "a:1",
        protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="s2netd",
        sasl_password_file=tmp_path / "password",
    )

    options = connection.options()

    assert "s3cret with space " == options["sasl_plain_password"]
    assert ("s2netd", "SCRAM-SHA-512") == (
        options["sasl_plain_username"],
        options["sasl_mechanism"],
    )
    assert "s3cret" not in repr(connection)


def test_sasl_without_a_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sasl_password_file are needed"):
        KafkaConnection("a:1", protocol="SASL_SSL").options()
    with pytest.raises(
        ConfigError, match=r"sasl_password_file: cannot read .*absent: No such file"
    ):
        KafkaConnection(
            "a:1",
            protocol="SASL_PLAINTEXT",
            sasl_username="s2netd",
            sasl_password_file=tmp_path / "absent",
        ).options()


def test_tls_takes_its_certificates_from_files(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [*MAKE_CERTIFICATE, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    connection = KafkaConnection(
        "a:1",
        protocol="SSL",
        ca_file=certificate,
        certificate_file=certificate,
        key_file=key,
    )

    context = connection.options()["ssl_context"]

    assert [((("commonName", "test"),),)] == [ca["subject"] for ca in context.get_ca_certs()]


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    with pytest.raises(ConfigError, match=r"ca_file: cannot use .*ca\.pem"):
        KafkaConnection("a:1", protocol="SSL", ca_file=tmp_path / "ca.pem").options()


async def test_a_broker_that_is_not_there_is_named_at_the_deadline() -> None:
    connection = KafkaConnection(NOBODY, connect_timeout_s=1)

    with pytest.raises(TransportError, match=rf"Kafka at {NOBODY}: topic chunks: .*is the broker"):
        await describe_topic(connection, "chunks")


async def test_a_broker_that_never_answers_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel takes the connection
        connection = KafkaConnection(f"127.0.0.1:{deaf.getsockname()[1]}", connect_timeout_s=1)

        with pytest.raises(TransportError, match=r"no answer.*gave up after 1 s"):
            await describe_topic(connection, "chunks")


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
async def test_a_deaf_broker_is_waited_for_whatever_the_protocol(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        connection = KafkaConnection(address, protocol=protocol, connect_timeout_s=3)

        with pytest.raises(TransportError, match=r"no answer.*gave up after 3 s"):
            await describe_topic(connection, "chunks")


@pytest.mark.kafka
async def test_a_topic_that_is_not_there_is_named(kafka_bootstrap: str) -> None:
    connection = KafkaConnection(kafka_bootstrap, connect_timeout_s=10)

    with pytest.raises(TransportError, match="topic never-made: no such topic; create it"):
        await describe_topic(connection, "never-made")
