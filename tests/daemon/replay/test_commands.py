"""`s2netd replay` and `s2netd features`: a mistake is one line that says what to do."""

from pathlib import Path

import pytest

from tests.support.cli import Cli, in_process
from tests.support.processes import write_config
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    monkeypatch.chdir(tmp_path)
    return in_process(monkeypatch, capsys)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A configuration whose journal is a file."""
    return write_config(
        tmp_path / "local.yaml",
        model={"bundle": str(write_tiny_bundle(tmp_path / "tiny"))},
        source={"kind": "directory", "path": "chunks"},
        sink={"kind": "jsonl", "path": "events.jsonl"},
    )


def test_a_journal_in_a_file_keeps_no_feature_log(cli: Cli, local: Path) -> None:
    for command in (("replay", "--from-features"), ("features", "export", "--out", "log")):
        answer = cli(*command, "--config", local)

        assert 78 == answer.code
        assert "a feature log is kept by a journal in Kafka" in answer.complaint


def test_what_is_replayed_must_be_said(cli: Cli, local: Path) -> None:
    answer = cli("replay", "--config", local)

    assert 78 == answer.code
    assert "add --from-features" in answer.complaint


def test_a_moment_that_is_none_is_refused(cli: Cli, local: Path) -> None:
    answer = cli("replay", "--from-features", "--config", local, "--since", "yesterday")

    assert 78 == answer.code
    assert "--since is 'yesterday', wanted a moment such as" in answer.complaint
