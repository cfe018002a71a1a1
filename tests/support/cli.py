"""The command `s2netd`, run inside the test's process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from daemon.cli import main


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind."""

    code: object
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr; a second one, or a traceback, fails the test."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert 1 == len(lines), self.err
        assert lines[0].startswith("s2netd: ")
        return lines[0]


Cli = Callable[..., Answer]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command's own entry point; the current folder and the environment are the test's."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["s2netd", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        seen = capsys.readouterr()
        return Answer(code, seen.out, seen.err)

    return run
