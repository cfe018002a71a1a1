"""A real broker that turns us away is told from one that is away, with the fix in one line."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from daemon.errors import ConfigError
from daemon.kafka.connection import KafkaConnection, describe_topic, persist
from daemon.kafka.producer import DurableProducer
from daemon.kafka.reasons import refusal
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.sources.kafka.source import KafkaChunkSource
from daemon.wire.records import Record
from tests.support.certificates import Authority, Pair
from tests.support.owner import Owner
from tests.support.secured_kafka import (
    DESCRIBE,
    GROUP,
    LOGIN_LASTS_S,
    READ,
    TOPIC,
    USER,
    WRITE,
    SecuredKafka,
    all_hung_up,
    unsecured_token,
)

pytestmark = pytest.mark.kafka

AT_ONCE_S = 5.0
RECORD = Record(key=b"key", value=b"value", headers=[])
PLAIN = {"protocol": "PLAINTEXT", "ca_file": None}


@pytest.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    yield
    await all_hung_up()


@pytest.mark.parametrize(
    ("listener", "changed", "message"),
    [
        ("TLS", PLAIN, "speaks TLS, and protocol is PLAINTEXT; set protocol SSL"),
        ("MTLS", PLAIN, "speaks TLS, and protocol is PLAINTEXT; set protocol SSL"),
        ("SASL", {"protocol": "SASL_PLAINTEXT"}, "speaks TLS.* set protocol SASL_SSL"),
        (
            "PLAINTEXT",
            {"protocol": "SSL"},
            "speaks without TLS, and .*SSL; set protocol PLAINTEXT",
        ),
        ("SASLPLAIN", {"protocol": "SASL_SSL"}, "speaks without TLS.*set protocol SASL_PLAINTEXT"),
        ("SASLPLAIN", PLAIN, "wants a login.*set protocol SASL_PLAINTEXT with .*SCRAM-SHA-512"),
        ("SASL", {"protocol": "SSL"}, "wants a login, and protocol is SSL; set protocol SASL_SSL"),
        ("TLS", {"ca_file": None}, "not signed by the system's CA.*set ca_file to"),
        ("TLS", {"ca_file": "foreign"}, r"not signed by ca_file .*foreign\.pem.*set ca_file to"),
        ("EXPIRED", {}, "its certificate has expired; renew it"),
        ("FOREIGN", {}, "its certificate is not for localhost; write in bootstrap_servers"),
        (
            "MTLS",
            {"certificate_file": None, "key_file": None},
            "refuses TLS without a certificate .*set certificate_file and key_file",
        ),
        (
            "MTLS",
            {"certificate_file": "foreign", "key_file": "foreign"},
            r"refuses certificate_file .*foreign\.pem .*signed by a CA that the broker",
        ),
    ],
)
async def test_what_is_wrong_with_a_connection_is_told_at_once(
    secured_kafka: SecuredKafka,
    tmp_path: Path,
    listener: str,
    changed: dict[str, Any],
    message: str,
) -> None:
    if "foreign" in changed.values():
        stranger = Authority(tmp_path, "stranger").sign("foreign")
        files = {"key_file": stranger.key}
        changed = {key: files.get(key, stranger.certificate) for key in changed}

    await assert_told(at(secured_kafka, listener, changed), message)


def at(kafka: SecuredKafka, listener: str, changed: dict[str, Any]) -> KafkaConnection:
    keys: dict[str, Any] = {"ca_file": kafka.authority.ca} | changed
    if listener.startswith("SASL") and str(keys.get("protocol")).startswith("SASL"):
        keys |= {"sasl_username": USER, "sasl_password_file": kafka.password_file}
    return KafkaConnection(kafka.address(listener), **({"protocol": "SSL"} | keys))


async def assert_told(connection: KafkaConnection, message: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(ConfigError, match=message) as caught:
        await describe_topic(connection, "chunks")

    assert time.monotonic() - began_s < AT_ONCE_S
    assert str(caught.value).startswith(f"Kafka at {connection.bootstrap_servers}: ")
    assert 1 == len(str(caught.value).splitlines())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_told_with_its_file(
    secured_kafka: SecuredKafka, tmp_path: Path, mechanism: str
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("a guess")
    wrong.chmod(0o600)

    connection = secured_kafka.connection("SASL", mechanism, sasl_password_file=wrong)

    await assert_told(
        connection, f"refuses the login of sasl_username {USER} .*{mechanism}.*{wrong}"
    )


@pytest.mark.parametrize("token", ["no token", unsecured_token(USER, -60)], ids=["none", "old"])
async def test_a_wrong_token_is_told_with_its_file(
    secured_kafka: SecuredKafka, tmp_path: Path, token: str
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)

    connection = secured_kafka.connection("SASL", "OAUTHBEARER", sasl_token_file=file)

    await assert_told(
        connection, f"refuses the token .*sasl_token_file {file} for it, and not exp"
    )


async def test_a_login_where_none_is_taken_is_told(secured_kafka: SecuredKafka) -> None:
    connection = secured_kafka.connection("SASL")
    tls = KafkaConnection(
        secured_kafka.address("TLS"),
        protocol="SASL_SSL",
        sasl_username=USER,
        sasl_password_file=connection.sasl_password_file,
        ca_file=connection.ca_file,
    )

    await assert_told(tls, "takes no login, and protocol is SASL_SSL; set protocol SSL")


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [
        ("PLAINTEXT", "PLAIN"),
        ("TLS", "PLAIN"),
        ("MTLS", "PLAIN"),
        ("SASLPLAIN", "SCRAM-SHA-512"),
        *(("SASL", each) for each in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")),
    ],
)
async def test_who_may_come_in_is_given_no_reason(
    secured_kafka: SecuredKafka, listener: str, mechanism: str
) -> None:
    assert None is await refusal(secured_kafka.connection(listener, mechanism))


async def test_a_broker_that_names_another_address_is_asked_there(
    secured_kafka: SecuredKafka,
) -> None:
    port = secured_kafka.ports["NUMBER"]
    connection = KafkaConnection(
        f"127.0.0.1:{port}", protocol="SSL", ca_file=secured_kafka.authority.ca
    )

    with pytest.raises(
        ConfigError,
        match=rf"Kafka at localhost:{port} \(the address that the brokers name\): its certificate "
        "is not for localhost; write in advertised.listeners the name",
    ):
        await describe_topic(connection, "chunks")


class SilentToPlain:
    """A TLS port that does not hang up on who speaks without TLS, as behind some proxies.

    Args:
        pair: Its certificate.
    """

    def __init__(self, pair: Pair) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                connection, _ = self._server.accept()
                if connection.recv(1, socket.MSG_PEEK) == b"\x16":
                    connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (*self._open, self._server):
            each.close()


async def test_a_tls_port_that_keeps_silent_is_told_too(tmp_path: Path) -> None:
    server = SilentToPlain(Authority(tmp_path).sign("proxy", hosts="IP:127.0.0.1"))
    try:
        await assert_told(KafkaConnection(server.address), "this port speaks TLS, and protocol is")
    finally:
        server.close()


async def a_topic(kafka: SecuredKafka, *operations: int) -> str:
    name = await kafka.make_topic(f"topic-{uuid.uuid4().hex}")
    await kafka.allow(USER, TOPIC, name, *operations)
    return name


async def test_a_missing_right_on_a_topic_is_told_at_the_start(
    secured_kafka: SecuredKafka,
) -> None:
    connection = secured_kafka.connection("SASL")
    seen, read = await a_topic(secured_kafka, DESCRIBE), await a_topic(secured_kafka, READ)
    await a_topic(secured_kafka, WRITE)  # a right on another topic does not help

    for topic, operation in ((seen, "Read"), (seen, "Write"), (read, "Write")):
        with pytest.raises(
            ConfigError,
            match=f"user {USER} lacks the right {operation} on topic {topic}; run: kafka-acls.sh "
            f"--bootstrap-server {connection.bootstrap_servers} --command-config .* "
            f"--allow-principal User:{USER} --operation {operation} --topic {topic}$",
        ):
            await describe_topic(connection, topic, operation)
    assert (0,) == (await describe_topic(connection, read)).partitions


async def test_a_missing_right_on_a_group_is_told(secured_kafka: SecuredKafka) -> None:
    topic, group = await a_topic(secured_kafka, READ), f"group-{uuid.uuid4().hex}"
    await secured_kafka.allow(USER, GROUP, group, DESCRIBE)
    settings = KafkaSourceSettings(secured_kafka.connection("SASL"), topic, group_id=group)

    with pytest.raises(
        ConfigError, match=f"lacks the right Read on group {group}; run: .* --group {group}$"
    ):
        await KafkaChunkSource(settings).start(Owner())


async def test_a_missing_right_on_a_transactional_id_is_told(secured_kafka: SecuredKafka) -> None:
    connection = secured_kafka.connection("SASL")

    async def attempt() -> None:
        producer = AIOKafkaProducer(**connection.options(), transactional_id="s2netd/0")
        try:
            await producer.start()
        finally:
            await producer.stop()

    with pytest.raises(
        ConfigError,
        match=r"lacks the right Write on transactional id s2netd/0; run: .*--transactional-id s2",
    ):
        await persist(connection, "transactions", attempt)


@pytest.fixture
async def run_out(secured_kafka: SecuredKafka, tmp_path: Path) -> AsyncIterator[DurableProducer]:
    """A producer that has sent something with a token that is no longer valid."""
    topic, file = await a_topic(secured_kafka, WRITE), tmp_path / "token"
    file.write_text(unsecured_token(USER, LOGIN_LASTS_S))
    file.chmod(0o600)
    connection = secured_kafka.connection(
        "SASL", "OAUTHBEARER", sasl_token_file=file, connect_timeout_s=8
    )
    producer = DurableProducer(connection, topic)
    await producer.start()
    await producer.send([RECORD])
    await asyncio.sleep(LOGIN_LASTS_S + 1)  # the broker's clock is what counts here
    yield producer
    await producer.close()


async def test_a_token_that_runs_out_may_be_replaced_a_little_late(
    run_out: DurableProducer, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(run_out.send([RECORD]))
        await asyncio.sleep(2)
        (tmp_path / "token").write_text(unsecured_token(USER))


async def test_a_token_that_runs_out_and_stays_is_told_at_the_deadline(
    run_out: DurableProducer,
) -> None:
    with pytest.raises(ConfigError, match="refuses the token"):
        await run_out.send([RECORD])
