"""What a topic should be, against what it is: plain values in, findings with their mends out.

Reaches no broker; ``daemon.kafka.topic_admin`` looks, and creates. A further topic is one more
function like ``chunks_topic``.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from daemon.errors import ConfigError

RECORD_MARGIN_BYTES = (
    16_384  # key, headers and Kafka's own bytes, with the longest names there are
)
BROKER_LIMITS = ("replica.fetch.max.bytes", "socket.request.max.bytes")

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_FOREVER = "-1"
_TOPIC_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A number that may be larger than wanted.

    Attributes:
        name: Kafka's name of the setting.
        value: What a new topic gets, and what a wrong one should get.
        least: What is accepted.
        unit: A larger unit for people: its name, and how many make one.
    """

    name: str
    value: int
    least: int
    unit: tuple[str, int] | None = None

    def holds(self, seen: str) -> bool:
        """Is this value right?"""
        return seen == _FOREVER or int(seen) >= self.least

    def wish(self) -> str:
        """What is wanted, for people."""
        return f"at least {self.told(str(self.least))}"

    def told(self, seen: str) -> str:
        """A value, for people."""
        if self.unit is None:
            return seen
        name, size = self.unit
        return f"{seen} ({int(seen) / size:.3g} {name})"


@dataclass(frozen=True, slots=True)
class Exactly:
    """A word that must be this one.

    Attributes:
        name: Kafka's name of the setting.
        value: The word.
        reason: What goes wrong with another one.
    """

    name: str
    value: str
    reason: str

    def holds(self, seen: str) -> bool:
        """Is this value right?"""
        return seen == self.value

    def wish(self) -> str:
        """What is wanted, for people."""
        return f"{self.value}, for {self.reason}"

    def told(self, seen: str) -> str:
        """A value, for people."""
        return seen or "empty"


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a new topic gets; any other value is right too.

    Attributes:
        name: Kafka's name of the setting.
        value: The value.
    """

    name: str
    value: int | str

    def holds(self, seen: str) -> bool:  # noqa: ARG002 - any value is right
        """Is this value right?"""
        return True

    def wish(self) -> str:
        """What is wanted, for people."""
        return "any value"

    def told(self, seen: str) -> str:
        """A value, for people."""
        return seen


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """What a topic should be.

    Attributes:
        role: What is in it, in one word.
        name: Its name.
        n_partitions: How many partitions a new one gets; more of them are right too.
        settings: Its settings.
        largest_bytes: The largest record that it must take, without headers; None: any topic
            takes its records.

    Raises:
        ConfigError: Kafka allows no such name.
    """

    role: str
    name: str
    n_partitions: int
    settings: tuple[AtLeast | Exactly | Fresh, ...]
    largest_bytes: int | None = None

    def __post_init__(self) -> None:
        if not _TOPIC_NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.role} topic {self.name!r}: Kafka allows no such name, wanted 1..249 "
                "letters, digits, '.', '_' and '-'"
            )

    @property
    def subject(self) -> str:
        """The topic in a line for people."""
        return f"{self.role} topic {self.name}"

    @property
    def config(self) -> dict[str, str]:
        """The settings of a new one."""
        return {each.name: str(each.value) for each in self.settings}


def chunks_topic(
    name: str, *, n_partitions: int, retention_hours: int, max_chunk_bytes: int
) -> WantedTopic:
    """The topic of video chunks, keyed by camera."""
    retention_ms = retention_hours * _HOUR_MS
    settings = (
        Exactly("cleanup.policy", "delete", "compaction keeps only a camera's newest chunk"),
        AtLeast("retention.ms", retention_ms, retention_ms, ("h", _HOUR_MS)),
        AtLeast("max.message.bytes", max_chunk_bytes + RECORD_MARGIN_BYTES, max_chunk_bytes),
    )
    return WantedTopic("chunks", name, n_partitions, settings, max_chunk_bytes)


def events_topic(name: str, *, n_partitions: int, retention_days: int) -> WantedTopic:
    """The topic of action events, every revision of them, keyed by camera."""
    retention_ms = retention_days * _DAY_MS
    settings = (
        Exactly("cleanup.policy", "delete", "compaction keeps only a camera's newest event"),
        AtLeast("retention.ms", retention_ms, retention_ms, ("d", _DAY_MS)),
    )
    return WantedTopic("events", name, n_partitions, settings)


def state_topic(name: str, *, n_partitions: int) -> WantedTopic:
    """The journal's topic of cameras' states, keyed by camera, beside the chunks.

    Whoever takes a partition reads all of it, so it is compacted soon and in small parts.
    """
    settings = (
        Exactly("cleanup.policy", "compact", "a camera's newest state must stay for ever"),
        Fresh("segment.bytes", 16 * 2**20),
        Fresh("segment.ms", _HOUR_MS),
        Fresh("min.cleanable.dirty.ratio", "0.1"),
    )
    return WantedTopic("state", name, n_partitions, settings)


def features_topic(name: str, *, n_partitions: int, retention_hours: int) -> WantedTopic:
    """The journal's topic of features, keyed by camera, beside the chunks."""
    retention_ms = retention_hours * _HOUR_MS
    settings = (
        Exactly("cleanup.policy", "delete", "compaction keeps only a camera's newest features"),
        AtLeast("retention.ms", retention_ms, _HOUR_MS, ("h", _HOUR_MS)),
    )
    return WantedTopic("features", name, n_partitions, settings)


def dead_topic(
    name: str, *, n_partitions: int, retention_days: int, max_record_bytes: int
) -> WantedTopic:
    """The journal's topic of records that could not be used, with their own bytes."""
    retention_ms = retention_days * _DAY_MS
    settings = (
        Exactly("cleanup.policy", "delete", "compaction keeps only a camera's newest record"),
        AtLeast("retention.ms", retention_ms, retention_ms, ("d", _DAY_MS)),
        AtLeast("max.message.bytes", max_record_bytes + RECORD_MARGIN_BYTES, max_record_bytes),
    )
    return WantedTopic("dlq", name, n_partitions, settings, max_record_bytes)


@dataclass(frozen=True, slots=True)
class SeenTopic:
    """What a topic is.

    Attributes:
        n_partitions: How many partitions it has.
        replication_factor: On how many brokers each of them lies.
        config: What holds for it, by Kafka's names; what the broker does not tell is left out.
        inherited: The names of those settings that are the broker's own and not the topic's.
    """

    n_partitions: int
    replication_factor: int = 1
    config: Mapping[str, str] = field(default_factory=dict)
    inherited: frozenset[str] = frozenset()


class Unseen(Enum):
    """Why nothing is known of a topic."""

    MISSING = auto()
    DENIED = auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one cluster is.

    Attributes:
        topics: What there is of each topic that was asked for, by name.
        brokers: ``BROKER_LIMITS`` of each broker that tells them, by its number.
    """

    topics: Mapping[str, SeenTopic | Unseen]
    brokers: Mapping[int, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tools:
    """How commands that mend something are written.

    Attributes:
        bootstrap_servers: The broker's address.
        create: The command that creates what is missing.
        has_login: Whether the broker's own tools need a file with a login.
        user: Who we are to the broker; None: not known.
    """

    bootstrap_servers: str
    create: str
    has_login: bool = False
    user: str | None = None

    def kafka(self, tool: str, *words: str) -> str:
        """A command line of one of the broker's own tools."""
        login = ("--command-config", "client.properties") if self.has_login else ()
        line = (f"{tool}.sh", "--bootstrap-server", self.bootstrap_servers, *login, *words)
        return shlex.join(line)

    def allow(self, topic: str, *operations: str) -> str:
        """A command line that gives us rights to a topic."""
        named = [word for operation in operations for word in ("--operation", operation)]
        user = f"User:{self.user or 'NAME'}"
        return self.kafka(
            "kafka-acls", "--add", "--allow-principal", user, *named, "--topic", topic
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        subject: The topic or broker.
        what: What was seen and what is wanted.
        mend: What to do.
        is_wrong: False for advice: all works as it is, but not as well.
    """

    subject: str
    what: str
    mend: str
    is_wrong: bool = True

    def line(self) -> str:
        """All of it, for people."""
        advice = "" if self.is_wrong else "advice: "
        return f"{advice}{self.subject}: {self.what}; {self.mend}"


def differences(wanted: Sequence[WantedTopic], seen: Seen, tools: Tools) -> list[Finding]:
    """Name everything that is not as wanted, topic by topic, and then the brokers.

    Args:
        wanted: The topics of one cluster.
        seen: What there is of each of them.
        tools: How the mends are written.
    """
    found = [each for topic in wanted for each in _of_topic(topic, seen.topics[topic.name], tools)]
    for topic in wanted:
        found += _of_brokers(topic, seen)
    return found


def _of_topic(wanted: WantedTopic, seen: SeenTopic | Unseen, tools: Tools) -> Iterator[Finding]:
    if seen is Unseen.MISSING:
        yield Finding(wanted.subject, "is missing", f"run: {tools.create}")
    elif seen is Unseen.DENIED:
        mend = tools.allow(wanted.name, "Describe", "DescribeConfigs")
        yield Finding(wanted.subject, "the broker does not let us look at it", f"run: {mend}")
    else:
        yield from _of_partitions(wanted, seen, tools)
        for setting in wanted.settings:
            yield from _of_setting(wanted, setting, seen, tools)


def _of_partitions(wanted: WantedTopic, seen: SeenTopic, tools: Tools) -> Iterator[Finding]:
    if seen.n_partitions < wanted.n_partitions:
        n = str(wanted.n_partitions)
        alter = ("--alter", "--topic", wanted.name, "--partitions", n)
        yield Finding(
            wanted.subject,
            f"has {seen.n_partitions} partition(s), wanted at least {n}",
            f"run: {tools.kafka('kafka-topics', *alter)}",
        )


def _of_setting(
    wanted: WantedTopic, setting: AtLeast | Exactly | Fresh, seen: SeenTopic, tools: Tools
) -> Iterator[Finding]:
    value = seen.config.get(setting.name)
    if value is None or setting.holds(value):
        return
    alter = ("--alter", "--entity-type", "topics", "--entity-name", wanted.name)
    add = ("--add-config", f"{setting.name}={setting.value}")
    whose = " (the broker's own default)" if setting.name in seen.inherited else ""
    yield Finding(
        wanted.subject,
        f"{setting.name} is {setting.told(value)}{whose}, wanted {setting.wish()}",
        f"run: {tools.kafka('kafka-configs', *alter, *add)}",
    )


def _of_brokers(wanted: WantedTopic, seen: Seen) -> Iterator[Finding]:
    """The limits that no topic overrides; message.max.bytes is only a default of the topic's."""
    if wanted.largest_bytes is None:
        return
    topic, least = seen.topics[wanted.name], wanted.largest_bytes
    is_copied = isinstance(topic, SeenTopic) and topic.replication_factor > 1
    # A larger request ends the connection. A larger record is copied all the same, but alone.
    limits = {
        "socket.request.max.bytes": (least + RECORD_MARGIN_BYTES, True),
        **({"replica.fetch.max.bytes": (least, False)} if is_copied else {}),
    }
    for number, broker in sorted(seen.brokers.items()):
        for name, (wish, is_wrong) in limits.items():
            value = broker.get(name, wish)
            if value < wish:
                yield Finding(
                    f"broker {number}",
                    f"{name} is {value}, wanted at least {wish} for topic {wanted.name}",
                    f"set {name}={wish} in its server.properties and restart it",
                    is_wrong,
                )
