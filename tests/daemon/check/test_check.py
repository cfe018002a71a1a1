"""`s2netd check` says no to what cannot run: each row has one thing wrong, and the rest right."""

import hashlib
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typing_extensions import override

from engine.bundle.model_bundle import MANIFEST
from tests.support.certificates import Authority
from tests.support.cli import Answer, Cli, in_process
from tests.support.tiny_bundle import backbone, write_tiny_bundle

Plain = dict[str, Any]
NOWHERE = "127.0.0.1:1"
FIRST_PORT_OF_ANYBODY = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
LOGIN = {
    "protocol": "SASL_PLAINTEXT",
    "sasl_username": "u",
    "sasl_password_file": "password",
}

TOKEN = {
    "protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_token_file": "absent",
}


def kafka(topic: str, **security: str) -> Plain:
    return {
        "kind": "kafka",
        "bootstrap_servers": NOWHERE,
        "topic": topic,
        **({"security": security} if security else {}),
    }


class Rig:
    """A folder with a sound configuration and all that it names, and the command over it."""

    def __init__(self, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cli = cli
        self.monkeypatch = monkeypatch
        self.plain: Plain = {
            "model": {"bundle": "tiny"},
            "source": {"kind": "directory", "path": "chunks"},
            "sink": {"kind": "jsonl", "path": "events.jsonl"},
            "journal": {"path": "journal.sqlite"},
            "http": {"port": 0},
        }
        write_tiny_bundle(folder / "tiny")
        (folder / "chunks").mkdir()
        (folder / "file").write_text("no folder\n")
        (folder / "password").write_text("secret\n")
        (folder / "password").chmod(0o600)
        (folder / "empty").touch()

    def to_kafka(self, source: Plain | None = None, sink: Plain | None = None) -> None:
        self.plain["source"] = source or kafka("chunks")
        self.plain["sink"] = sink or kafka("events")
        del self.plain["journal"]

    def check(self, *options: str) -> Answer:
        (self.folder / "edge.yaml").write_text(yaml.safe_dump(self.plain))
        return self.cli("check", "--config", "edge.yaml", *options)

    def content(self) -> dict[str, int]:
        """Everything in the folder but the configuration, with sizes."""
        found = {str(p): p.lstat().st_size for p in self.folder.rglob("*")}
        return {name: size for name, size in found.items() if "edge.yaml" not in name}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Rig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return Rig(tmp_path, in_process(monkeypatch, capsys), monkeypatch)


def put(*keys: str, value: object) -> Callable[[Rig], None]:
    """A row that changes one key."""

    def change(rig: Rig) -> None:
        node: Any = rig.plain
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value

    return change


def source(**security: str) -> Callable[[Rig], None]:
    return lambda rig: rig.to_kafka(kafka("chunks", **security))


def topic(section: str, name: str) -> Callable[[Rig], None]:
    return lambda rig: rig.to_kafka(**{section: kafka(name)})


def forged(rig: Rig) -> None:
    """Another network, of which the manifest knows only the digest."""
    model = backbone()
    model.graph.output[0].name = model.graph.node[-1].output[0] = "y"
    blob = model.SerializeToString()
    (rig.folder / "tiny" / "backbone.onnx").write_bytes(blob)
    manifest = yaml.safe_load((rig.folder / "tiny" / MANIFEST).read_text())
    manifest["backbone"]["sha256"] = hashlib.sha256(blob).hexdigest()
    (rig.folder / "tiny" / MANIFEST).write_text(yaml.safe_dump(manifest))


def key_twice_in_the_manifest(rig: Rig) -> None:
    with (rig.folder / "tiny" / MANIFEST).open("a") as file:
        file.write("schema_version: 2\n")


def newer_journal(rig: Rig) -> None:
    with sqlite3.connect(rig.folder / "journal.sqlite") as journal:
        journal.execute("PRAGMA user_version = 99")
        journal.execute("CREATE TABLE t (x)")
    journal.close()


def fifo(rig: Rig) -> None:
    os.mkfifo("pipe")
    rig.plain["sink"]["path"] = "pipe"


def both_in_one(rig: Rig) -> None:
    rig.plain["journal"]["path"] = "./events.jsonl"


def long_prefix(rig: Rig) -> None:
    rig.to_kafka()
    rig.plain["source"]["group_id"] = "g" * 240


def with_ca(path: str) -> Callable[[Rig], None]:
    return source(protocol="SSL", ca_file=path)


def with_certificate(certificate: str, key: str) -> Callable[[Rig], None]:
    return source(protocol="SSL", certificate_file=certificate, key_file=key)


def on_tensorrt(**keys: object) -> Callable[[Rig], None]:
    """The backend is tensorrt, and there is none of its kinds."""

    def change(rig: Rig) -> None:
        for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx"):
            rig.monkeypatch.setitem(sys.modules, name, None)
        rig.plain["model"] |= {"backend": "tensorrt", **keys}

    return change


def two_authorities(rig: Rig) -> None:
    authority = Authority(rig.folder)
    one, other = authority.sign("one"), authority.sign("other")
    with_certificate(str(one.certificate), str(other.key))(rig)


ROWS: dict[str, tuple[Callable[[Rig], None], str]] = {
    # secrets
    "no password file": (
        source(**{**LOGIN, "sasl_password_file": "absent"}),
        "source.security: sasl_password_file: cannot read absent: No such file or directory; name",
    ),
    "empty password file": (
        source(**{**LOGIN, "sasl_password_file": "empty"}),
        "source.security: sasl_password_file: empty is empty; write it there",
    ),
    "password file is a folder": (
        source(**{**LOGIN, "sasl_password_file": "chunks"}),
        "source.security: sasl_password_file: cannot read chunks: Is a directory; name",
    ),
    "no password file of the sink": (
        lambda rig: rig.to_kafka(
            sink=kafka("events", **{**LOGIN, "sasl_password_file": "absent"})
        ),
        "sink.security: sasl_password_file: cannot read absent: No such file",
    ),
    "no token file": (
        source(**TOKEN),
        "source.security: sasl_token_file: cannot read absent: No such file",
    ),
    "no CA file": (
        with_ca("absent"),
        "source.security: ca_file: cannot use absent: No such file or directory; wanted certifi",
    ),
    "CA file without a certificate": (
        with_ca("file"),
        "source.security: ca_file: cannot use file:",
    ),
    "empty CA file": (with_ca("empty"), "source.security: ca_file: cannot use empty:"),
    "no certificate file": (
        with_certificate("absent", "file"),
        "source.security: cannot use certificate_file absent with key_file file: No such file",
    ),
    "certificate that is none": (
        with_certificate("file", "file"),
        "source.security: cannot use certificate_file file with key_file file:",
    ),
    "a key of another certificate": (two_authorities, "the key is of another certificate"),
    "half a login": (
        source(protocol="SASL_SSL", sasl_username="u"),
        "source.kafka.security: sasl_password_file must be given too",
    ),
    # brokers and topics
    "addresses": (
        lambda rig: rig.to_kafka({**kafka("chunks"), "bootstrap_servers": "a:b"}),
        "source: bootstrap_servers is 'a:b', wanted host:port",
    ),
    "address that no name server could hold": (
        lambda rig: rig.to_kafka({**kafka("chunks"), "bootstrap_servers": f"{'a' * 64}:9092"}),
        "wanted host:port",
    ),
    "one topic for two purposes": (topic("source", "events"), "events is to be the topic of"),
    "own topics with names too long": (long_prefix, "Kafka allows no such name"),
    **{
        f"{section} topic {name[:9]!r}": (
            topic(section, name),
            f"{section}.kafka.topic: {name!r}: Kafka allows no such name, wanted 1..249 letters",
        )
        for section in ("source", "sink")
        for name in ("a b/c", ".", "..", "a" * 250, "türen")
    },
    # folders and files
    "no source folder": (
        put("source", "path", value="absent"),
        "source.path: absent: no such folder; make it, or let `s2netd produce --to dir:absent`",
    ),
    "source is a file": (put("source", "path", value="file"), "source.path: file: no such folder"),
    "source inside of a file": (put("source", "path", value="file/x"), "source.path: file/x: no"),
    "source takes no positions": (
        put("source", "path", value="/proc"),
        "source.path: /proc/.positions: cannot be written in /proc: ",
    ),
    "sink is a folder": (
        put("sink", "path", value="chunks"),
        "sink.path: chunks: is a folder; name a file in it",
    ),
    "sink inside of a file": (
        put("sink", "path", value="file/e.jsonl"),
        "sink.path: file/e.jsonl",
    ),
    "sink in a folder that takes none": (
        put("sink", "path", value="/proc/e.jsonl"),
        "sink.path: /proc/e.jsonl: cannot be written in /proc: ",
    ),
    "sink far in a folder that takes none": (
        put("sink", "path", value="/proc/no/such/e.jsonl"),
        "sink.path: /proc/no/such/e.jsonl: cannot be written in /proc: ",
    ),
    "sink is a pipe": (fifo, "sink.path: pipe: is no regular file"),
    "sink is a device": (put("sink", "path", value="/dev/full"), "sink.path: /dev/full: is no re"),
    "sink has a zero byte": (
        put("sink", "path", value="a\0b"),
        "sink.jsonl.path: 'a\\x00b' holds",
    ),
    "journal in a folder that takes none": (
        put("journal", "path", value="/proc/j.sqlite"),
        "journal.path: /proc/j.sqlite: cannot be written in /proc: ",
    ),
    "journal is a folder": (
        put("journal", "path", value="chunks"),
        "journal.path: chunks: is a f",
    ),
    "journal is another file": (
        put("journal", "path", value="file"),
        "journal.path: file: is no SQLite file; name another one",
    ),
    "journal of a newer version": (
        newer_journal,
        "journal.sqlite: a journal of version 99, wanted",
    ),
    "journal and sink are one": (
        both_in_one,
        "journal.path: events.jsonl: is sink.path too; give",
    ),
    # the model
    "no bundle": (put("model", "bundle", value="nope"), "model: no bundle nope in "),
    "bundle is none": (
        put("model", "bundle", value="chunks"),
        "model: chunks is no bundle: it ho",
    ),
    "unknown label": (put("model", "labels", value=["gren"]), "model: labels: 'gren' is none of "),
    "no labels": (
        put("model", "labels", value=[]),
        "model.labels: [] reports nothing; name a class",
    ),
    "other tensors": (forged, "model: tiny/backbone.onnx: tensor features is None, the manifest"),
    "manifest with a key twice": (
        key_twice_in_the_manifest,
        "model: tiny/bundle.yaml is not YAML: line",
    ),
    "TensorRT is absent": (
        on_tensorrt(),
        "model.backend: tensorrt: TensorRT cannot be imported (not installed): pip install",
    ),
    "TensorRT is absent, and plans are to be waited for on the CPU": (
        on_tensorrt(while_building="openvino", verify=False),
        "model.backend: tensorrt: TensorRT cannot be imported",
    ),
    # addresses
    "a host of others": (
        put("http", "host", value="192.0.2.7"),
        "http: cannot listen on 192.0.2.7",
    ),
    "no host": (
        put("http", "host", value="no.such.invalid"),
        "http: cannot listen on no.such.inv",
    ),
    "a host that no name server could hold": (
        put("http", "host", value="a..b"),
        "http: cannot listen on a..b:0: 'a..b' is no host's name; set http.host",
    ),
    # keys
    "unknown key": (put("sauce", value=1), "sauce: unknown key; see `s2netd schema config`"),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_run_is_one_line_with_the_value_and_exit_code_78(rig: Rig, name: str) -> None:
    change, told = ROWS[name]
    change(rig)
    before = rig.content()

    answer = rig.check()

    assert 78 == answer.code, answer.out
    assert answer.complaint.startswith("s2netd: edge.yaml: ")
    assert told in answer.complaint
    assert "" == answer.out
    assert before == rig.content()


def test_all_that_is_wrong_is_told_at_once(rig: Rig) -> None:
    rig.plain["model"] = {"bundle": "tiny", "labels": ["gren", "blau", "red"]}
    rig.plain["source"] = kafka("a b/c", **{**LOGIN, "sasl_password_file": "absent"})
    rig.plain["sink"] = {"kind": "jsonl", "path": "file/events.jsonl"}
    rig.plain["journal"] = {"path": "chunks"}
    rig.plain["http"] = {"host": "192.0.2.7"}
    rig.plain["queue_chunks"] = 1
    rig.plain["sauce"] = 1

    answer = rig.check()

    lines = answer.err.splitlines()
    assert 78 == answer.code
    assert all(line.startswith("s2netd: edge.yaml: ") for line in lines)
    for part in (
        "source.kafka.topic: 'a b/c'",
        "queue_chunks: Input should be",
        "sauce: unknown key",
        "'gren' is none of the model's 2 classes",
        "source.security: sasl_password_file: cannot read absent",
        "sink.path: file/events.jsonl",
        "journal.path: chunks: is a folder",
        "http: cannot listen on 192.0.2.7",
    ):
        assert 1 == sum(part in line for line in lines), (part, answer.err)
    assert 8 == len(lines)


def test_sections_that_are_missing_or_none_are_told_beside_the_rest(rig: Rig) -> None:
    del rig.plain["source"]
    rig.plain["sink"] = 3
    rig.plain["model"] = {"bundle": "nope"}

    answer = rig.check()

    assert 78 == answer.code
    for part in ("source: is missing", "sink: ", "model: no bundle nope"):
        assert 1 == sum(part in line for line in answer.err.splitlines()), answer.err


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [", "- 1", "", "&a [*a]"])
def test_a_file_that_is_no_configuration_is_one_line(rig: Rig, text: str) -> None:
    (rig.folder / "odd.yaml").write_text(text)

    answer = rig.cli("check", "--config", "odd.yaml", "--probe")

    assert 78 == answer.code
    assert answer.complaint.startswith("s2netd: odd.yaml: ")


def test_a_precision_that_tensorrt_does_not_make_of_a_bundle_is_told(rig: Rig) -> None:
    rig.plain["model"] |= {"backend": "tensorrt", "precision": "bf16"}

    answer = rig.check()

    assert 78 == answer.code
    assert "edge.yaml: model: precision is bf16, but tiny computes in f32" in answer.err


def test_what_is_there_already_is_fine_and_stays_as_it_is(rig: Rig) -> None:
    rig.plain["state"] = {"path": "deep/down/state.sqlite"}
    del rig.plain["journal"]
    rig.plain["sink"]["path"] = "events.jsonl"
    (rig.folder / "events.jsonl").write_text("a line\n")
    (rig.folder / "chunks" / "door").mkdir()
    before = rig.content()

    answer = rig.check()

    assert (0, "") == (answer.code, answer.err)
    (line,) = answer.out.splitlines()
    assert line.startswith("edge.yaml: ok (tiny@")
    assert before == rig.content()


def test_a_credential_of_systemd_is_a_password_file(rig: Rig) -> None:
    (rig.folder / "credentials").mkdir()
    (rig.folder / "password").rename(rig.folder / "credentials" / "kafka-password")
    rig.to_kafka(kafka("chunks", **{**LOGIN, "sasl_password_file": "kafka-password"}))

    without = rig.check()
    rig.monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")

    assert 78 == without.code
    assert 0 == rig.check().code


@pytest.mark.openvino
def test_a_probe_says_what_it_tried(rig: Rig) -> None:
    before = rig.content()

    answer = rig.check("--probe")

    assert (0, "") == (answer.code, answer.err)
    *lines, last = answer.out.splitlines()
    assert lines.pop(0).startswith("ok: model: tiny@")
    assert [
        "ok: model.backend: openvino: is installed",
        "ok: source.path: chunks can be read, and positions kept in it",
        "ok: sink.path: events.jsonl can be written",
        "ok: journal.path: journal.sqlite can be written",
        "ok: http: 127.0.0.1:0 can be listened on",
        "ok: model.backend: tiny answers on openvino",
    ] == lines
    assert last.startswith("edge.yaml: ok (tiny@")
    assert before == rig.content()


@pytest.mark.openvino
def test_a_probe_tells_faults_beside_what_is_right(rig: Rig) -> None:
    rig.plain["source"]["path"] = "absent"

    answer = rig.check("--probe")

    assert 78 == answer.code
    assert "source.path: absent: no such folder" in answer.complaint
    assert "ok: sink.path" in answer.out
    assert "ok: model.backend: tiny answers" in answer.out
    assert "edge.yaml: ok" not in answer.out


@pytest.mark.slow
def test_a_broker_that_is_away_is_exit_code_1_unless_something_is_wrong_too(rig: Rig) -> None:
    rig.plain["model"]["backend"] = "scripted"
    rig.to_kafka()

    away = rig.check("--probe")
    rig.plain["model"]["labels"] = ["gren"]
    wrong_too = rig.check("--probe")

    assert 1 == away.code
    assert f"edge.yaml: brokers: Kafka at {NOWHERE}: " in away.complaint
    assert 78 == wrong_too.code
    assert 2 == len(wrong_too.err.splitlines())


@pytest.fixture
def as_nobody(rig: Rig) -> Iterator[Rig]:
    """The command as a user who may read everything in the folder, and write nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    open_to_all = Path(tempfile.mkdtemp(prefix="s2netd-check-"))
    shutil.copytree(rig.folder, open_to_all, dirs_exist_ok=True)
    open_to_all.chmod(0o755)
    (open_to_all / "closed").mkdir(mode=0o700)
    rig.folder = open_to_all
    rig.monkeypatch.chdir(open_to_all)
    assert 0 == rig.check().code  # what root alone can read of Python is imported now
    os.seteuid(65_534)
    yield rig
    os.seteuid(0)
    shutil.rmtree(open_to_all)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("site", value="x"), "source.path: chunks/.positions: cannot be written in chunks: P"),
        (put("site", value="x"), "sink.path: events.jsonl: cannot be written in .: Permission de"),
        (put("site", value="x"), "journal.path: journal.sqlite: cannot be written in .: Permissi"),
        (put("source", "path", value="closed/x"), "source.path: closed/x: cannot be read: Permis"),
        (put("sink", "path", value="closed/x"), "sink.path: closed/x: Permission denied; name a "),
        (put("sink", "path", value="file"), "sink.path: file: cannot be written: Permission den"),
        (put("journal", "path", value="closed/x"), "journal.path: closed/x: Permission denied"),
        (source(**LOGIN), "sasl_password_file: cannot read password: Permission denied; name"),
        (with_ca("closed/ca"), "ca_file: cannot use closed/ca: Permission denied"),
        (put("model", "bundle", value="closed/x"), "model: closed/x cannot be looked into: Perm"),
        pytest.param(
            put("http", "port", value=80),
            "http: cannot listen on 127.0.0.1:80: Permission denied",
            marks=pytest.mark.skipif(
                FIRST_PORT_OF_ANYBODY <= 80, reason="needs a machine where port 80 is root's"
            ),
        ),
    ],
)
def test_what_the_daemons_user_may_not_do_is_told(
    as_nobody: Rig, change: Callable[[Rig], None], told: str
) -> None:
    change(as_nobody)
    os.seteuid(0)
    (as_nobody.folder / "edge.yaml").write_text(yaml.safe_dump(as_nobody.plain))
    os.seteuid(65_534)

    answer = as_nobody.cli("check", "--config", "edge.yaml")

    assert 78 == answer.code
    assert 1 == sum(told in line for line in answer.err.splitlines()), answer.err
    assert all(line.startswith("s2netd: edge.yaml: ") for line in answer.err.splitlines())


class _Answerer(BaseHTTPRequestHandler):
    """Answers every question alike."""

    text = b""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(self.text)

    @override
    def log_message(self, *_args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("text", "code"), [('{"live": false}', 0), ("hello", 78), ('{"a": 1}', 78), ("[]", 78)]
)
def test_a_port_that_another_program_has_is_told_and_a_daemons_is_not(
    rig: Rig, text: str, code: int
) -> None:
    answerer = type("Answerer", (_Answerer,), {"text": text.encode()})
    with HTTPServer(("127.0.0.1", 0), answerer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        rig.plain["http"] = {"port": server.server_port}
        answer = rig.check()
        thread.join()

    assert code == answer.code
    if code:
        told = f"http: cannot listen on 127.0.0.1:{server.server_port}: another program does;"
        assert told in answer.complaint


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "", "::1", "::"])  # noqa: S104
def test_any_address_of_this_machine_is_fine(rig: Rig, host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    rig.plain["http"]["host"] = host

    assert 0 == rig.check().code


def test_a_port_where_nobody_answers_may_be_that_of_a_daemon_that_hangs(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        rig.plain["http"] = {"port": server.getsockname()[1]}

        assert 0 == rig.check().code
