"""Real processes over a real broker that trusts nobody: each way in, each fault in one line."""

import asyncio
import json
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kafka_daemon import EVENT_PARTITIONS, run_until_all_ended, topic_events
from tests.support.processes import (
    PATIENCE_S,
    assert_each_once,
    log_entries,
    s2netd,
    start_s2netd,
    wait_until,
    without_ids,
    write_config,
)
from tests.support.scripted_camera import ScriptedCamera, serving, small_footage
from tests.support.secured_kafka import (
    DESCRIBE_CONFIGS,
    GROUP,
    READ,
    TOPIC,
    TRANSACTIONAL_ID,
    USER,
    WRITE,
    Right,
    SecuredKafka,
    rights_of_a_daemon,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

WITHIN_S = 5.0  # what an operator waits for the reason, on top of a start of Python
CLIENT = "CN=client"  # the user of the certificate


@dataclass(frozen=True, slots=True)
class Site:
    """A broker with two topics, and files that say how to reach them.

    Attributes:
        folder: Where its files lie.
        chunks: Topic of the chunks.
        events: Topic of the events.
        group: Consumer group.
    """

    kafka: SecuredKafka
    folder: Path
    bundle: Path
    chunks: str
    events: str
    group: str

    @property
    def rights(self) -> dict[str, Right]:
        """What a daemon needs."""
        return rights_of_a_daemon(self.chunks, self.events, self.group)

    def security(self, listener: str, mechanism: str, **changed: Any) -> Path:
        """What `produce --security` takes."""
        keys = self.kafka.security(listener, mechanism) | changed
        path = self.folder / f"security-{uuid.uuid4().hex}.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in keys.items() if v is not None}))
        return path

    def config(self, listener: str, security: Path, **model: str) -> Path:
        """What `run` and `topics` take."""
        kafka = {
            "kind": "kafka",
            "bootstrap_servers": self.kafka.address(listener),
            "security": yaml.safe_load(security.read_text()),
        }
        return write_config(
            self.folder / f"{security.stem}-config.yaml",
            model={"bundle": str(self.bundle), **model},
            source={
                **kafka,
                "topic": self.chunks,
                "group_id": self.group,
                "start": "earliest",
            },
            sink={**kafka, "topic": self.events},
            state={"path": str(self.folder / f"{security.stem}.sqlite")},
        )


@pytest.fixture
async def site(secured_kafka: SecuredKafka, tmp_path: Path, bundle: Path) -> Site:
    """USER and CLIENT have all rights of docs/operating.md, those of produce and topics too."""
    name = uuid.uuid4().hex
    site = Site(
        secured_kafka, tmp_path, bundle, f"chunks-{name}", f"events-{name}", f"group-{name}"
    )
    most = {"max.message.bytes": str(2**23 + 2**14)}
    await secured_kafka.make_topic(site.chunks, **most)
    await secured_kafka.make_topic(site.events, EVENT_PARTITIONS)
    for user in (USER, CLIENT):
        await secured_kafka.give(user, *site.rights.values())
        await secured_kafka.allow(user, TOPIC, site.chunks, WRITE, DESCRIBE_CONFIGS)
        await secured_kafka.allow(user, TOPIC, site.events, DESCRIBE_CONFIGS)
        await secured_kafka.allow(user, TOPIC, f"{site.group}.", DESCRIBE_CONFIGS, prefixed=True)
    return site


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [
        ("TLS", ""),
        ("MTLS", ""),
        ("SASLPLAIN", "SCRAM-SHA-512"),
        *(("SASL", each) for each in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")),
    ],
)
async def test_topics_are_seen_in_every_way_in(site: Site, listener: str, mechanism: str) -> None:
    config = site.config(listener, site.security(listener, mechanism))
    plain = yaml.safe_load(config.read_text())
    del plain["state"]
    # A journal in Kafka would need topics of its own.
    config.write_text(yaml.safe_dump(plain | {"journal": {"kind": "local"}}))

    done = s2netd(
        *("topics", "check", "--config", config, "--partitions", 1),
        *("--event-retention-days", 1, "--chunk-retention-hours", 1),
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["ok", "ok"] == [line.rpartition(" ")[2] for line in done.stdout.splitlines()]


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("listener", "mechanism"), [("SASL", "SCRAM-SHA-512"), ("SASL", "OAUTHBEARER"), ("MTLS", "")]
)
async def test_footage_becomes_events_over_a_secured_broker(
    site: Site, clip: Path, localized: list[Any], listener: str, mechanism: str
) -> None:
    security = site.security(listener, mechanism)
    config = site.config(listener, security, precision="f32")

    done = s2netd(
        *("produce", clip, "--camera", "a", "--to", f"kafka:{site.chunks}"),
        *("--bootstrap", site.kafka.address(listener), "--security", security),
    )
    assert 0 == done.returncode, done.stderr
    # The super user reads, so that the rights above are those of the daemon alone.
    records = await run_until_all_ended(
        config, site.kafka.address("PLAINTEXT"), site.events, 1, site.folder / "run.log"
    )

    assert localized == without_ids(records)


async def test_cameras_of_one_file_are_sent_with_tls_and_a_login(
    site: Site, tmp_path: Path
) -> None:
    to = {
        "kind": "kafka",
        "bootstrap_servers": site.kafka.address("SASL"),
        "topic": site.chunks,
        "security": site.kafka.security("SASL", "SCRAM-SHA-512"),
    }
    to["security"] = {k: v for k, v in to["security"].items() if v is not None}
    with serving([ScriptedCamera(small_footage(gop=5)) for _ in range(2)]) as urls:
        cameras = {f"gate-{n}": {"url": url, "chunk_s": 0.2} for n, url in enumerate(urls)}
        config = tmp_path / "cameras.yaml"
        config.write_text(yaml.safe_dump({"to": to, "cameras": cameras, "status_interval_s": 0.5}))
        log = tmp_path / "log"
        process = start_s2netd("produce", "--config", config, log=log)
        try:
            wait_until(lambda: all(has_sent(log.read_text(), c) for c in cameras), log.read_text)
        finally:
            process.terminate()

    assert 0 == process.wait(PATIENCE_S), log.read_text()
    assert "produce.stopped" in log.read_text()


def has_sent(said: str, camera: str) -> bool:
    """Is there a status that tells how far behind its capture the camera's footage was written?"""
    return any(
        entry.get("camera") == camera and entry.get("lag_s") is not None
        for entry in log_entries(said)
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and what of it must be said."""

    listener: str
    changed: dict[str, Any]
    words: tuple[str, ...]


FAULTS = {
    "wrong password": Fault(
        "SASL",
        {"sasl_password_file": "wrong"},
        ("refuses the login", f"sasl_username {USER}", "sasl_password_file wrong"),
    ),
    "expired certificate": Fault("EXPIRED", {}, ("its certificate has expired", "renew it")),
    "TLS to a plain port": Fault(
        "PLAINTEXT",
        {"protocol": "SSL", "ca_file": None},
        ("speaks without TLS", "protocol is SSL", "set protocol PLAINTEXT"),
    ),
    "plain to a TLS port": Fault(
        "TLS",
        {"protocol": "PLAINTEXT", "ca_file": None},
        ("speaks TLS", "protocol is PLAINTEXT", "set protocol SSL"),
    ),
}


@pytest.fixture(scope="session")
def start_s() -> float:
    """How long a command takes that does nothing."""
    began_s = time.monotonic()
    assert 0 == s2netd("topics", "check", "--help").returncode
    return time.monotonic() - began_s


def produce(site: Site, clip: Path, listener: str, security: Path) -> tuple[object, ...]:
    return (
        *("produce", clip, "--camera", "a", "--to", f"kafka:{site.chunks}"),
        *("--bootstrap", site.kafka.address(listener), "--security", security),
    )


def check(site: Site, clip: Path, listener: str, security: Path) -> tuple[object, ...]:
    del clip
    return ("topics", "check", "--config", site.config(listener, security))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("command", [produce, check])
async def test_a_fault_is_one_line_at_once(
    site: Site,
    clip: Path,
    start_s: float,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    command: Callable[..., tuple[object, ...]],
) -> None:
    in_folder_with_wrong_password(site, monkeypatch)
    security = site.security(fault.listener, "SCRAM-SHA-512", **fault.changed)
    arguments = command(site, clip, fault.listener, security)

    began_s = time.monotonic()
    done = s2netd(*arguments)
    took_s = time.monotonic() - began_s

    assert (78, "") == (done.returncode, done.stdout)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"s2netd: Kafka at {site.kafka.address(fault.listener)}: ")
    assert [] == [words for words in fault.words if words not in line]
    assert took_s < WITHIN_S + start_s


def in_folder_with_wrong_password(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file ``wrong`` is found as a systemd credential, by its name alone."""
    credentials = site.folder / "credentials"
    credentials.mkdir()
    (credentials / "wrong").write_text("a guess")
    (credentials / "wrong").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_daemon_that_is_turned_away_says_why_and_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    in_folder_with_wrong_password(site, monkeypatch)
    security = site.security(fault.listener, "SCRAM-SHA-512", **fault.changed)

    reason = refused(site.config(fault.listener, security, backend="scripted"))

    assert reason.startswith(f"Kafka at {site.kafka.address(fault.listener)}: ")
    assert [] == [words for words in fault.words if words not in reason]


def refused(config: Path) -> str:
    """Why a daemon ended; it must have said so soon after it had opened its model."""
    done = s2netd("run", "--config", config)

    assert 78 == done.returncode, done.stderr
    said = {entry["event"]: entry for entry in map(json.loads, done.stderr.splitlines())}
    started, failed = said["daemon.started"], said["daemon.failed"]
    times = [datetime.fromisoformat(entry["timestamp"]) for entry in (started, failed)]
    assert (times[1] - times[0]).total_seconds() < WITHIN_S
    return str(failed["reason"])


async def test_a_missing_right_is_named_with_the_command_that_gives_it(
    site: Site, clip: Path
) -> None:
    kafka, mechanism = site.kafka, "SCRAM-SHA-512"
    mine = [f"{kind}-{uuid.uuid4().hex}" for kind in ("chunks", "events", "group")]
    bare = Site(kafka, site.folder, site.bundle, *mine)
    for topic in mine[:2]:
        await kafka.make_topic(topic)
    security = bare.security("SASL", mechanism)
    config = bare.config("SASL", security, backend="scripted")

    produced = s2netd(*produce(bare, clip, "SASL", security))
    checked = s2netd("topics", "check", "--config", config)
    said = []
    for right in bare.rights.values():
        said.append(refused(config))
        await kafka.give(USER, right)
    own_topic = said.pop(2)

    (line,) = produced.stderr.splitlines()
    assert 78 == produced.returncode
    assert f"lacks the right Write on topic {bare.chunks}; run: kafka-acls.sh" in line
    assert (78, 7) == (checked.returncode, checked.stdout.count("kafka-acls.sh"))
    assert f"allow Create on topics with the prefix {bare.group}." in own_topic
    wanted = (
        f"Write --topic {bare.events}",
        f"Read --topic {bare.chunks}",
        f"Write --transactional-id {bare.group}/{bare.chunks}/start",
        f"Read --group {bare.group}",
    )
    for reason, command in zip(said, wanted, strict=True):
        assert reason.startswith(f"Kafka at {kafka.address('SASL')}: user {USER} lacks the right ")
        assert reason.endswith(f"--allow-principal User:{USER} --operation {command}")


RIGHTS = {
    "chunks": (TOPIC, "{0.chunks}", READ, False),
    "group": (GROUP, "{0.group}", READ, False),
    "events": (TOPIC, "{0.events}", WRITE, False),
    "transactions": (TRANSACTIONAL_ID, "{0.group}/", WRITE, True),
}


@pytest.mark.openvino
@pytest.mark.parametrize("right", RIGHTS.values(), ids=RIGHTS)
async def test_a_right_that_is_taken_away_in_mid_run_is_waited_for(
    site: Site, clip: Path, localized: list[Any], right: tuple[int, str, int, bool]
) -> None:
    security = site.security("SASL", "SCRAM-SHA-512")
    log = site.folder / "run.log"
    config = site.config("SASL", security, precision="f32")
    daemon = start_s2netd("run", "--config", config, log=log)

    async def until(event: str, n_times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while log.read_text().count(event) < n_times:
                assert daemon.poll() is None, log.read_text()
                await asyncio.sleep(0.1)

    def feed(camera: str) -> None:
        kafka = ("--to", f"kafka:{site.chunks}", "--bootstrap", site.kafka.address("SASL"))
        done = s2netd("produce", clip, "--camera", camera, *kafka, "--security", security)
        assert 0 == done.returncode, done.stderr

    await asyncio.to_thread(feed, "a")
    await until("stream.ended")
    kind, name, operation, prefixed = right
    async with site.kafka.forbidding(USER, kind, name.format(site), operation, prefixed=prefixed):
        await asyncio.to_thread(feed, "b")
        await until("outage.began")
    await until("outage.over")
    await until("stream.ended", 2)
    await asyncio.sleep(0.5)  # the end marker's own records are published after the log line
    daemon.send_signal(signal.SIGTERM)
    assert 0 == await asyncio.to_thread(daemon.wait, PATIENCE_S), log.read_text()

    records = await topic_events(site.kafka.address("PLAINTEXT"), site.events)
    assert_each_once(records)
    for camera in "ab":
        assert localized == without_ids([r for r in records if r["camera_id"] == camera])
    assert len(log.read_text().splitlines()) < 60
