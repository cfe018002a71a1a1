"""What each topic should be. A further topic is one more function like ``chunks_topic``.

Reaches no broker: ``daemon.kafka.topic_check`` compares, ``daemon.kafka.topic_admin`` creates.
"""

import re
from dataclasses import dataclass

from daemon.errors import ConfigError

RECORD_MARGIN_BYTES = (
    16_384  # key, headers and Kafka's own bytes, with the longest names there are
)

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_FOREVER = "-1"
NAME_PATTERN = r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$"
_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))


def check_name(name: str) -> str:
    """A topic's name, or that of a group's member, for which Kafka has the same rule.

    Raises:
        ValueError: Kafka allows no such name.
    """
    if not _NAME.match(name):
        raise ValueError(
            f"{name!r:.300}: Kafka allows no such name, wanted 1..249 letters, digits, '.', '_' "
            "and '-', and more than one or two dots"
        )
    return name


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
        """Is this value right? A list's words may stand in any order."""
        return sorted(seen.split(",")) == sorted(self.value.split(","))

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
        beside: A topic that it must have as many partitions as, or more, for what belongs together
            lies under the same number in both; None: there is none.
        any_partitions: Fewer partitions are right too, and more of them would do harm: records
            of one key would lie in two partitions, and compaction would keep both.

    Raises:
        ConfigError: Kafka allows no such name.
    """

    role: str
    name: str
    n_partitions: int
    settings: tuple[AtLeast | Exactly | Fresh, ...]
    largest_bytes: int | None = None
    beside: str | None = None
    any_partitions: bool = False

    def __post_init__(self) -> None:
        try:
            check_name(self.name)
        except ValueError as error:
            raise ConfigError(f"{self.role} topic {error}") from error

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


def state_topic(name: str, *, n_partitions: int, beside: str | None = None) -> WantedTopic:
    """The journal's topic of cameras' states, keyed by camera, beside the chunks.

    Whoever takes a partition reads all of it, so it is compacted soon and in small parts.
    """
    settings = (
        Exactly("cleanup.policy", "compact", "a camera's newest state must stay for ever"),
        Fresh("segment.bytes", 16 * 2**20),
        Fresh("segment.ms", _HOUR_MS),
        Fresh("min.cleanable.dirty.ratio", "0.1"),
    )
    return WantedTopic("state", name, n_partitions, settings, beside=beside)


def features_topic(
    name: str, *, n_partitions: int, retention_hours: int, beside: str | None = None
) -> WantedTopic:
    """The journal's topic of features, keyed by camera, beside the chunks."""
    retention_ms = retention_hours * _HOUR_MS
    settings = (
        Exactly("cleanup.policy", "delete", "compaction keeps only a camera's newest features"),
        AtLeast("retention.ms", retention_ms, _HOUR_MS, ("h", _HOUR_MS)),
    )
    return WantedTopic("features", name, n_partitions, settings, beside=beside)


def latest_topic(name: str, *, n_partitions: int, retention_days: int) -> WantedTopic:
    """The journal's topic of each event's newest revision, keyed by event.

    It is compacted, so that whoever comes late reads little; closed events go after a time, as
    nothing is said of them again.
    """
    retention_ms = retention_days * _DAY_MS
    settings = (
        Exactly(
            "cleanup.policy", "compact,delete", "only so it keeps one record an event, and not all"
        ),
        AtLeast("retention.ms", retention_ms, _DAY_MS, ("d", _DAY_MS)),
        Fresh("segment.ms", 6 * _HOUR_MS),
    )
    return WantedTopic("latest", name, n_partitions, settings, any_partitions=True)


def status_topic(name: str, *, n_partitions: int) -> WantedTopic:
    """The journal's topic of how each camera is, keyed by camera."""
    settings = (
        Exactly("cleanup.policy", "compact", "a camera's newest status must stay for ever"),
        Fresh("segment.ms", _HOUR_MS),
    )
    return WantedTopic("status", name, n_partitions, settings, any_partitions=True)


def dead_topic(
    name: str, *, n_partitions: int, retention_days: int, max_record_bytes: int
) -> WantedTopic:
    """The journal's topic of records that could not be used, with their own bytes."""
    retention_ms = retention_days * _DAY_MS
    settings = (
        Exactly("cleanup.policy", "delete", "compaction keeps only a camera's newest record"),
        AtLeast("retention.ms", retention_ms, retention_ms, ("d", _DAY_MS)),
        # Its own headers, and those that say why it lies here.
        AtLeast("max.message.bytes", max_record_bytes + 2 * RECORD_MARGIN_BYTES, max_record_bytes),
    )
    return WantedTopic("dlq", name, n_partitions, settings, max_record_bytes)
