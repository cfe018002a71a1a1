"""A real Apache Kafka that trusts nobody: TLS, logins and access rules, a port for each.

Users and passwords of the tests only. Certificates are made anew for each broker.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from daemon.kafka.connection import KafkaConnection
from tests.support.certificates import Authority, Pair
from tests.support.kafka import SCRIPT, administering, create_topics
from tests.support.real_parts import missing

USER, PASSWORD = "camera-site", "open-sesame"
LOGIN_LASTS_S = 4  # of OAUTHBEARER: then the broker hangs up
HERE = "DNS:localhost,IP:127.0.0.1"

_MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
_MODULES = {
    "plain": f'plain.PlainLoginModule required user_{USER}="{PASSWORD}"',
    "scram-sha-256": "scram.ScramLoginModule required",
    "scram-sha-512": "scram.ScramLoginModule required",
    "oauthbearer": "oauthbearer.OAuthBearerLoginModule required "
    'unsecuredLoginStringClaim_sub="broker"',
}
_OAUTH = "org.apache.kafka.common.security.oauthbearer.internals.unsecured"
# Listener → security protocol, which certificate it shows, and whether it wants the client's.
_LISTENERS = {
    "PLAINTEXT": ("PLAINTEXT", "", "none"),
    "TLS": ("SSL", "server", "none"),
    "MTLS": ("SSL", "server", "required"),
    "EXPIRED": ("SSL", "expired", "none"),
    "FOREIGN": ("SSL", "foreign", "none"),
    "NUMBER": ("SSL", "number", "none"),
    "SASL": ("SASL_SSL", "server", "none"),
    "SASLPLAIN": ("SASL_PLAINTEXT", "", "none"),
}

# Codes of Kafka's protocol.
TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
ALL, READ, WRITE, CREATE, DESCRIBE, DESCRIBE_CONFIGS = 2, 3, 4, 5, 8, 10
_LITERAL, _PREFIXED = 3, 4
DENY, ALLOW = 2, 3


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on a resource, or on all whose names begin so."""

    kind: int
    name: str
    operations: tuple[int, ...]
    prefixed: bool = False


def rights_of_a_daemon(chunks: str, events: str, group: str) -> dict[str, Right]:
    """Those that docs/operating.md tells, in the order in which a daemon asks for them."""
    return {
        "write events": Right(TOPIC, events, (WRITE,)),
        "read chunks": Right(TOPIC, chunks, (READ,)),
        "own topics": Right(TOPIC, f"{group}.", (READ, WRITE, DESCRIBE, CREATE), prefixed=True),
        "transactions": Right(TRANSACTIONAL_ID, f"{group}/", (WRITE, DESCRIBE), prefixed=True),
        "group": Right(GROUP, group, (READ,)),
    }


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """A running broker.

    Attributes:
        ports: Its ports, by listener: PLAINTEXT, TLS, MTLS (wants a certificate), EXPIRED (shows
            an expired one), FOREIGN (shows one of another host), NUMBER (shows one of 127.0.0.1,
            and calls itself localhost), SASL (TLS), SASLPLAIN (no TLS).
        authority: Signed the certificates of the servers and of ``client``.
        client: A certificate that MTLS takes; its user is ``CN=client``.
        password_file: Holds USER's password.
    """

    ports: dict[str, int]
    authority: Authority
    client: Pair
    password_file: Path

    def address(self, listener: str) -> str:
        return f"localhost:{self.ports[listener]}"

    def security(self, listener: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """What the section ``security`` should hold for a port, as plain values."""
        protocol = _LISTENERS[listener][0]
        keys: dict[str, Any] = {"protocol": protocol}
        if protocol.endswith("SSL"):
            keys["ca_file"] = str(self.authority.ca)
        if listener == "MTLS":
            keys |= {
                "certificate_file": str(self.client.certificate),
                "key_file": str(self.client.key),
            }
        if protocol.startswith("SASL"):
            keys |= {"sasl_mechanism": mechanism} | self._login(mechanism)
        return keys

    def connection(
        self, listener: str, mechanism: str = "SCRAM-SHA-512", **changed: Any
    ) -> KafkaConnection:
        """A way in, with some keys changed."""
        keys = self.security(listener, mechanism) | changed
        typed = {key: Path(v) if key.endswith("_file") else v for key, v in keys.items()}
        return KafkaConnection(self.address(listener), **typed)

    def _login(self, mechanism: str) -> dict[str, str]:
        if mechanism == "OAUTHBEARER":
            token_file = self.password_file.with_name("token")
            token_file.write_text(unsecured_token(USER))
            token_file.chmod(0o600)
            return {"sasl_token_file": str(token_file)}
        return {"sasl_username": USER, "sasl_password_file": str(self.password_file)}

    async def make_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """As the super user, who needs no login on PLAINTEXT."""
        async with administering(self.address("PLAINTEXT")) as admin:
            await create_topics(admin, NewTopic(name, partitions, 1, topic_configs=config))
        return name

    async def give(self, user: str, *rights: Right) -> None:
        """Give rights, and wait until they hold."""
        for right in rights:
            await self.allow(
                user, right.kind, right.name, *right.operations, prefixed=right.prefixed
            )

    async def allow(
        self, user: str, kind: int, name: str, *operations: int, prefixed: bool = False
    ) -> None:
        """Give rights on one resource, or on all with a prefix, and wait until they hold."""
        pattern = _PREFIXED if prefixed else _LITERAL
        async with administering(self.address("PLAINTEXT")) as admin:
            for operation in operations:
                rule = (kind, name, pattern, f"User:{user}", "*", operation, ALLOW)
                answer = await admin._send_to_controller(CreateAclsRequest(*rule))
                assert [0] == [code for code, _message in answer.creation_responses]

    @asynccontextmanager
    async def forbidding(
        self, user: str, kind: int, name: str, operation: int, *, prefixed: bool = False
    ) -> AsyncIterator[None]:
        """Take a right away for a while, whatever else is allowed."""
        address = self.address("PLAINTEXT")
        async with ruled(address, user, kind, name, operation, DENY, prefixed=prefixed):
            yield


@asynccontextmanager
async def ruled(
    address: str,
    user: str,
    kind: int,
    name: str,
    operation: int,
    permission: int,
    *,
    prefixed: bool = False,
) -> AsyncIterator[None]:
    """A rule that holds for a while; the address lets us in as somebody who may make rules."""
    pattern = _PREFIXED if prefixed else _LITERAL
    rule = (kind, name, pattern, f"User:{user}", "*", operation, permission)
    async with administering(address) as admin:
        answer = await admin._send_to_controller(CreateAclsRequest(*rule))
        assert [0] == [code for code, _message in answer.creation_responses]
    yield
    async with administering(address) as admin:
        answer = await admin._send_to_controller(DeleteAclsRequest(*rule))
        assert [1] == [len(matching) for _code, _message, matching in answer.filter_responses]


async def all_hung_up() -> None:
    """Wait until this loop holds no connection: aiokafka does not wait for the end of its TLS."""
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while len(loop._selector.get_map()) > 1:  # the loop's own
            await asyncio.sleep(0.01)


def unsecured_token(user: str, lasts_s: float = 3600) -> str:
    """A JWT without a signature, which only a broker for tests takes."""
    now_s = time.time()
    claims = {"sub": user, "iat": now_s - 60, "exp": now_s + lasts_s}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()) for p in ({"alg": "none"}, claims)]
    return ".".join([*(part.decode().rstrip("=") for part in parts), ""])


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """See ``SecuredKafka``; without rules, it lets nobody do anything."""
    absent = [tool for tool in ("java", "mvn", "openssl") if shutil.which(tool) is None]
    if absent:
        missing(f"a secured broker needs {' and '.join(absent)} (Debian: the package of the name)")
    home = tmp_path_factory.mktemp("secured-kafka")
    authority = Authority(home)
    pairs = {
        "server": authority.sign("server", hosts=HERE),
        "expired": authority.sign("expired", hosts=HERE, days=-1),
        "number": authority.sign("number", hosts="IP:127.0.0.1"),
        "foreign": authority.sign("foreign", hosts="DNS:elsewhere.example"),
    }
    password_file = home / "password"
    password_file.write_text(PASSWORD + "\n")
    password_file.chmod(0o600)
    ports = dict(zip((*_LISTENERS, "CONTROLLER"), free_ports(len(_LISTENERS) + 1), strict=True))
    (home / "server.properties").write_text("\n".join(_settings(home, ports, authority, pairs)))
    users = " ".join(f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512))
    env = {
        **os.environ,
        "S2NETD_KAFKA_HOME": str(home),
        "S2NETD_KAFKA_PORT": "0",
        "S2NETD_KAFKA_USERS": users,
    }
    started = subprocess.run(
        [SCRIPT, "start"], check=False, env=env, capture_output=True, text=True
    )
    if started.returncode:
        missing(f"no secured broker: {started.stderr}")
    yield SecuredKafka(ports, authority, authority.sign("client"), password_file)
    subprocess.run([SCRIPT, "stop"], env=env, check=True)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("", 0))) for _ in range(number)]
        return [server.getsockname()[1] for server in servers]


def _settings(
    home: Path, ports: dict[str, int], authority: Authority, pairs: dict[str, Pair]
) -> Iterator[str]:
    controller = ports["CONTROLLER"]
    # Not one of the addresses a test gives: what a broker says of itself counts as well.
    told = ",".join(f"{name}://localhost:{ports[name]}" for name in _LISTENERS)
    protocols = {name: protocol for name, (protocol, *_rest) in _LISTENERS.items()}
    kinds = ",".join(f"{k}:{v}" for k, v in (protocols | {"CONTROLLER": "PLAINTEXT"}).items())
    yield from (
        "process.roles=broker,controller",
        "node.id=1",
        f"controller.quorum.bootstrap.servers=localhost:{controller}",
        f"listeners={told},CONTROLLER://localhost:{controller}",
        f"advertised.listeners={told}",
        f"listener.security.protocol.map={kinds}",
        "inter.broker.listener.name=PLAINTEXT",
        "controller.listener.names=CONTROLLER",
        f"log.dirs={home}/data",
        "auto.create.topics.enable=false",
        "offsets.topic.num.partitions=1",
        "offsets.topic.replication.factor=1",
        "transaction.state.log.num.partitions=1",
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=1",
        "group.initial.rebalance.delay.ms=0",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
        # Kafka 4 slows down who fails to log in.
        "connection.failed.authentication.delay.ms=100",
    )
    for name, (protocol, certificate, client_auth) in _LISTENERS.items():
        prefix = f"listener.name.{name.lower()}."
        if protocol.endswith("SSL"):
            yield f"{prefix}ssl.keystore.type=PEM"
            yield f"{prefix}ssl.keystore.location={pairs[certificate].both}"
            yield f"{prefix}ssl.truststore.type=PEM"
            yield f"{prefix}ssl.truststore.location={authority.ca}"
            yield f"{prefix}ssl.client.auth={client_auth}"
        if protocol.startswith("SASL"):
            yield f"{prefix}sasl.enabled.mechanisms={_MECHANISMS}"
            for mechanism, module in _MODULES.items():
                jaas = f"org.apache.kafka.common.security.{module};"
                yield f"{prefix}{mechanism}.sasl.jaas.config={jaas}"
            handler = f"{_OAUTH}.OAuthBearerUnsecuredValidatorCallbackHandler"
            yield f"{prefix}oauthbearer.sasl.server.callback.handler.class={handler}"
            handler = f"{_OAUTH}.OAuthBearerUnsecuredLoginCallbackHandler"
            yield f"{prefix}oauthbearer.connections.max.reauth.ms={1000 * LOGIN_LASTS_S}"
            yield f"{prefix}oauthbearer.sasl.login.callback.handler.class={handler}"
