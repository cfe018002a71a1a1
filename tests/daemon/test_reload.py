"""SIGHUP: what the file says now, and what of it can be had without a restart."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config import ModelConfig, load
from daemon.logs import set_up
from daemon.reload import Reloader, changed_keys
from tests.support.daemons import LogCapture

PLAIN = {
    "model": {"bundle": "a", "max_batch": 8},
    "source": {"kind": "directory", "path": "chunks"},
    "sink": {"kind": "jsonl", "path": "events.jsonl"},
    "journal": {"path": "journal.sqlite"},
}


class Rig:
    """A reloader, its file, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "c.yaml"
        self.wanted: list[ModelConfig] = []
        self.logs = LogCapture()
        self.write()
        self.reloader = Reloader(self.file, load(self.file), self.logs.logger())

    def write(self, **changes: Any) -> None:
        self.file.write_text(yaml.safe_dump({**PLAIN, **changes}))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    one = Rig(tmp_path)
    one.reloader.begin(one.wanted.append)
    return one


def test_another_model_is_wanted(rig):
    rig.write(model={"bundle": "b", "labels": ["red"]})
    rig.reloader.reload()

    (model,) = rig.wanted
    assert ("b", ("red",)) == (model.bundle, model.labels)
    (told,) = rig.logs.named("config.reloaded")
    assert ["model.bundle", "model.labels"] == told["changed"]
    assert not rig.logs.named("config.restart_needed")


def test_the_same_model_is_wanted_again_for_its_folder_may_hold_another(rig):
    rig.reloader.reload()

    assert [load(rig.file).model] == rig.wanted


def test_what_needs_a_restart_is_named_each_time_and_the_rest_is_applied(rig):
    rig.write(
        model={"bundle": "b", "max_batch": 2, "max_wait_ms": 3},
        site="elsewhere",
        source={"kind": "kafka", "bootstrap_servers": "x:1", "topic": "t"},
    )
    for _ in range(2):
        rig.reloader.reload()

    first, second = rig.logs.named("config.restart_needed")
    assert first == second
    assert "site" in first["keys"]
    assert {"model.max_batch", "model.max_wait_ms"} < set(first["keys"])
    assert "model.bundle" not in first["keys"]
    # The device's batches stay as they were, and so does what a model is built for.
    assert [("b", 8, 0.0)] * 2 == [(m.bundle, m.max_batch, m.max_wait_ms) for m in rig.wanted]


@pytest.mark.parametrize("text", ["model: [", "", "model: {bundle: a}\n", "nosuch: 1\n"])
def test_a_file_that_is_no_good_changes_nothing(rig, text):
    rig.file.write_text(text)
    rig.reloader.reload()

    assert [] == rig.wanted
    assert 1 == len(rig.logs.named("config.refused"))


def test_a_file_that_is_gone_changes_nothing(rig):
    rig.file.unlink()
    rig.reloader.reload()

    assert [] == rig.wanted
    (refused,) = rig.logs.named("config.refused")
    assert "cannot be read" in str(refused["reason"])


def test_what_was_wanted_before_models_can_be_brought_in_is_wanted_then(tmp_path):
    early = Rig(tmp_path)
    for bundle in ("b", "c"):
        early.write(model={"bundle": bundle})
        early.reloader.reload()
    assert [] == early.wanted

    early.reloader.begin(early.wanted.append)

    assert ["c"] == [model.bundle for model in early.wanted]


def test_the_level_of_loggers_in_use_changes(rig):
    out = io.StringIO()
    log = set_up("json", "info", out).bind(camera="cam")
    log.debug("partition.paused")
    rig.write(log={"level": "debug"})
    rig.reloader.reload()
    log.debug("partition.resumed")
    rig.write(log={"level": "error"})
    rig.reloader.reload()
    log.warning("chunk.dropped")
    log.error("daemon.failed")

    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert ["partition.resumed", "daemon.failed"] == events


def test_changed_keys_are_named_to_the_leaf():
    before = {"a": {"b": 1, "c": {"d": 2}}, "e": 3, "kind": {"x": 1}}
    after = {"a": {"b": 1, "c": {"d": 4}}, "e": 3, "kind": None}

    assert ["a.c.d", "kind"] == sorted(changed_keys(before, after))
