"""`s2netd topics` on a real broker: what it creates, finds, mends and says."""

import asyncio
import re
import shlex
import uuid
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.new_partitions import NewPartitions
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.protocol.admin import CreateAclsRequest

from daemon.compose import journal_settings
from daemon.config import load
from daemon.errors import ConfigError, TransportError
from daemon.journal.kafka.topics import make_topics
from daemon.kafka import topic_admin
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.topic_admin import create, look
from daemon.kafka.topic_check import Unseen
from daemon.kafka.topics import chunks_topic
from tests.support.cli import Answer, Cli, in_process
from tests.support.kafka import OwnBroker, ask, create_topics

NOBODY = "127.0.0.1:1"
# As KIP-140 and KIP-290 number them.
IS_TOPIC, IS_CLUSTER = 2, 4
IS_LITERAL, IS_PREFIX = 3, 4
EVERYTHING, TO_CREATE, TO_DESCRIBE_CONFIGS = 2, 5, 10
DENY, ALLOW = 2, 3
CHUNKS = chunks_topic("c", n_partitions=1, retention_hours=1, max_chunk_bytes=100_000)


class Topics:
    """A configuration's topics, its journal's own among them, and the command over them."""

    def __init__(self, cli: Cli, folder: Path, bootstrap: str) -> None:
        self._cli = cli
        self.bootstrap = bootstrap
        self.path = folder / "edge.yaml"
        self.chunks, self.events = (f"{kind}-{uuid.uuid4().hex}" for kind in ("chunks", "events"))
        broker = {"kind": "kafka", "bootstrap_servers": bootstrap}
        self.plain: dict[str, Any] = {
            "source": {**broker, "topic": self.chunks},
            "sink": {**broker, "topic": self.events},
            "journal": {"prefix": f"own-{uuid.uuid4().hex}"},
        }
        self.write()

    @property
    def own(self) -> dict[str, str]:
        """The journal's topics: what is in each, and its name."""
        kinds = {
            "state": "state",
            "features": "features",
            "latest": "action-events.latest",
            "status": "camera-status",
            "dlq": "dlq",
        }
        prefix = self.plain["journal"]["prefix"]
        return {role: f"{prefix}.{kind}.v1" for role, kind in kinds.items()}

    @property
    def subjects(self) -> list[str]:
        named = {"chunks": self.chunks, "events": self.events, **self.own}
        return [f"{role} topic {name}" for role, name in named.items()]

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump(self.plain))

    def run(self, verb: str, *options: object) -> Answer:
        return self._cli("topics", verb, "--config", self.path, *options)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_process(monkeypatch, capsys)


@pytest.fixture
def topics(cli: Cli, tmp_path: Path, kafka_bootstrap: str) -> Topics:
    return Topics(cli, tmp_path, kafka_bootstrap)


@pytest.mark.kafka
def test_what_create_made_is_what_check_wants_and_is_made_once(topics: Topics) -> None:
    missing = topics.run("check")
    created = topics.run("create")
    checked = topics.run("check")
    again = topics.run("create")

    mend = f"is missing; run: s2netd topics create --config {topics.path}"
    assert [78, 0, 0, 0] == [missing.code, created.code, checked.code, again.code]
    assert [f"{subject}: {mend}" for subject in topics.subjects] == missing.out.splitlines()
    made = [
        "4 partition(s), cleanup.policy=delete, retention.ms=86400000, max.message.bytes=8404992",
        "4 partition(s), cleanup.policy=delete, retention.ms=604800000",
        (
            "4 partition(s), cleanup.policy=compact, segment.bytes=16777216, segment.ms=3600000, "
            "min.cleanable.dirty.ratio=0.1"
        ),
        "4 partition(s), cleanup.policy=delete, retention.ms=86400000",
        (
            "4 partition(s), cleanup.policy=compact,delete, retention.ms=604800000, "
            "segment.ms=21600000"
        ),
        "4 partition(s), cleanup.policy=compact, segment.ms=3600000",
        "1 partition(s), cleanup.policy=delete, retention.ms=604800000, max.message.bytes=8421376",
    ]
    assert [
        f"{subject}: created with {settings}"
        for subject, settings in zip(topics.subjects, made, strict=True)
    ] == created.out.splitlines()
    assert [f"{subject}: ok" for subject in topics.subjects] == checked.out.splitlines()
    assert 7 == again.out.count("is there, and left as it is")
    assert "" == missing.err + created.err + checked.err + again.err


@pytest.mark.kafka
def test_what_lies_beside_the_chunks_follows_their_partitions_and_nothing_else_does(
    topics: Topics,
) -> None:
    topics.run("create")
    wider = {topics.chunks: NewPartitions(6)}
    ask(topics.bootstrap, lambda admin: admin.create_partitions(wider))

    before = topics.run("check")
    mend_all(topics, before)
    after = topics.run("check")

    alter = f"run: kafka-topics.sh --bootstrap-server {topics.bootstrap} --alter --topic"
    assert [78, 0] == [before.code, after.code], after.out
    assert [
        (
            f"{role} topic {topics.own[role]}: has 4 partition(s), wanted at least 6, as many as "
            f"topic {topics.chunks} has; {alter} {topics.own[role]} --partitions 6"
        )
        for role in ("state", "features")
    ] == [line for line in before.out.splitlines() if "run: " in line]


@pytest.mark.kafka
def test_what_is_made_later_lies_beside_chunks_of_other_partitions(topics: Topics) -> None:
    topics.run("create", "--partitions", 6)
    state = topics.own["state"]
    ask(topics.bootstrap, lambda admin: admin.delete_topics([state]))

    topics.run("create")

    assert "ok" in next(x for x in topics.run("check").out.splitlines() if state in x)


@pytest.mark.kafka
def test_options_are_held_to_and_told_in_the_mend(topics: Topics) -> None:
    options = ("--partitions", 6, "--chunk-retention-hours", 2, "--event-retention-days", 1)

    missing = topics.run("check", *options)
    topics.run("create", *options, "--replication-factor", 1)

    assert f"run: s2netd topics create --config {topics.path} {shlex.join(map(str, options))}" in (
        missing.out
    )
    assert 0 == topics.run("check", *options).code
    alter = f"run: kafka-configs.sh --bootstrap-server {topics.bootstrap} --alter"
    assert [
        (
            f"chunks topic {topics.chunks}: retention.ms is 7200000 (2 h), wanted at least "
            f"86400000 (24 h); {alter} --entity-type topics --entity-name {topics.chunks} "
            "--add-config retention.ms=86400000"
        ),
        (
            f"events topic {topics.events}: retention.ms is 86400000 (1 d), wanted at least "
            f"604800000 (7 d); {alter} --entity-type topics --entity-name {topics.events} "
            "--add-config retention.ms=604800000"
        ),
    ] == [x for x in topics.run("check").out.splitlines() if "retention.ms" in x]


@pytest.mark.kafka
def test_each_wrong_setting_is_named_and_its_mend_mends_it(topics: Topics) -> None:
    wrong = {"cleanup.policy": "compact", "retention.ms": "1000", "max.message.bytes": "50000"}
    ask(
        topics.bootstrap,
        lambda admin: create_topics(admin, NewTopic(topics.chunks, 1, 1, topic_configs=wrong)),
    )
    topics.run("create")

    before = topics.run("check")
    mend_all(topics, before)
    after = topics.run("check")

    assert (78, 0) == (before.code, after.code), after.out
    subject = f"chunks topic {topics.chunks}: "
    wrong_ones = ("has 1 ", "cleanup.policy is ", "retention.ms is ", "max.message.bytes is ")
    lines = [line for line in before.out.splitlines() if line.startswith(subject)]
    for line, start in zip(lines, wrong_ones, strict=True):
        assert line.startswith(subject + start)
    assert f"events topic {topics.events}: ok" in before.out


@pytest.mark.kafka
def test_wrong_policies_of_the_journals_topics_are_named_and_mended(topics: Topics) -> None:
    policies = {"state": "delete", "features": "compact", "latest": "compact", "status": "delete"}
    new = [
        NewTopic(topics.own[role], 4, 1, topic_configs={"cleanup.policy": policy})
        for role, policy in policies.items()
    ]
    ask(topics.bootstrap, lambda admin: create_topics(admin, *new))
    topics.run("create")

    before = topics.run("check")
    mend_all(topics, before)
    after = topics.run("check")

    assert [78, 0] == [before.code, after.code], after.out
    for role, policy in policies.items():
        line = f"{role} topic {topics.own[role]}: cleanup.policy is {policy}, wanted "
        assert line in before.out
    assert "--add-config 'cleanup.policy=[compact,delete]'" in before.out


def mend_all(topics: Topics, checked: Answer) -> None:
    for line in checked.out.splitlines():
        _, is_mend, command = line.partition("; run: ")
        if is_mend:
            ask(topics.bootstrap, partial(altered, words=shlex.split(command)))


async def altered(admin: Any, words: list[str]) -> None:
    """Do what the command line would do; the broker's tools take seconds each to start.

    The broker hears from its controller a moment later, so that is waited for.
    """
    options = dict(pairwise(words))
    topic = options["--topic"] if words[0] == "kafka-topics.sh" else options["--entity-name"]
    if words[0] == "kafka-topics.sh":
        n_partitions = int(options["--partitions"])
        await admin.create_partitions({topic: NewPartitions(n_partitions)})
        while len((await admin.describe_topics([topic]))[0]["partitions"]) < n_partitions:
            await asyncio.sleep(0.05)
        return
    assert "kafka-configs.sh" == words[0]
    name, _, value = options["--add-config"].partition("=")
    value = value.strip("[]")
    # Unlike the tool, this request resets what it does not name.
    wanted = {**await own_settings(admin, topic), name: value}
    (answer,) = await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic, wanted)]
    )
    assert 0 == answer.resources[0][0], answer
    while wanted != await own_settings(admin, topic):
        await asyncio.sleep(0.05)


async def own_settings(admin: Any, topic: str) -> dict[str, str]:
    asked = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {each[0]: each[1] for each in asked[0].resources[0][4] if each[3] == 1}


@pytest.mark.kafka
def test_a_limit_of_the_broker_is_told_as_its_own_and_a_topic_may_go_beyond(
    topics: Topics,
) -> None:
    topics.plain["source"]["max_chunk_bytes"] = 9_000_000  # our broker's message.max.bytes is less
    topics.write()
    ask(topics.bootstrap, lambda admin: create_topics(admin, NewTopic(topics.chunks, 4, 1)))

    answer = topics.run("check")

    assert (
        f"chunks topic {topics.chunks}: max.message.bytes is 8388608 (the broker's own default), "
        "wanted at least 9000000; run: "
    ) in answer.out


@pytest.mark.kafka
async def test_a_topic_that_was_created_takes_the_largest_chunk(kafka_bootstrap: str) -> None:
    connection = KafkaConnection(kafka_bootstrap)
    topic = chunks_topic(
        f"c-{uuid.uuid4().hex}", n_partitions=1, retention_hours=1, max_chunk_bytes=9_000_000
    )

    assert [True, False] == [await create(connection, topic, -1) for _ in range(2)]

    producer = AIOKafkaProducer(**connection.options(), max_request_size=2**26)
    await producer.start()
    try:
        await producer.send_and_wait(topic.name, bytes(9_000_000), b"door")
    finally:
        await producer.stop()


@pytest.mark.kafka
def test_what_the_broker_refuses_is_one_line_and_must_be_changed(topics: Topics) -> None:
    answer = topics.run("create", "--replication-factor", 3)

    assert 78 == answer.code
    assert f"chunks topic {topics.chunks}: the broker refuses it: " in answer.complaint


@pytest.mark.kafka
def test_looking_creates_no_topic_and_missing_rights_are_named(
    cli: Cli, tmp_path: Path, own_broker: OwnBroker
) -> None:
    topics = Topics(cli, tmp_path, start_with_rules(own_broker, tmp_path))

    assert 7 == topics.run("check").out.count("is missing")
    ask(topics.bootstrap, lambda admin: denied(admin, topics.chunks))
    checked, created = topics.run("check"), topics.run("create")

    acls = (
        f"run: kafka-acls.sh --bootstrap-server {topics.bootstrap} --add --allow-principal "
        "User:NAME"
    )
    assert [78, 78] == [checked.code, created.code], created.err
    assert [
        (
            f"chunks topic {topics.chunks}: the broker does not let us look at it; {acls} "
            f"--operation Describe --operation DescribeConfigs --topic {topics.chunks}"
        ),
        (
            f"events topic {topics.events}: is missing; run: s2netd topics create --config "
            f"{topics.path}"
        ),
    ] == checked.out.splitlines()[:2]
    assert [
        (
            f"chunks topic {topics.chunks}: the broker does not let us create it; {acls} "
            f"--operation Create --topic {topics.chunks}"
        ),
        (
            f"events topic {topics.events}: created with 4 partition(s), cleanup.policy=delete, "
            "retention.ms=604800000"
        ),
    ] == created.out.splitlines()[:2]


async def denied(admin: Any, topic: str) -> None:
    """Let nobody look at the topic's settings or create it.

    Once a resource has rules, what they do not allow is denied, even what the broker itself does.
    """
    await put_rules(
        admin,
        (IS_CLUSTER, "kafka-cluster", IS_LITERAL, EVERYTHING, ALLOW),
        (IS_CLUSTER, "kafka-cluster", IS_LITERAL, TO_CREATE, DENY),
        (IS_TOPIC, topic, IS_LITERAL, TO_CREATE, DENY),
        (IS_TOPIC, topic, IS_LITERAL, TO_DESCRIBE_CONFIGS, DENY),
    )


async def put_rules(admin: Any, *rules: tuple[int, str, int, int, int]) -> None:
    for kind, name, pattern, operation, permission in rules:
        request = CreateAclsRequest(
            kind, name, pattern, "User:ANONYMOUS", "*", operation, permission
        )
        answer = await admin._send_request(request)
        assert 0 == answer.creation_responses[0][0], answer


def start_with_rules(broker: OwnBroker, folder: Path) -> str:
    """Start a broker that makes topics unasked, and lets everybody do what no rule is about."""
    broker.start()
    broker.run("stop")
    with (folder / "kafka" / "server.properties").open("a") as properties:
        properties.write(
            "auto.create.topics.enable=true\n"
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
            "allow.everyone.if.no.acl.found=true\n"
        )
    return broker.start()


@pytest.mark.kafka
def test_a_daemon_that_may_not_create_takes_the_topics_that_are_there(
    cli: Cli, tmp_path: Path, own_broker: OwnBroker
) -> None:
    topics = Topics(cli, tmp_path, start_with_rules(own_broker, tmp_path))
    settings = journal_settings(load(topics.path))
    assert settings is not None
    topics.run("create")
    ask(
        topics.bootstrap,
        lambda admin: put_rules(
            admin,
            (IS_CLUSTER, "kafka-cluster", IS_LITERAL, EVERYTHING, ALLOW),
            (IS_CLUSTER, "kafka-cluster", IS_LITERAL, TO_CREATE, DENY),
            (IS_TOPIC, settings.prefix, IS_PREFIX, EVERYTHING, ALLOW),
            (IS_TOPIC, settings.prefix, IS_PREFIX, TO_CREATE, DENY),
        ),
    )

    asyncio.run(make_topics(settings, 4))

    ask(topics.bootstrap, lambda admin: admin.delete_topics([settings.latest_topic]))
    told = f"{settings.latest_topic}: the broker does not let us create it; run `s2netd topics"
    with pytest.raises(ConfigError, match=re.escape(told)):
        asyncio.run(make_topics(settings, 4))


def test_a_configuration_without_kafka_is_told_so(cli: Cli, tmp_path: Path) -> None:
    topics = Topics(cli, tmp_path, NOBODY)
    topics.plain["source"] = {"kind": "directory", "path": "chunks"}
    topics.plain["sink"] = {"kind": "jsonl", "path": "events.jsonl"}
    topics.write()

    for verb in ("create", "check"):
        answer = topics.run(verb)
        assert 78 == answer.code
        assert "neither source nor sink is of kind kafka" in answer.complaint


@pytest.mark.parametrize(
    ("section", "key", "value", "told"),
    [
        ("sink", "topic", "same", "same is to be the topic of chunks and of events"),
        ("sink", "topic", "two words", "sink.kafka.topic: 'two words': Kafka allows no such name"),
        ("sink", "bootstrap_servers", "a:b", "bootstrap_servers is 'a:b', wanted host:port"),
        ("source", "tropic", "x", "source.kafka.tropic: unknown key"),
    ],
)
def test_what_cannot_work_is_one_line_before_a_broker_is_asked(
    cli: Cli, tmp_path: Path, section: str, key: str, value: str, told: str
) -> None:
    topics = Topics(cli, tmp_path, NOBODY)
    topics.plain["source"]["topic"] = "same"
    if key == "bootstrap_servers":
        topics.plain["source"] = {"kind": "directory", "path": "chunks"}
    topics.plain[section][key] = value
    topics.write()

    answer = topics.run("check")

    assert 78 == answer.code
    assert told in answer.complaint


async def test_a_broker_that_is_not_there_is_given_up_at_the_connections_deadline() -> None:
    connection = KafkaConnection(NOBODY, connect_timeout_s=1)

    for attempt in (look(connection, [CHUNKS]), create(connection, CHUNKS, -1)):
        with pytest.raises(TransportError, match=r"chunks topic c: .*gave up after 1 s"):
            await attempt


@pytest.mark.slow
def test_an_unreachable_broker_is_one_line(cli: Cli, tmp_path: Path) -> None:
    answer = Topics(cli, tmp_path, NOBODY).run("check")

    assert (1, "") == (answer.code, answer.out)
    assert f"Kafka at {NOBODY}: chunks topic chunks-" in answer.complaint
    assert "is the broker running" in answer.complaint


@pytest.mark.kafka
async def test_a_topic_that_is_missing_is_seen_to_be(kafka_bootstrap: str) -> None:
    seen = await look(KafkaConnection(kafka_bootstrap), [CHUNKS])

    assert {"c": Unseen.MISSING} == seen.topics
    assert {"replica.fetch.max.bytes", "socket.request.max.bytes"} == set(
        *map(frozenset, seen.brokers.values())
    )


@pytest.mark.kafka
async def test_a_topic_that_was_created_is_seen_at_once(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a broker, too, that hears of it only after it has been asked twice."""
    wanted = replace(CHUNKS, name=f"chunks-{uuid.uuid4().hex}")
    asked: list[str] = []
    settings = topic_admin._settings

    async def late(admin: Any, kind: Any, name: str, names: Any) -> tuple[int, list[Any]]:
        asked.append(name)
        if len(asked) <= 2:
            return UnknownTopicOrPartitionError.errno, []
        return await settings(admin, kind, name, names)

    monkeypatch.setattr(topic_admin, "_settings", late)
    assert await create(KafkaConnection(kafka_bootstrap), wanted, 1)
    assert [wanted.name] * 3 == asked
