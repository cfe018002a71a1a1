"""What of a configuration file can be checked further, even where some of it is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from daemon.config import (
    Config,
    HttpConfig,
    JournalConfig,
    ModelConfig,
    SinkConfig,
    SourceConfig,
    parse,
    read,
)
from daemon.errors import ConfigError
from daemon.kafka.connection import KafkaConnection
from daemon.kafka_sections import KafkaSecurityConfig

_UNSAID = "localhost:9092"  # stands for addresses that are wrong, and are told as such elsewhere


@dataclass(frozen=True, slots=True)
class Sections:
    """A file's sections, each None where it cannot be used.

    Attributes:
        whole: All of it; None where anything of it is wrong.
        model: Which networks.
        source: Where chunks come from.
        sink: Where events go.
        journal: Where what is known is kept.
        http: Where the daemon listens.
        access: How brokers are reached, by the section's name.
        problems: What is wrong, a line each, with the file's name.
    """

    whole: Config | None
    model: ModelConfig | None
    source: SourceConfig | None
    sink: SinkConfig | None
    journal: JournalConfig | None
    http: HttpConfig | None
    access: Mapping[str, KafkaConnection]
    problems: tuple[str, ...] = ()

    @property
    def keeps_in_file(self) -> bool:
        """Is the journal a file? As far as that can be told, where the whole is wrong."""
        if self.whole is not None:
            return not self.whole.keeps_in_kafka
        said = self.journal.kind if self.journal else None
        return said == "local" or (said is None and len(self.access) < 2)  # noqa: PLR2004


def read_sections(path: Path) -> Sections:
    """Read a file.

    Raises:
        ConfigError: It is no YAML mapping at all.
    """
    plain = read(path)
    whole: Config | None = None
    problems: tuple[str, ...] = ()
    try:
        whole = parse(plain, str(path))
    except ConfigError as error:
        problems = tuple(str(error).splitlines())
    return Sections(
        whole,
        model=_usable(ModelConfig, plain.get("model", {})),
        source=_usable(SourceConfig, plain.get("source")),
        sink=_usable(SinkConfig, plain.get("sink")),
        journal=_usable(JournalConfig, plain.get("journal", {})),
        http=_usable(HttpConfig, plain.get("http", {})),
        access={
            name: access
            for name in ("source", "sink")
            if (access := _access(plain.get(name))) is not None
        },
        problems=problems,
    )


def _usable(kind: Any, plain: object) -> Any:
    try:
        return TypeAdapter(kind).validate_python(plain)
    except ValidationError:
        return None


def _access(section: object) -> KafkaConnection | None:
    """How a section's broker is reached, if it has one, whatever else is wrong with it."""
    if not isinstance(section, dict) or section.get("kind") != "kafka":
        return None
    security = _usable(KafkaSecurityConfig, section.get("security", {}))
    if security is None:
        return None
    addresses = section.get("bootstrap_servers")
    return KafkaConnection(
        addresses if isinstance(addresses, str) else _UNSAID, **security.model_dump()
    )
