"""A real Apache Kafka for tests: the one of ``$S2NETD_TEST_KAFKA``, or one of our own."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import RequestTimedOutError, for_code

from daemon.kafka.connection import KafkaConnection
from tests.support.checkout import CHECKOUT
from tests.support.processes import PATIENCE_S, wait_until
from tests.support.real_parts import missing

T = TypeVar("T")

SCRIPT = CHECKOUT / "scripts" / "kafka"


class MakeTopic(Protocol):
    """Makes a topic of its own with so many partitions; gives its name."""

    async def __call__(self, partitions: int, **config: str) -> str: ...


class OwnBroker:
    """A broker that a test may stop, hang and kill; it keeps its address and its topics.

    Args:
        home: Folder of its state.
        proxied: As in ``$S2NETD_KAFKA_PROXIED``.
        settings: More of its settings, with _ for a dot.
    """

    def __init__(self, home: Path, proxied: str = "", **settings: str) -> None:
        own = {
            "S2NETD_KAFKA_HOME": str(home),
            "S2NETD_KAFKA_PORT": "0",
            "S2NETD_KAFKA_PROXIED": proxied,
            "S2NETD_KAFKA_SETTINGS": "\n".join(
                f"{name.replace('_', '.')}={value}" for name, value in settings.items()
            ),
        }
        self._env = {**os.environ, **own}
        self._pid_file = home / "pid"
        self._address = ""

    def start(self) -> str:
        """Gives the address."""
        self._address = self.run("start")
        return self._address

    def signal(self, number: signal.Signals) -> None:
        """Send it; one that is killed answers no more when this returns."""
        os.kill(int(self._pid_file.read_text()), number)
        if number == signal.SIGKILL:
            wait_until(lambda: not answers(self._address), lambda: f"{self._address} answers")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [SCRIPT, *command], env=self._env, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()


def answers(address: str) -> bool:
    """Does anybody listen there?"""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[OwnBroker]:
    """See ``OwnBroker``; not started."""
    need_java("a broker of our own needs")
    broker = OwnBroker(tmp_path / "kafka")
    yield broker
    broker.run("stop")


def need_java(why: str) -> None:
    absent = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if absent:
        missing(f"{why} {' and '.join(absent)} (Debian: default-jre-headless, maven)")


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a broker that answers."""
    given = os.environ.get("S2NETD_TEST_KAFKA")
    if given:
        yield given
        return
    need_java("no broker: set S2NETD_TEST_KAFKA, or install")
    home = tmp_path_factory.mktemp("kafka")
    env = {**os.environ, "S2NETD_KAFKA_HOME": str(home), "S2NETD_KAFKA_PORT": "0"}
    started = subprocess.run(
        [SCRIPT, "start"], check=False, env=env, capture_output=True, text=True
    )
    if started.returncode:
        missing(f"no broker: {started.stderr}")
    yield started.stdout.strip()
    subprocess.run([SCRIPT, "stop"], env=env, check=True)


@asynccontextmanager
async def administering(bootstrap: str) -> AsyncIterator[Any]:
    """A client for what an administrator does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


def ask(bootstrap: str, what: Callable[[Any], Awaitable[T]]) -> T:
    """Run what needs such a client, in an event loop of its own, as a command does."""

    async def run() -> T:
        async with administering(bootstrap) as admin:
            return await what(admin)

    return asyncio.run(run())


class Member:
    """A member of the group that has all partitions, and says so."""

    async def is_member(self) -> bool:
        return True

    async def commit(self, *offset: object) -> None:
        raise AssertionError(f"transactions commit offsets, not the member: {offset}")


async def create_topics(admin: Any, *topics: NewTopic) -> None:
    """Create topics, and wait until the broker has heard of them from its controller."""
    answer = await admin.create_topics(list(topics))
    for name, code, message in answer.topic_errors:
        # A broker that is slow to answer goes on making it; anything else would be waited for.
        if code not in (0, RequestTimedOutError.errno):
            raise for_code(code)(f"{name}: {message}")
    names = [topic.name for topic in topics]
    while any(each["error_code"] for each in await admin.describe_topics(names)):
        await asyncio.sleep(0.05)


@pytest.fixture
def make_topic(kafka_bootstrap: str) -> MakeTopic:
    """See ``MakeTopic``; the test's topics die with the broker."""

    async def make(partitions: int, **config: str) -> str:
        name = f"test-{uuid.uuid4().hex}"
        async with administering(kafka_bootstrap) as admin:
            await create_topics(admin, NewTopic(name, partitions, 1, topic_configs=config))
        return name

    return make


async def put_record(
    connection: KafkaConnection,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
    partition: int | None = None,
) -> None:
    """Write one record as any foreign program might."""
    producer = AIOKafkaProducer(**connection.options(), max_request_size=2**26)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key, partition, headers=headers)
    finally:
        await producer.stop()
