"""What a topic should be, against what it is: plain values in, findings with their mends out.

Reaches no broker; ``daemon.kafka.topic_admin`` looks.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from daemon.kafka.topics import RECORD_MARGIN_BYTES, AtLeast, Exactly, Fresh, WantedTopic

BROKER_LIMITS = ("replica.fetch.max.bytes", "socket.request.max.bytes")


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
    found = [each for topic in wanted for each in _of_topic(topic, seen.topics, tools)]
    for topic in wanted:
        found += _of_brokers(topic, seen)
    return found


def _of_topic(
    wanted: WantedTopic, others: Mapping[str, SeenTopic | Unseen], tools: Tools
) -> Iterator[Finding]:
    seen = others[wanted.name]
    if seen is Unseen.MISSING:
        yield Finding(wanted.subject, "is missing", f"run: {tools.create}")
    elif seen is Unseen.DENIED:
        mend = tools.allow(wanted.name, "Describe", "DescribeConfigs")
        yield Finding(wanted.subject, "the broker does not let us look at it", f"run: {mend}")
    else:
        yield from _of_partitions(wanted, seen, tools, others)
        for setting in wanted.settings:
            yield from _of_setting(wanted, setting, seen, tools)


def _of_partitions(
    wanted: WantedTopic,
    seen: SeenTopic,
    tools: Tools,
    others: Mapping[str, SeenTopic | Unseen],
) -> Iterator[Finding]:
    n_least, why = (1 if wanted.any_partitions else wanted.n_partitions), ""
    other = others.get(wanted.beside or "")
    if isinstance(other, SeenTopic) and other.n_partitions > n_least:
        n_least, why = other.n_partitions, f", as many as topic {wanted.beside} has"
    if seen.n_partitions < n_least:
        alter = ("--alter", "--topic", wanted.name, "--partitions", str(n_least))
        yield Finding(
            wanted.subject,
            f"has {seen.n_partitions} partition(s), wanted at least {n_least}{why}",
            f"run: {tools.kafka('kafka-topics', *alter)}",
        )


def _of_setting(
    wanted: WantedTopic, setting: AtLeast | Exactly | Fresh, seen: SeenTopic, tools: Tools
) -> Iterator[Finding]:
    value = seen.config.get(setting.name)
    if value is None or setting.holds(value):
        return
    alter = ("--alter", "--entity-type", "topics", "--entity-name", wanted.name)
    add = ("--add-config", f"{setting.name}={_for_tools(setting.value)}")
    whose = " (the broker's own default)" if setting.name in seen.inherited else ""
    yield Finding(
        wanted.subject,
        f"{setting.name} is {setting.told(value)}{whose}, wanted {setting.wish()}",
        f"run: {tools.kafka('kafka-configs', *alter, *add)}",
    )


def _for_tools(value: object) -> str:
    """A value as kafka-configs.sh wants it, which takes a comma for the end of a setting."""
    return f"[{value}]" if "," in str(value) else str(value)


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
