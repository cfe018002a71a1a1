"""What can be said of brokers: alone, of secrets and names; with them, of topics and rights."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from daemon.check.findings import Findings
from daemon.compose import group_of, journal_settings
from daemon.config import Config
from daemon.errors import ConfigError
from daemon.kafka.access import missing_rights, with_denied
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.credentials import TokenFile, tls_context
from daemon.kafka.topic_admin import CreationDeniedError, create, look
from daemon.kafka.topic_check import Seen, SeenTopic, Tools, Unseen, differences
from daemon.kafka.topics import WantedTopic
from daemon.library_lines import silence_kafka_client
from daemon.secret_files import is_out_of_reach, read_secret
from daemon.topics import Clusters, TopicOptions, others_beside, tools_of, wanted_topics
from engine.errors import BundleError

_PATIENCE_S = 10.0
_OPERATIONS = {"chunks": ("Read",), "events": ("Write",)}
_OWN_OPERATIONS = ("Read", "Write")


def check_access(section: str, access: KafkaConnection, findings: Findings) -> None:
    """Check addresses, passwords, tokens and certificates: each of them, without a broker."""
    with findings.of(section, f"bootstrap_servers {access.bootstrap_servers}"):
        KafkaConnection(access.bootstrap_servers).options()
    key = f"{section}.security"
    own = (access.certificate_file, access.key_file, access.key_password_file)
    password, token = access.sasl_password_file, access.sasl_token_file
    with _of_files(key, (access.ca_file,), findings):
        tls_context(access.ca_file, None, None, None)
    with _of_files(key, own, findings):
        tls_context(None, *own)
    with _of_files(key, (password,), findings):
        if password is not None:
            read_secret(password, "sasl_password_file")
    with _of_files(key, (token,), findings):
        if token is not None:
            TokenFile(token)


@contextmanager
def _of_files(key: str, paths: Sequence[Path | None], findings: Findings) -> Iterator[None]:
    """Take an error for a fault of a key, unless only the daemon itself may read the files."""
    files = [path for path in paths if path is not None]
    names = ", ".join(map(str, files))
    if any(is_out_of_reach(file) for file in files):
        findings.say(f"ok: {key}: {names} is left to the daemon, for systemd shows it to no other")
        with suppress(ConfigError):
            yield
    else:
        with findings.of(key, names):
            yield


def check_names(config: Config, path: Path, findings: Findings) -> Clusters:
    """Check the names of all topics; gives those that the daemon needs, by cluster.

    How many partitions there are and how long things are kept is left to the operator.
    """
    options = TopicOptions(path, n_partitions=1, chunk_retention_hours=0, event_retention_days=0)
    clusters: Clusters = {}
    with findings.of("topics"):
        try:
            clusters = wanted_topics(config, options)
        except BundleError:  # told elsewhere; the journal's own topics are named for it
            clusters = wanted_topics(_without_own_topics(config), options)
    return clusters


def _without_own_topics(config: Config) -> Config:
    local = config.journal.model_copy(update={"kind": "local"})
    return config.model_copy(update={"journal": local})


def probe_brokers(config: Config, path: Path, clusters: Clusters, findings: Findings) -> None:
    """Ask each cluster for its topics, their settings, its limits, and our rights.

    Nothing is changed: no member joins a group, no transaction begins.
    """
    silence_kafka_client()

    async def run() -> None:
        for connection, wanted in clusters.items():
            tools = tools_of(connection, TopicOptions(path))
            patient = replace(connection, connect_timeout_s=_PATIENCE_S)
            with findings.of("brokers"):
                looked = await look(patient, [*wanted, *others_beside(wanted)])
                seen = await with_denied(patient, looked)
                findings.say(f"ok: brokers: Kafka at {connection.bootstrap_servers} lets us in")
                await _probe_topics(patient, wanted, seen, tools, findings)
                await _probe_rights(config, patient, wanted, seen, findings)

    asyncio.run(run())


async def _probe_topics(
    connection: KafkaConnection,
    wanted: list[WantedTopic],
    seen: Seen,
    tools: Tools,
    findings: Findings,
) -> None:
    to_make = [topic for topic in wanted if await _is_to_be_made(connection, topic, seen)]
    there = [topic for topic in wanted if topic not in to_make]
    found = differences(there, seen, tools)
    wrong = {finding.subject for finding in found if finding.is_wrong}
    for topic in to_make:
        findings.say(f"ok: {topic.subject}: is missing, and the daemon may make it")
    for topic in there:
        if topic.subject not in wrong:
            findings.say(f"ok: {topic.subject}: {_told(seen.topics[topic.name])}")
    for finding in found:
        if finding.is_wrong:
            findings.fault(finding.subject, f"{finding.what}; {finding.mend}")
        else:
            findings.say(finding.line())


async def _is_to_be_made(connection: KafkaConnection, topic: WantedTopic, seen: Seen) -> bool:
    """Is it one of the journal's own that is missing, and that the daemon may make?"""
    if topic.role in _OPERATIONS or seen.topics[topic.name] is not Unseen.MISSING:
        return False
    try:
        await create(connection, topic, -1, is_only_tried=True)
    except CreationDeniedError:
        return False
    return True


def _told(topic: SeenTopic | Unseen) -> str:
    if not isinstance(topic, SeenTopic):
        return ""
    hidden = "" if topic.config else "; its settings are not shown to us (DescribeConfigs)"
    return f"{topic.n_partitions} partition(s){hidden}"


async def _probe_rights(
    config: Config,
    connection: KafkaConnection,
    wanted: list[WantedTopic],
    seen: Seen,
    findings: Findings,
) -> None:
    topics = {
        topic.name: _OPERATIONS.get(topic.role, _OWN_OPERATIONS)
        for topic in wanted
        if isinstance(seen.topics[topic.name], SeenTopic)
    }
    group_id, transactional_id = None, None
    if any(topic.role == "chunks" for topic in wanted):
        with suppress(BundleError):  # told elsewhere; the group is named for it
            group_id, journal = group_of(config), journal_settings(config)
            if journal is not None and journal.guarantee == "exactly-once":
                transactional_id = f"{group_id}/{journal.chunks_topic}/start"
    missing = await missing_rights(connection, topics, group_id, transactional_id)
    for line in missing:
        findings.fault("rights", line)
    if not missing:
        whom = f"user {connection.sasl_username}" if connection.sasl_username else "we"
        parts = [f"topics {', '.join(sorted(topics))}"] if topics else []
        parts += [f"group {group_id}"] if group_id else []
        parts += [f"transactional id {transactional_id}"] if transactional_id else []
        findings.say(f"ok: rights: {whom} may use {'; '.join(parts)}")
