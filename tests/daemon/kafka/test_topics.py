"""What differs between a wanted topic and one that is there, and how it is mended; no broker."""

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ConfigError
from daemon.kafka.topic_check import (
    Finding,
    Seen,
    SeenTopic,
    Tools,
    Unseen,
    differences,
)
from daemon.kafka.topics import (
    RECORD_MARGIN_BYTES,
    WantedTopic,
    chunks_topic,
    events_topic,
    latest_topic,
    state_topic,
    status_topic,
)
from daemon.produce.kafka_writer import record_bytes
from daemon.wire.facts import ChunkFacts
from daemon.wire.headers import MAX_NAME_CHARS
from daemon.wire.records import chunk_record
from tests.support.records import a_chunk

TOOLS = Tools("b:1", create="s2netd topics create --config x.yaml")
CHUNKS = chunks_topic("c", n_partitions=4, retention_hours=24, max_chunk_bytes=8_388_608)
EVENTS = events_topic("e", n_partitions=4, retention_days=7)
STATE = state_topic("s", n_partitions=4, beside="c")
LATEST = latest_topic("l", n_partitions=4, retention_days=7)
STATUS = status_topic("t", n_partitions=4)
ALTER = "kafka-configs.sh --bootstrap-server b:1 --alter --entity-type topics --entity-name"


def as_wanted(topic: WantedTopic, n_partitions: int | None = None, **config: str) -> SeenTopic:
    """What was created for it; ``config`` replaces settings, with ``_`` for ``.``."""
    other = {name.replace("_", "."): value for name, value in config.items()}
    return SeenTopic(n_partitions or topic.n_partitions, config={**topic.config, **other})


def found(
    topic: WantedTopic, seen: SeenTopic | Unseen, tools: Tools = TOOLS, **brokers: Any
) -> list[Finding]:
    return differences([topic], Seen({topic.name: seen}, **brokers), tools)


@pytest.mark.parametrize(
    ("topic", "seen", "what", "mend"),
    [
        (CHUNKS, Unseen.MISSING, "is missing", "s2netd topics create --config x.yaml"),
        (
            CHUNKS,
            Unseen.DENIED,
            "the broker does not let us look at it",
            (
                "kafka-acls.sh --bootstrap-server b:1 --add --allow-principal User:NAME "
                "--operation Describe --operation DescribeConfigs --topic c"
            ),
        ),
        (
            EVENTS,
            as_wanted(EVENTS, n_partitions=1),
            "has 1 partition(s), wanted at least 4",
            "kafka-topics.sh --bootstrap-server b:1 --alter --topic e --partitions 4",
        ),
        (
            CHUNKS,
            as_wanted(CHUNKS, cleanup_policy="compact"),
            (
                "cleanup.policy is compact, wanted delete, for compaction keeps only a camera's "
                "newest chunk"
            ),
            f"{ALTER} c --add-config cleanup.policy=delete",
        ),
        (
            EVENTS,
            as_wanted(EVENTS, cleanup_policy="compact,delete"),
            (
                "cleanup.policy is compact,delete, wanted delete, for compaction keeps only a "
                "camera's newest event"
            ),
            f"{ALTER} e --add-config cleanup.policy=delete",
        ),
        (
            CHUNKS,
            as_wanted(CHUNKS, retention_ms="5400000"),
            "retention.ms is 5400000 (1.5 h), wanted at least 86400000 (24 h)",
            f"{ALTER} c --add-config retention.ms=86400000",
        ),
        (
            EVENTS,
            as_wanted(EVENTS, retention_ms="86400000"),
            "retention.ms is 86400000 (1 d), wanted at least 604800000 (7 d)",
            f"{ALTER} e --add-config retention.ms=604800000",
        ),
        (
            CHUNKS,
            as_wanted(CHUNKS, max_message_bytes="1048588"),
            "max.message.bytes is 1048588, wanted at least 8388608",
            f"{ALTER} c --add-config max.message.bytes={8_388_608 + RECORD_MARGIN_BYTES}",
        ),
        (
            LATEST,
            as_wanted(LATEST, cleanup_policy="compact"),
            (
                "cleanup.policy is compact, wanted compact,delete, for only so it keeps one "
                "record an event, and not all"
            ),
            f"{ALTER} l --add-config 'cleanup.policy=[compact,delete]'",
        ),
    ],
)
def test_each_fault_is_named_with_the_command_that_mends_it(
    topic: WantedTopic, seen: SeenTopic | Unseen, what: str, mend: str
) -> None:
    assert [Finding(topic.subject, what, f"run: {mend}")] == found(topic, seen)


@pytest.mark.parametrize(
    ("n_chunks", "n_states", "what"),
    [
        (4, 4, None),
        (2, 2, "has 2 partition(s), wanted at least 4"),  # as the chunks should have
        (4, 8, None),
        (8, 4, "has 4 partition(s), wanted at least 8, as many as topic c has"),
    ],
)
def test_states_lie_beside_the_chunks(n_chunks: int, n_states: int, what: str | None) -> None:
    seen = {"c": SeenTopic(n_chunks), "s": SeenTopic(n_states)}

    found = differences([STATE], Seen(seen), TOOLS)

    assert ([what] if what else []) == [finding.what for finding in found]


@pytest.mark.parametrize("topic", [LATEST, STATUS])
def test_a_compacted_topic_by_key_is_never_widened(topic: WantedTopic) -> None:
    assert [] == found(topic, as_wanted(topic, n_partitions=1))


def test_the_words_of_a_policy_may_stand_in_any_order() -> None:
    assert [] == found(LATEST, as_wanted(LATEST, cleanup_policy="delete,compact"))


def test_a_limit_that_is_the_brokers_own_default_is_told_as_such() -> None:
    seen = SeenTopic(
        4,
        config={**CHUNKS.config, "max.message.bytes": "1048588"},
        inherited=frozenset({"max.message.bytes"}),
    )

    (finding,) = found(CHUNKS, seen)

    assert "max.message.bytes is 1048588 (the broker's own default), wanted" in finding.what


@pytest.mark.parametrize(
    "seen",
    [
        as_wanted(CHUNKS, n_partitions=64),
        as_wanted(CHUNKS, retention_ms="-1"),
        as_wanted(CHUNKS, retention_ms="86400001", max_message_bytes="9999999"),
        as_wanted(CHUNKS, max_message_bytes="8388608"),
        SeenTopic(4),
    ],
    ids=["more partitions", "kept for ever", "larger limits", "no margin", "nothing told"],
)
def test_what_is_larger_or_not_told_is_no_fault(seen: SeenTopic) -> None:
    assert [] == found(CHUNKS, seen)


@pytest.mark.parametrize(
    ("brokers", "copies", "lines"),
    [
        ({}, 3, []),
        ({1: {}}, 3, []),
        ({1: {"replica.fetch.max.bytes": 1_048_576}}, 1, []),
        ({1: {"replica.fetch.max.bytes": 8_388_608}}, 3, []),
        (
            {
                2: {"replica.fetch.max.bytes": 1_048_576},
                1: {"socket.request.max.bytes": 8_388_608},
            },
            3,
            [
                (
                    "broker 1: socket.request.max.bytes is 8388608, wanted at least 8404992 for "
                    "topic c; set socket.request.max.bytes=8404992 in its server.properties and "
                    "restart it"
                ),
                (
                    "advice: broker 2: replica.fetch.max.bytes is 1048576, wanted at least "
                    "8388608 for topic c; set replica.fetch.max.bytes=8388608 in its "
                    "server.properties and restart it"
                ),
            ],
        ),
    ],
)
def test_a_brokers_own_limits_are_named_where_they_are_told_and_matter(
    brokers: dict[int, dict[str, int]], copies: int, lines: list[str]
) -> None:
    seen = SeenTopic(4, copies, CHUNKS.config)

    assert lines == [each.line() for each in found(CHUNKS, seen, brokers=brokers)]
    assert [] == found(EVENTS, SeenTopic(4, copies, EVENTS.config), brokers=brokers)


def test_a_mend_carries_the_login_and_the_user_and_is_quoted_for_a_shell() -> None:
    tools = Tools("b:1, c:2", "create", has_login=True, user="gate s2netd")

    (denied,) = found(CHUNKS, Unseen.DENIED, tools)

    words = shlex.split(denied.mend)
    assert ["--bootstrap-server", "b:1, c:2"] == words[2:4]
    assert ["--command-config", "client.properties"] == words[4:6]
    assert "User:gate s2netd" in words


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "x" * 250, "a\n"])
def test_a_name_that_kafka_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"chunks topic .*Kafka allows no such name"):
        chunks_topic(name, n_partitions=1, retention_hours=1, max_chunk_bytes=65_536)


def topics() -> st.SearchStrategy[WantedTopic]:
    partitions = st.integers(1, 10_000)
    chunks = st.builds(
        chunks_topic,
        st.just("c"),
        n_partitions=partitions,
        retention_hours=st.integers(1, 87_600),
        max_chunk_bytes=st.integers(65_536, 2**40),
    )
    events = st.builds(
        events_topic,
        st.just("e"),
        n_partitions=partitions,
        retention_days=st.integers(1, 3_650),
    )
    latest = st.builds(
        latest_topic,
        st.just("l"),
        n_partitions=partitions,
        retention_days=st.integers(1, 3_650),
    )
    return chunks | events | latest


@given(topics())
def test_what_was_created_has_no_fault(topic: WantedTopic) -> None:
    assert [] == found(topic, as_wanted(topic))


@given(topics(), st.data())
def test_a_mend_sets_what_is_then_right(topic: WantedTopic, data: st.DataObject) -> None:
    numbers = st.integers(1, 2**42).map(str)
    policies = st.sampled_from(["delete", "compact", "compact,delete", ""])
    config = {
        name: data.draw(policies if name == "cleanup.policy" else numbers) for name in topic.config
    }
    n_partitions = data.draw(st.integers(1, 20_000))

    for finding in found(topic, SeenTopic(n_partitions, config=config)):
        words = shlex.split(finding.mend)
        if "--add-config" in words:
            name, _, value = words[-1].partition("=")
            value = value.strip("[]")
            assert config[name] != value
            config[name] = value
        else:
            assert n_partitions < int(words[-1])
            n_partitions = int(words[-1])

    assert [] == found(topic, SeenTopic(n_partitions, config=config))


def test_the_margin_holds_the_headers_of_the_longest_names() -> None:
    longest = "\U0001f3a5" * MAX_NAME_CHARS
    facts = ChunkFacts(
        content_type="video/" + "x" * MAX_NAME_CHARS,
        duration_us=10**17,
        n_frames=10**9,
        width=10**9,
        height=10**9,
    )

    record = chunk_record(
        a_chunk(longest, sequence=2**50, start_us=0, run=longest, payload=b""), facts, site=longest
    )

    assert record_bytes(record) < RECORD_MARGIN_BYTES
