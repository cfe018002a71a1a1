"""What the Kafka clients share: address, security, and tries up to a deadline."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    for_code,
)

from daemon.cancellation import own_cancellation
from daemon.errors import ConfigError, TransportError
from daemon.kafka.clients import admin_of
from daemon.kafka.credentials import TokenFile, tls_context
from daemon.kafka.membership import NameTakenError
from daemon.kafka.reasons import refusal
from daemon.kafka.rights import MISSING_RIGHTS, check_topic_right, missing_right
from daemon.outages import Outage
from daemon.secret_files import read_secret

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_LOOK_AFTER_S = 2.0
_ADDRESS = re.compile(
    r"(\[[^\]]+\]|[^:\s]+)(?::([1-9][0-9]{0,4}))?"
)  # the default is Kafka's port
_PORTS = 65_536

_CHECK = "is the broker running, and is bootstrap_servers its address as seen from here?"
_LOGIN_REFUSALS = (
    AuthenticationFailedError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

T = TypeVar("T")


class RefusedError(ConfigError):
    """The broker turns us away: it takes no login, certificate or right of ours."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """How to reach a broker; what is secret is read from files, see ``daemon.secret_files``.

    Attributes:
        bootstrap_servers: ``host:port``; several are separated by commas.
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
        sasl_username: User name for SASL.
        sasl_password_file: File that holds the password for SASL.
        sasl_token_file: File that holds the token for OAUTHBEARER.
        ca_file: File of CA certificates, PEM; None: the system's.
        certificate_file: File of the daemon's own certificate for mutual TLS, PEM.
        key_file: File of that certificate's private key, PEM.
        key_password_file: File that holds the password of that key; None: it has none.
        connect_timeout_s: Seconds to try before giving up, at the start and later.
    """

    bootstrap_servers: str
    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password_file: Path | None = None
    sasl_token_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None
    connect_timeout_s: float = 30.0

    def options(self) -> dict[str, Any]:
        """Keyword arguments for an aiokafka client; the files are read anew for every client.

        Raises:
            ConfigError: An address or file cannot be used, or SASL lacks a user or password.
        """
        self._check_addresses()
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.protocol,
        }
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = tls_context(
                self.ca_file, self.certificate_file, self.key_file, self.key_password_file
            )
        if self.protocol.startswith("SASL_"):
            options |= {"sasl_mechanism": self.sasl_mechanism, **self._login()}
        return options

    def _check_addresses(self) -> None:
        """Refuse here what would be a client's ValueError, or a search for a host without name."""
        for address in self.bootstrap_servers.split(","):
            match = _ADDRESS.fullmatch(address.strip())
            if match is None or int(match[2] or 1) >= _PORTS or not _is_host(match[1]):
                raise ConfigError(
                    f"bootstrap_servers is {self.bootstrap_servers!r}, wanted host:port, several "
                    "separated by commas"
                )

    def _login(self) -> dict[str, Any]:
        if self.sasl_mechanism == "OAUTHBEARER":
            if self.sasl_token_file is None:
                raise ConfigError(f"Kafka {self.protocol}: sasl_token_file is needed")
            return {"sasl_oauth_token_provider": TokenFile(self.sasl_token_file)}
        if not self.sasl_username or self.sasl_password_file is None:
            raise ConfigError(
                f"Kafka {self.protocol}: sasl_username and sasl_password_file are needed"
            )
        return {
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": read_secret(self.sasl_password_file, "sasl_password_file"),
        }


def _is_host(name: str) -> bool:
    """Could DNS hold it? Looking others up raises no OSError, which the client would expect."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says about a topic.

    Attributes:
        partitions: Numbers of its partitions, rising.
        max_message_bytes: The largest record it takes, in bytes; None if the broker does not tell.
    """

    partitions: tuple[int, ...]
    max_message_bytes: int | None


async def describe_topic(
    connection: KafkaConnection,
    topic: str,
    operation: str = "Read",
    *,
    outage: Outage | None = None,
) -> TopicFacts:
    """Look a topic up; wait for the broker and the topic up to the connection's deadline.

    Args:
        connection: How to reach the broker.
        topic: The topic.
        operation: What it is wanted for: Read or Write.
        outage: As of ``persist``.

    Raises:
        ConfigError: The broker refuses the connection, or we may not do that.
        TransportError: There is no broker, or no such topic, at the deadline.
    """

    async def attempt() -> TopicFacts:
        return await _describe(connection, topic, operation)

    return await persist(connection, f"topic {topic}", attempt, operation=operation, outage=outage)


async def _describe(connection: KafkaConnection, topic: str, operation: str) -> TopicFacts:
    async with admin_of(connection) as admin:
        described = (await admin.describe_topics([topic]))[0]
        if described["error_code"]:
            raise for_code(described["error_code"])(topic)
        await check_topic_right(admin, topic, operation)
        partitions = tuple(sorted(p["partition"] for p in described["partitions"]))
        return TopicFacts(partitions, await _max_message_bytes(admin, topic))


async def _max_message_bytes(admin: Any, topic: str) -> int | None:
    wanted = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": None})
    responses = await admin.describe_configs([wanted])
    for error_code, _message, _kind, _name, entries in responses[0].resources:
        for name, value, *_rest in entries:
            if not error_code and name == "max.message.bytes":
                return int(value)
    return None


@asynccontextmanager
async def explained(
    connection: KafkaConnection, what: str, operation: str = "Read"
) -> AsyncIterator[None]:
    """Turn aiokafka's errors into the daemon's.

    Args:
        connection: The broker; errors name its address.
        what: What is tried, for errors.
        operation: What topics are wanted for, for errors: Read, Write or Describe.

    Raises:
        RefusedError: The broker refuses login or access.
        TransportError: Kafka reports another error, or what was waited for was cancelled.
    """
    where = f"Kafka at {connection.bootstrap_servers}"
    try:
        with own_cancellation(f"{where}: {what}"):
            yield
    except _LOGIN_REFUSALS as error:
        raise RefusedError(
            f"{where}: {what}: {error!r}; check security protocol, user and password"
        ) from error
    except MISSING_RIGHTS as error:
        right = missing_right(
            error,
            operation,
            connection.bootstrap_servers,
            connection.sasl_username,
            has_login=connection.protocol != "PLAINTEXT",
        )
        raise RefusedError(f"{where}: {right}") from error
    except UnknownTopicOrPartitionError as error:
        raise TransportError(
            f"{where}: {what}: no such topic; create it (s2netd topics create)"
        ) from error
    except TimeoutError as error:
        raise TransportError(f"{where}: {what}: no answer; {_CHECK}") from error
    except KafkaError as error:
        raise TransportError(f"{where}: {what}: {error!r}; {_CHECK}") from error


async def persist(
    connection: KafkaConnection,
    what: str,
    attempt: Callable[[], Awaitable[T]],
    patience_s: float = 0.0,
    operation: str = "Read",
    *,
    in_mid_work: bool = False,
    outage: Outage | None = None,
) -> T:
    """Try, with growing pauses, until it works or ``connect_timeout_s`` has passed.

    A broker that turns us away is not asked again, except in the middle of work: there a password
    or token may just be changing, and the deadline counts.

    Args:
        connection: The broker, and how long to try.
        what: What is tried, for errors.
        attempt: Makes one try.
        patience_s: Seconds to try on top of that, if the broker itself may rightly take so long.
        operation: What topics are wanted for, for errors: Read, Write or Describe.
        in_mid_work: Whether the broker has let us in before.
        outage: With it there is no deadline; see ``endure``.

    Raises:
        ConfigError: The broker turns us away.
        TransportError: The last error, with the address and what to check.
    """
    given_s = connection.connect_timeout_s + patience_s
    tries = _Tries(connection, what, operation, given_s, in_mid_work=in_mid_work)
    if outage is not None:
        return await _endure(tries, attempt, outage)
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + given_s
    refused: RefusedError | None = None
    while True:
        try:
            return await tries.once(attempt, deadline_s)
        except (TransportError, RefusedError) as error:
            if isinstance(error, RefusedError):
                refused = error
            is_last = loop.time() + tries.wait_s > deadline_s
            if refused is not None and (is_last or not in_mid_work):
                raise refused from error
            if is_last:
                raise TransportError(f"{error} (gave up after {given_s:g} s)") from error
        await tries.pause()


async def endure(
    connection: KafkaConnection,
    what: str,
    attempt: Callable[[], Awaitable[T]],
    outage: Outage,
    patience_s: float = 0.0,
    operation: str = "Read",
) -> T:
    """Try in the middle of work until it works, however long that takes.

    A broker that turns us away is waited for like one that is away: a password, a token or a right
    may just be changing, and it has let us in before.

    Args:
        connection: The broker; a single try takes at most ``connect_timeout_s``.
        what: What is tried, for errors.
        attempt: Makes one try.
        outage: Told how each try went.
        patience_s: Seconds that a try may take on top of that.
        operation: What topics are wanted for, for errors: Read, Write or Describe.

    Raises:
        NameTakenError: Another member of the group has our name.
    """
    given_s = connection.connect_timeout_s + patience_s
    tries = _Tries(connection, what, operation, given_s, in_mid_work=True)
    return await _endure(tries, attempt, outage)


async def _endure(tries: "_Tries", attempt: Callable[[], Awaitable[T]], outage: Outage) -> T:
    while True:
        limit_s = asyncio.get_running_loop().time() + tries.given_s
        try:
            result = await tries.once(attempt, limit_s)
        except NameTakenError:
            raise
        except ConfigError as error:
            if not tries.in_mid_work:
                raise
            outage.failed(error)
        except TransportError as error:
            outage.failed(error)
        else:
            outage.worked()
            return result
        await tries.pause()


@dataclass(slots=True)
class _Tries:
    """What the tries of one thing have in common; see ``persist``."""

    connection: KafkaConnection
    what: str
    operation: str
    given_s: float
    in_mid_work: bool
    wait_s: float = _FIRST_WAIT_S

    async def once(self, attempt: Callable[[], Awaitable[T]], limit_s: float) -> T:
        """Make one try, which ends at ``limit_s`` on the loop's clock.

        Raises:
            RefusedError: It failed since the broker turns us away.
            ConfigError, TransportError: It failed otherwise.
        """
        in_time = (
            asyncio.timeout_at(limit_s) if self.in_mid_work else _limited(self.connection, limit_s)
        )
        try:
            async with explained(self.connection, self.what, self.operation), in_time:
                return await attempt()
        except TransportError as error:
            has_let_us_in = isinstance(error.__cause__, UnknownTopicOrPartitionError)
            was_silent = asyncio.get_running_loop().time() >= limit_s
            if not has_let_us_in and not was_silent:
                reason = await _refusal(self.connection)
                if reason is not None:
                    raise RefusedError(reason) from error
            raise

    async def pause(self) -> None:
        """Wait, twice as long as the last time."""
        await asyncio.sleep(self.wait_s)
        self.wait_s = min(2 * self.wait_s, _LONGEST_WAIT_S)


@asynccontextmanager
async def _limited(connection: KafkaConnection, deadline_s: float) -> AsyncIterator[None]:
    """End an attempt at the deadline, or as soon as it shows that the broker turns us away.

    The client itself would try some steps again without a word.
    """
    refused: list[str] = []
    limit = asyncio.timeout_at(deadline_s)

    async def watch() -> None:
        await asyncio.sleep(_LOOK_AFTER_S)
        reason = await _refusal(connection)
        if reason is not None:
            refused.append(reason)
            limit.reschedule(asyncio.get_running_loop().time())

    watcher = asyncio.create_task(watch())
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if refused:
            raise ConfigError(refused[0]) from error
        raise
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


async def _refusal(connection: KafkaConnection) -> str | None:
    """Why the broker turns us away; None: it does not, or is away."""
    try:
        return await refusal(connection)
    except ConfigError as error:  # a file that was there is gone
        return str(error)
