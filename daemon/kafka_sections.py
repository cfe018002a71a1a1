"""Kafka's sections of the configuration: where chunks and events are, and the way there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from daemon.kafka.topics import NAME_PATTERN, check_name
from daemon.section import Section

TopicName = Annotated[
    str, AfterValidator(check_name), Field(json_schema_extra={"pattern": NAME_PATTERN})
]


class KafkaSecurityConfig(Section):
    """How to connect to the broker; what is secret is read from files."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="Security protocol: with SSL the connection is encrypted, with SASL the "
        "daemon logs in.",
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="How SASL logs in."
    )
    sasl_username: str | None = Field(
        None, min_length=1, description="User name for SASL, except for OAUTHBEARER."
    )
    sasl_password_file: Path | None = Field(
        None, description="File that holds the password for SASL, except for OAUTHBEARER."
    )
    sasl_token_file: Path | None = Field(
        None,
        description="File that holds the token (JWT) for OAUTHBEARER; it is read again at each "
        "login, so another program may renew it.",
    )
    ca_file: Path | None = Field(
        None, description="File of CA certificates for SSL, PEM; the system's if left out."
    )
    certificate_file: Path | None = Field(
        None,
        description="File of the daemon's own certificate, PEM, for brokers that ask for one "
        "(mutual TLS).",
    )
    key_file: Path | None = Field(
        None, description="File of the private key of certificate_file, PEM."
    )
    key_password_file: Path | None = Field(
        None, description="File that holds the password of key_file, if it has one."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Refuse halves, and what would silently do nothing."""
        is_tls, is_login = self.protocol.endswith("SSL"), self.protocol.startswith("SASL_")
        is_token = self.sasl_mechanism == "OAUTHBEARER"
        login = ("sasl_username", "sasl_password_file")
        token = ("sasl_token_file",)
        if not is_tls:
            tls = ("ca_file", "certificate_file", "key_file", "key_password_file")
            self._refuse(tls, f"protocol {self.protocol} is not encrypted; set SSL or SASL_SSL")
        if not is_login:
            fix = f"protocol {self.protocol} does not log in; set SASL_SSL or SASL_PLAINTEXT"
            self._refuse((*login, *token), fix)
            if self.sasl_mechanism != "PLAIN":
                raise ValueError(f"sasl_mechanism is {self.sasl_mechanism}, but {fix}")
        else:
            self._need(token if is_token else login, f"{self.protocol} with {self.sasl_mechanism}")
            unused = login if is_token else token
            self._refuse(
                unused, f"sasl_mechanism {self.sasl_mechanism} does not use it; remove it"
            )
        if self.certificate_file or self.key_file or self.key_password_file:
            self._need(("certificate_file", "key_file"), "a certificate of the daemon's own")
        return self

    def _need(self, keys: Sequence[str], what: str) -> None:
        if missing := [key for key in keys if getattr(self, key) is None]:
            raise ValueError(f"{' and '.join(missing)} must be given too for {what}")

    def _refuse(self, keys: Sequence[str], why: str) -> None:
        for key in keys:
            if getattr(self, key) is not None:
                raise ValueError(f"{key} is given, but {why}")


class KafkaSourceConfig(Section):
    """A Kafka topic of video chunks."""

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str = Field(
        description="Addresses of brokers, host:port, separated by commas."
    )
    topic: TopicName = Field(description="Topic that chunks are read from; it must exist.")
    group_id: str | None = Field(
        None,
        min_length=1,
        description="Consumer group; its members share the topic's partitions, so they should "
        "serve the same model. s2netd- and the bundle's name if left out.",
    )
    group_instance_id: TopicName | None = Field(
        None,
        description="Name of this member of the group: if it comes back within 30 s, no partition "
        "moves to another member. Made from the machine and journal.path if left out.",
    )
    session_timeout_s: float = Field(
        30,
        ge=6,
        le=300,
        description="A daemon of the group that gives no sign of life for so many seconds loses "
        "its partitions to the others.",
    )
    start: Literal["earliest", "latest"] = Field(
        "latest",
        description="Where to start while the group has no position: at the earliest record that "
        "the broker keeps, or after the latest.",
    )
    max_chunk_bytes: int = Field(
        8_388_608, ge=65_536, description="Largest record to accept, in bytes."
    )
    security: KafkaSecurityConfig = KafkaSecurityConfig()


class KafkaSinkConfig(Section):
    """A Kafka topic of event records."""

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str = Field(
        description="Addresses of brokers, host:port, separated by commas."
    )
    topic: TopicName = Field(description="Topic that event records are written to; it must exist.")
    security: KafkaSecurityConfig = KafkaSecurityConfig()
