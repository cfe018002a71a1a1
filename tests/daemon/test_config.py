import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from daemon.config import RungName, json_schema, load, load_security, parse
from daemon.errors import ConfigError
from daemon.starting import first_model
from engine.spec import Rung
from tests.support.checkout import CHECKOUT

GOOD = {
    "source": {"kind": "directory", "path": "chunks"},
    "sink": {"kind": "jsonl", "path": "events.jsonl"},
    "journal": {"path": "journal.sqlite"},
}


@pytest.mark.parametrize("name", ["local", "kafka", "edge", "gpu"])
def test_the_shipped_examples_are_valid(name):
    config = load(CHECKOUT / "configs" / "daemon" / f"{name}.yaml")

    assert config.source.kind in ("directory", "kafka")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sourc": {}}, "sourc: unknown key; see `s2netd schema config`"),
        ({"sink": None}, "sink: "),
        ({"queue_chunks": 0}, "queue_chunks: Input should be greater than or equal to 2; seen 0"),
        (
            {"model": {"precision": "fp16"}},
            "model.precision: .*'f32', 'bf16', 'int8' or 'auto'.*'fp16'",
        ),
        ({"source": {"kind": "ftp"}}, "source: .*'directory', 'kafka'"),
        ({"http": {"port": 99999}}, "http.port: .*seen 99999"),
        ({"model": {"while_building": "cpu"}}, "model.while_building: .*'wait' or 'openvino'"),
        ({"model": {"max_wait_ms": -1}}, "model.max_wait_ms: .*seen -1"),
        ({"journal": {"kind": "sqlite"}}, "journal.kind: .*'kafka' or 'local'.*'sqlite'"),
        ({"journal": {"guarantee": "always"}}, "journal.guarantee: .*'exactly-once'.*'always'"),
        ({"journal": {"prefix": "a b"}}, "journal.prefix: .*seen 'a b'"),
        ({"journal": {"commit_interval_s": 0}}, "journal.commit_interval_s: .*seen 0"),
        ({"silent_after_s": 0}, "silent_after_s: .*seen 0"),
        ({"forget_after_s": -1}, "forget_after_s: .*seen -1"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_key(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse({**GOOD, **change}, "my.yaml")

    assert str(caught.value).startswith("my.yaml: ")


NO_TOPICS = ["a b/c", "", ".", "..", "a" * 250, "türen", "a\n", "a:b", " a"]


@pytest.mark.parametrize("name", NO_TOPICS)
@pytest.mark.parametrize("key", ["source.topic", "sink.topic", "source.group_instance_id"])
def test_a_name_that_kafka_does_not_allow_is_refused(key, name):
    section, field = key.split(".")
    broker = {"kind": "kafka", "bootstrap_servers": "a:1", "topic": "t"}
    plain = {**GOOD, section: {**broker, field: name}}

    with pytest.raises(ConfigError, match="Kafka allows no such name, wanted") as no:
        parse(plain, "my.yaml")

    assert str(no.value).startswith(f"my.yaml: {section}.kafka.{field}: {name!r}: ")
    assert 1 == len(str(no.value).splitlines())
    if not name.endswith("\n"):  # Python's $ passes over it, which that of JSON Schema does not
        assert not Draft202012Validator(json_schema()).is_valid(plain)


@pytest.mark.parametrize("name", ["a", "...", "a" * 249, "S2netd_chunks-v1.x", ".a"])
def test_a_name_that_kafka_allows_is_taken(name):
    sink = {"kind": "kafka", "bootstrap_servers": "a:1", "topic": name}

    assert name == parse({**GOOD, "sink": sink}, "my.yaml").sink.topic
    assert Draft202012Validator(json_schema()).is_valid({**GOOD, "sink": sink})


def test_no_labels_at_all_are_refused_for_they_would_report_nothing():
    plain = {**GOOD, "model": {"labels": []}}

    with pytest.raises(ConfigError, match=r"x: model.labels: \[\] reports nothing; name a class"):
        parse(plain, "x")
    assert not Draft202012Validator(json_schema()).is_valid(plain)


LOGIN = {"sasl_username": "u", "sasl_password_file": "p"}


@pytest.mark.parametrize(
    "security",
    [
        {},
        {"protocol": "SSL"},
        {"protocol": "SSL", "ca_file": "ca", "certificate_file": "c", "key_file": "k"},
        {"protocol": "SASL_PLAINTEXT", **LOGIN},
        {"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", **LOGIN, "ca_file": "ca"},
        {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_token_file": "t"},
    ],
)
def test_whole_security_is_taken_from_a_file_of_its_own_as_from_a_configuration(
    tmp_path: Path, security: dict[str, str]
):
    path = tmp_path / "security.yaml"
    path.write_text(yaml.safe_dump(security))
    source = {"kind": "kafka", "bootstrap_servers": "a:1", "topic": "t", "security": security}

    config = parse({**GOOD, "source": source}, "my.yaml")

    assert config.source.security == load_security(path)


@pytest.mark.parametrize(
    ("security", "message"),
    [
        ({"ca_file": "ca"}, "ca_file is given, but protocol PLAINTEXT is not encrypted"),
        ({"certificate_file": "c", "key_file": "k"}, "certificate_file is given, but protocol PL"),
        ({"protocol": "SASL_PLAINTEXT", **LOGIN, "ca_file": "c"}, "ca_file is given, but protoc"),
        (LOGIN, "sasl_username is given, but protocol PLAINTEXT does not log in; set SASL_SSL"),
        (
            {"protocol": "SSL", "sasl_token_file": "t"},
            "sasl_token_file is given, but protocol SSL",
        ),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "sasl_mechanism is SCRAM-SHA-256, but protocol"),
        ({"protocol": "SASL_SSL"}, "sasl_username and sasl_password_file must be given too for"),
        ({"protocol": "SASL_SSL", "sasl_username": "u"}, "sasl_password_file must be given too"),
        (
            {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"},
            "sasl_token_file must be given too for SASL_SSL with OAUTHBEARER",
        ),
        (
            {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_token_file": "t"}
            | LOGIN,
            "sasl_username is given, but sasl_mechanism OAUTHBEARER does not use it; remove it",
        ),
        ({"protocol": "SSL", "certificate_file": "c"}, "key_file must be given too"),
        ({"protocol": "SSL", "key_file": "k"}, "certificate_file must be given too"),
        ({"protocol": "SSL", "key_password_file": "k"}, "certificate_file and key_file must be"),
        ({"protocol": "TLS"}, "protocol: Input should be 'PLAINTEXT', 'SSL',"),
    ],
)
def test_half_a_security_is_refused(tmp_path: Path, security: dict[str, str], message: str):
    path = tmp_path / "security.yaml"
    path.write_text(yaml.safe_dump(security))
    sink = {"kind": "kafka", "bootstrap_servers": "a:1", "topic": "t", "security": security}

    with pytest.raises(ConfigError, match=message) as caught:
        load_security(path)
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(ConfigError, match=message) as caught:
        parse({**GOOD, "sink": sink}, "my.yaml")
    assert str(caught.value).startswith("my.yaml: sink.kafka.security")
    assert 1 == len(str(caught.value).splitlines())


def test_a_gpu_is_configured_with_a_cpu_until_its_plans_are_built():
    model = {"backend": "tensorrt", "gpu": 1, "max_wait_ms": 4, "while_building": "openvino"}
    config = parse({**GOOD, "model": model}, "my.yaml").model

    first = first_model(config)

    assert ("tensorrt", 1, 4.0, True) == (
        config.backend,
        config.gpu,
        config.max_wait_ms,
        config.verify,
    )
    assert ("openvino", "auto") == (first.backend, first.precision)
    waiting = config.model_copy(update={"while_building": "wait"})
    assert waiting == first_model(waiting)


WITHOUT_JOURNAL = {key: GOOD[key] for key in ("source", "sink")}


@pytest.mark.parametrize(
    ("state", "journal"),
    [
        ({"path": "old.sqlite"}, {"path": "old.sqlite"}),
        ({"kind": "sqlite", "path": "old.sqlite"}, {"path": "old.sqlite"}),
        ({"kind": "sqlite"}, {}),
        ({}, {}),
    ],
)
def test_the_older_name_of_the_journal_s_path_is_read(state, journal):
    wanted = parse({**WITHOUT_JOURNAL, "journal": journal}, "x")

    assert wanted == parse({**WITHOUT_JOURNAL, "state": state}, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"state": {"path": "old.sqlite"}, "journal": {"path": "new.sqlite"}},
        {"state": {"kind": "redis", "path": "old.sqlite"}},
        {"state": {"path": "old.sqlite", "fsync": True}},
        {"state": "old.sqlite"},
    ],
)
def test_an_older_section_that_says_something_else_is_refused(change):
    with pytest.raises(ConfigError, match=r"my\.yaml: state: "):
        parse({**WITHOUT_JOURNAL, **change}, "my.yaml")


SOURCE = {"kind": "kafka", "bootstrap_servers": "a:1,b:2", "topic": "chunks"}
SINK = {"kind": "kafka", "bootstrap_servers": "b:2, c:3", "topic": "events"}
ELSEWHERE = {**SINK, "bootstrap_servers": "d:4"}
TO_KAFKA = {"source": SOURCE, "sink": SINK}


@pytest.mark.parametrize(
    ("changes", "is_kafka"),
    [
        ({}, False),
        ({"source": SOURCE}, False),
        ({"sink": SINK}, False),
        ({"source": SOURCE, "sink": ELSEWHERE}, False),
        (TO_KAFKA, True),
        ({**TO_KAFKA, "journal": {"kind": "local"}}, False),
        ({**TO_KAFKA, "journal": {"kind": "kafka"}}, True),
    ],
)
def test_the_journal_is_in_kafka_if_one_cluster_has_all(changes, is_kafka):
    assert is_kafka == parse({**GOOD, **changes}, "x").keeps_in_kafka


@pytest.mark.parametrize(
    "changes", [{}, {"source": SOURCE}, {"sink": SINK}, {"source": SOURCE, "sink": ELSEWHERE}]
)
def test_a_journal_in_kafka_needs_one_cluster_for_all(changes):
    with pytest.raises(ConfigError, match="needs a source and a sink of kind kafka with the same"):
        parse({**GOOD, **changes, "journal": {"kind": "kafka"}}, "my.yaml")


def test_a_missing_section_is_named():
    with pytest.raises(ConfigError, match="sink: is missing"):
        parse({key: GOOD[key] for key in ("source", "journal")}, "my.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not YAML"), ("- 1", "holds list, wanted keys"), ("", "holds NoneType")],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")


def test_the_committed_schema_is_the_one_the_code_gives():
    committed = json.loads((CHECKOUT / "configs" / "daemon.schema.json").read_text())

    assert committed == json_schema(), "run: s2netd schema config > configs/daemon.schema.json"


def test_rungs_are_those_of_the_engine():
    assert [rung.value for rung in Rung] == list(get_args(RungName))


def test_the_defaults_can_be_written_down_and_read_back():
    config = parse(GOOD, "x")

    assert config == parse(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))), "x")


def test_every_key_tells_what_it_is():
    for name, model in json_schema()["$defs"].items():
        for key, field in model["properties"].items():
            if "const" not in field and "$ref" not in field:
                assert "description" in field, f"{name}.{key}"


@pytest.mark.parametrize(
    "text", ["site: 2024-13-45", "site: !!int x", "[" * 5000, "a: " + "9" * 5000]
)
def test_yaml_that_breaks_the_parser_is_the_operators_mistake(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml: "):
        load(path)
