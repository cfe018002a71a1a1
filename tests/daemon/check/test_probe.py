"""`s2netd check --probe` over real brokers: what it says, and that it does nothing but look."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from tests.support.cli import Answer, Cli, in_process
from tests.support.kafka import ask, create_topics
from tests.support.processes import s2netd, wait_until
from tests.support.secured_kafka import (
    DESCRIBE,
    DESCRIBE_CONFIGS,
    TOPIC,
    USER,
    SecuredKafka,
    rights_of_a_daemon,
)
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


class Site:
    """A configuration of a daemon with a journal in Kafka, and the command over it."""

    def __init__(self, folder: Path, cli: Cli, bootstrap: str, **security: str) -> None:
        self._cli = cli
        self.bootstrap = bootstrap
        self.name = f"site-{uuid.uuid4().hex}"
        broker = {"kind": "kafka", "bootstrap_servers": bootstrap}
        secured = {**broker, **({"security": security} if security else {})}
        self.plain: dict[str, Any] = {
            "model": {"bundle": str(write_tiny_bundle(folder / "tiny")), "backend": "scripted"},
            "source": {**secured, "topic": f"{self.name}-chunks", "group_id": self.name},
            "sink": {**secured, "topic": f"{self.name}-events"},
            "http": {"port": 0},
        }
        self.path = folder / "edge.yaml"

    def command(self, *words: str) -> Answer:
        self.path.write_text(yaml.safe_dump(self.plain))
        return self._cli(*words, "--config", self.path)

    def probe(self) -> Answer:
        return self.command("check", "--probe")

    @property
    def own_topics(self) -> list[str]:
        kinds = ("state", "features", "action-events.latest", "camera-status", "dlq")
        return [f"{self.name}.{kind}.v1" for kind in kinds]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_process(monkeypatch, capsys)


@pytest.fixture
def site(tmp_path: Path, cli: Cli, kafka_bootstrap: str) -> Site:
    return Site(tmp_path, cli, kafka_bootstrap)


def topics_of(bootstrap: str, name: str) -> list[str]:
    topics = ask(bootstrap, lambda admin: admin.list_topics())
    return sorted(topic for topic in topics if topic.startswith(name))


def create(site: Site) -> list[str]:
    """Create all topics, and wait until every broker knows of them."""
    assert 0 == site.command("topics", "create").code
    wait_until(lambda: len(topics_of(site.bootstrap, site.name)) == 7)
    return topics_of(site.bootstrap, site.name)


def groups_of(bootstrap: str) -> list[str]:
    return [group for group, _kind in ask(bootstrap, lambda admin: admin.list_consumer_groups())]


def make(bootstrap: str, name: str, n_partitions: int = 1, **config: str) -> None:
    topic = NewTopic(name, n_partitions, 1, topic_configs=config)
    ask(bootstrap, lambda admin: create_topics(admin, topic))


def test_topics_that_are_missing_are_named_unless_the_daemon_may_make_them(site: Site) -> None:
    answer = site.probe()

    faults = answer.err.splitlines()
    create = f"is missing; run: s2netd topics create --config {site.path}"
    assert 78 == answer.code
    assert [
        f"s2netd: {site.path}: chunks topic {site.name}-chunks: {create}",
        f"s2netd: {site.path}: events topic {site.name}-events: {create}",
    ] == faults
    for topic in site.own_topics:
        assert f"topic {topic}: is missing, and the daemon may make it" in answer.out
    assert [] == topics_of(site.bootstrap, site.name)


def test_a_sound_site_is_told_in_ok_lines_and_stays_as_it_is(site: Site) -> None:
    topics = create(site)

    answer = site.probe()

    assert (0, "") == (answer.code, answer.err)
    for line in (
        f"ok: brokers: Kafka at {site.bootstrap} lets us in",
        f"ok: chunks topic {site.name}-chunks: 4 partition(s)",
        f"ok: state topic {site.name}.state.v1: 4 partition(s)",
        f"; group {site.name}; transactional id {site.name}/{site.name}-chunks/start",
        "tiny answers on scripted",
        "edge.yaml: ok (tiny@",
    ):
        assert line in answer.out
    assert topics == topics_of(site.bootstrap, site.name)
    assert site.name not in groups_of(site.bootstrap)


def test_few_partitions_and_another_retention_are_the_operators_choice(site: Site) -> None:
    make(
        site.bootstrap,
        f"{site.name}-chunks",
        **{"retention.ms": "60000", "max.message.bytes": "9000000"},
    )
    make(site.bootstrap, f"{site.name}-events", **{"retention.ms": "60000"})

    answer = site.probe()

    assert (0, "") == (answer.code, answer.err)


def test_settings_with_which_it_cannot_run_are_named_with_their_mends(site: Site) -> None:
    make(site.bootstrap, f"{site.name}-chunks", 3, **{"max.message.bytes": "1000000"})
    make(site.bootstrap, f"{site.name}-events", **{"cleanup.policy": "compact"})
    make(site.bootstrap, f"{site.name}.state.v1", 1, **{"cleanup.policy": "compact"})

    answer = site.probe()

    chunks, events, state = answer.err.splitlines()
    assert 78 == answer.code
    assert "max.message.bytes is 1000000, wanted at least 8388608; run: kafka-configs.sh" in chunks
    assert "cleanup.policy is compact, wanted delete, for compaction" in events
    assert "has 1 partition(s), wanted at least 3" in state


def test_without_a_bundle_the_brokers_are_asked_all_the_same(site: Site) -> None:
    site.plain["model"]["bundle"] = "nope"
    del site.plain["source"]["group_id"]

    answer = site.probe()

    lines = answer.err.splitlines()
    assert 78 == answer.code
    for told in ("model: no bundle nope", "chunks topic", "events topic"):
        assert 1 == sum(told in line for line in lines), answer.err
    assert 3 == len(lines)


def test_a_daemon_that_runs_meanwhile_is_not_disturbed(site: Site) -> None:
    create(site)
    chunks = f"{site.name}-chunks"

    async def run() -> Answer:
        producer = AIOKafkaProducer(
            bootstrap_servers=site.bootstrap, transactional_id=f"{site.name}/{chunks}/start"
        )
        await producer.start()
        async with producer.transaction():  # raises if somebody has put it out
            await producer.send_and_wait(f"{site.name}-events", b"x")
            answer = await asyncio.to_thread(site.probe)
            await producer.send_and_wait(f"{site.name}-events", b"y")
        await producer.stop()
        return answer

    answer = asyncio.run(run())

    assert (0, "") == (answer.code, answer.err)


def as_a_process(*arguments: object) -> Answer:
    """The command: aiokafka does not wait for the end of its TLS, but a process's end ends it."""
    done = s2netd(*arguments)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def secured(tmp_path: Path, secured_kafka: SecuredKafka) -> Site:
    """A site whose user may do nothing yet; both of its topics are there."""
    security = secured_kafka.security("SASL", "SCRAM-SHA-512")
    site = Site(tmp_path, as_a_process, secured_kafka.address("SASL"), **security)
    for kind in ("chunks", "events"):
        topic = f"{site.name}-{kind}"
        asyncio.run(secured_kafka.make_topic(topic, **{"max.message.bytes": "9000000"}))
    return site


def allow(kafka: SecuredKafka, site: Site, *left_out: str) -> None:
    """Give all rights that docs/operating.md tells, but some."""
    chunks, events = f"{site.name}-chunks", f"{site.name}-events"
    rights = rights_of_a_daemon(chunks, events, site.name)
    given = [right for name, right in rights.items() if name not in left_out]
    asyncio.run(kafka.give(USER, *given))
    for topic in (chunks, events):  # seen, though it may not be used
        asyncio.run(kafka.allow(USER, TOPIC, topic, DESCRIBE))


def test_with_the_rights_that_the_docs_tell_a_probe_is_content(
    secured_kafka: SecuredKafka, secured: Site
) -> None:
    allow(secured_kafka, secured)

    answer = secured.probe()

    assert (0, "") == (answer.code, answer.err)
    assert f"ok: rights: user {USER} may use topics {secured.name}-chunks" in answer.out
    assert f"{secured.name}-chunks: 1 partition(s); its settings are not shown to us" in answer.out
    for topic in secured.own_topics:
        assert f"{topic}: is missing, and the daemon may make it" in answer.out


def test_with_the_right_to_see_settings_they_are_compared(
    secured_kafka: SecuredKafka, secured: Site
) -> None:
    allow(secured_kafka, secured)
    asyncio.run(secured_kafka.allow(USER, TOPIC, f"{secured.name}-chunks", DESCRIBE_CONFIGS))
    secured.plain["source"]["max_chunk_bytes"] = 10_000_000

    answer = secured.probe()

    assert 78 == answer.code
    assert "max.message.bytes is 9000000, wanted at least 10000000" in answer.err


def test_a_topic_that_is_not_shown_at_all_is_named(secured: Site) -> None:
    answer = secured.probe()

    assert 78 == answer.code
    for kind in ("chunks", "events"):
        told = (
            f"topic {secured.name}-{kind}: the broker does not let us look at it; run: kafka-acl"
        )
        assert 1 == answer.err.count(told)


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("read chunks", "lacks the right Read on topic {0}-chunks; run: kafka-acls.sh"),
        ("write events", "lacks the right Write on topic {0}-events; run: kafka-acls.sh"),
        ("group", "lacks the right Read on group {0}; run: kafka-acls.sh"),
        ("transactions", "lacks the right Write on transactional id {0}/{0}-chunks/start; run: "),
    ],
)
def test_a_right_that_is_missing_is_named_with_its_command(
    secured_kafka: SecuredKafka, secured: Site, left_out: str, told: str
) -> None:
    allow(secured_kafka, secured, left_out)

    answer = secured.probe()

    assert 78 == answer.code
    assert told.format(secured.name) in answer.complaint


def test_own_topics_that_may_not_be_made_are_named(
    secured_kafka: SecuredKafka, secured: Site
) -> None:
    allow(secured_kafka, secured, "own topics")

    answer = secured.probe()

    assert 78 == answer.code
    lines = answer.err.splitlines()
    assert 5 == len(lines)
    for topic in secured.own_topics:
        assert 1 == sum(topic in line for line in lines), answer.err


def test_a_login_that_is_refused_is_one_line(secured: Site) -> None:
    password = secured.path.with_name("wrong")
    password.write_text("sesame\n")
    password.chmod(0o600)
    for section in ("source", "sink"):
        secured.plain[section]["security"]["sasl_password_file"] = str(password)

    answer = secured.probe()

    assert 78 == answer.code
    assert f"it refuses the login of sasl_username {USER}" in answer.complaint
