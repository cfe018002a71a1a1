import json
from pathlib import Path

import pytest
import yaml

from daemon.config import json_schema, load, parse
from daemon.errors import ConfigError
from daemon.starting import first_model
from tests.support.checkout import CHECKOUT

GOOD = {
    "source": {"kind": "directory", "path": "chunks"},
    "sink": {"kind": "jsonl", "path": "events.jsonl"},
    "state": {"path": "state.sqlite"},
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
        ({"model": {"precision": "fp16"}}, "model.precision: .*'f32', 'bf16' or 'auto'.*'fp16'"),
        ({"source": {"kind": "ftp"}}, "source: .*'directory', 'kafka'"),
        ({"http": {"port": 99999}}, "http.port: .*seen 99999"),
        ({"model": {"while_building": "cpu"}}, "model.while_building: .*'wait' or 'openvino'"),
        ({"model": {"max_wait_ms": -1}}, "model.max_wait_ms: .*seen -1"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_key(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse({**GOOD, **change}, "my.yaml")

    assert str(caught.value).startswith("my.yaml: ")


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


def test_a_missing_section_is_named():
    with pytest.raises(ConfigError, match="sink: is missing"):
        parse({key: GOOD[key] for key in ("source", "state")}, "my.yaml")


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
