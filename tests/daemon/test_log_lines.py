"""What a log line may be, however hostile what it tells of."""

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
import typer
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli import app as s2netd
from daemon.errors import MalformedRecordError
from daemon.log_lines import MOST_LINE_CHARS, PERIOD_S, Floods, bounded
from daemon.logs import EVENTS, MOST_A_MINUTE, set_up
from daemon.models.slot import ServingStatus
from daemon.text import cut, cut_as_json
from tests.support.checkout import CHECKOUT
from training.cli import app as s2net

FORMS: list[Literal["json", "console"]] = ["json", "console"]
HIDDEN = "local-secret-7"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def hostile() -> dict[str, Any]:
    megabytes = 8 * 2**20
    return {
        "text": "x" * megabytes,
        "control": "\0" * megabytes,
        "wide": "\N{FILM FRAMES}" * megabytes,
        "bytes": b"\xff" * megabytes,
        "list": ["y" * 1000] * 5000,
        "nested": {"a": [{"b": "z" * megabytes}]},
        "number": 10**6000,
        "error": MalformedRecordError("\x1b" * megabytes),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", list(hostile()))
def test_a_field_is_cut_and_says_so(form, key: str) -> None:
    out = io.StringIO()
    set_up(form, "info", out).warning("chunk.dropped", **{key: hostile()[key]})

    line = out.getvalue()
    assert len(line) <= MOST_LINE_CHARS
    assert 1 == len(line.splitlines())
    assert "cut)" in line or "<int>" in line
    assert "chunk.dropped" in line


@pytest.mark.parametrize("form", FORMS)
def test_a_line_is_cut_however_many_fields_it_has(form) -> None:
    out = io.StringIO()
    fields = {f"field_{n}": "\x01" * 5000 for n in range(500)}
    set_up(form, "info", out).warning("chunk.dropped", **fields)

    line = out.getvalue()
    assert len(line) <= MOST_LINE_CHARS
    assert "fields_cut" in line
    assert "chunk.dropped" in line


@pytest.mark.parametrize("form", FORMS)
def test_a_libraries_words_are_cut_and_named(form) -> None:
    out = io.StringIO()
    set_up(form, "info", out)
    logging.getLogger("some.library").warning("bad broker %s", "\r\n" * 2**20)

    line = out.getvalue()
    assert len(line) <= MOST_LINE_CHARS
    assert 1 == len(line.splitlines())
    assert "library.said" in line
    assert "some.library" in line
    assert "bad broker" in line


def test_short_fields_stay_as_they_are() -> None:
    out = io.StringIO()
    keys = ["model.bundle", "site"]
    set_up("json", "info", out).info("config.reloaded", changed=keys, n=3, ok=True, none=None)

    entry = json.loads(out.getvalue())
    assert (keys, 3, True, None) == tuple(entry[key] for key in ("changed", "n", "ok", "none"))


@given(st.dictionaries(st.text(max_size=80), st.text(max_size=4000), max_size=80))
def test_no_line_is_longer_than_the_bound(fields: dict[str, str]) -> None:
    fields |= {"event": "chunk.dropped", "level": "warning", "timestamp": "2026-11-28T00:00:00Z"}
    shown = bounded(None, "warning", dict(fields))

    assert len(json.dumps(shown)) <= MOST_LINE_CHARS
    assert "chunk.dropped" == shown["event"]


def test_what_acts_on_a_terminal_is_escaped() -> None:
    out = io.StringIO()
    set_up("console", "info", out).warning("chunk.dropped", camera="a\x1b[2J\x85b\udc80")

    assert "\x1b" not in out.getvalue()
    assert r"a\x1b[2J\x85b\udc80" in out.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_tracebacks_are_plain_and_show_no_local_variables(form) -> None:
    def fail() -> None:
        password = HIDDEN
        raise RuntimeError(f"broken {password[:5]}")

    out = io.StringIO()
    log = set_up(form, "info", out)
    try:
        fail()
    except RuntimeError:
        log.exception("daemon.failed")
        logging.getLogger("asyncio").exception("never retrieved")

    text = out.getvalue()
    assert 2 == text.count("Traceback (most recent call last)")
    assert 2 == text.count("RuntimeError: broken local")
    assert HIDDEN not in text


@pytest.mark.parametrize("form", FORMS)
def test_of_a_long_traceback_the_end_is_kept(form) -> None:
    out = io.StringIO()
    log = set_up(form, "info", out)
    try:
        {}["\0" * 2**22 + "the end"]
    except KeyError:
        log.exception("daemon.failed", reason="r" * 2**22)

    assert len(out.getvalue()) <= MOST_LINE_CHARS
    assert "characters cut)" in out.getvalue()
    assert "the end" in out.getvalue()


def test_a_reason_is_cut_for_dead_letters_and_readyz() -> None:
    status = ServingStatus()
    status.failed("x" * 10**6)

    assert "short" == cut("short")
    assert len(cut("x" * 10**6)) <= 1000
    assert cut("x" * 10**6).endswith("(1000000 characters, cut)")
    assert cut("x" * 10**6) == status.report()["last_error"]


@given(st.text(max_size=300), st.integers(20, 200), st.booleans())
def test_a_cut_text_tells_how_much_is_missing(text: str, most: int, keep_end) -> None:
    shown = cut_as_json(text, most, keep_end=keep_end)

    if len(json.dumps(text)) - 2 <= most:
        assert text == shown
        return
    kept = shown.partition(" ...")[2] if keep_end else shown.rpartition("... ")[0]
    n_cut = len(text) - len(kept)
    assert f"({n_cut} characters cut)" in shown
    assert text.endswith(kept) if keep_end else text.startswith(kept)


def test_one_line_a_minute_of_one_fault_and_the_others_are_counted() -> None:
    now_s = [0.0]
    floods = Floods(lambda: now_s[0], MOST_A_MINUTE)

    def passed(event: str, **fields: str) -> int | None:
        try:
            told = floods(None, "warning", {"event": event, **fields})
        except structlog.DropEvent:
            return None
        return told.get("n_untold", 0)

    one = [passed("stream.gap", camera="a", reason=f"at {n}") for n in range(100)]
    assert [0, *[None] * 99] == one
    assert 0 == passed("stream.gap", camera="b")  # another camera
    assert 0 == passed("stream.gap", camera="a", error="RefusedChunkError")  # another fault
    assert [0] * 100 == [passed("model.swapped") for _ in range(100)]
    now_s[0] = PERIOD_S
    assert [99, None] == [passed("stream.gap", camera="a") for _ in range(2)]
    now_s[0] = 3 * PERIOD_S
    ended = {kind[:2]: n for kind, n in floods.ended()}
    assert {("stream.gap", "a"): 1} == ended
    assert [] == floods.ended()


def test_what_is_remembered_of_floods_is_bounded() -> None:
    floods = Floods(lambda: 0.0, {"stream.gap": 1})
    for number in range(10_000):
        floods(None, "warning", {"event": "stream.gap", "camera": str(number)})
        floods.ended()

    assert len(floods._seen) <= 4096 + 1


def test_a_librarys_flood_is_one_line_and_another_wording_is_another() -> None:
    out = io.StringIO()
    set_up("json", "info", out)
    for number in range(100):
        logging.getLogger("some.library").warning("no connection to node %d", number)
    logging.getLogger("some.library").warning("something else")

    said = [json.loads(line)["said"] for line in out.getvalue().splitlines()]
    assert ["no connection to node 0", "something else"] == said


def test_each_thing_that_our_own_parts_name_is_said_once_a_minute() -> None:
    out = io.StringIO()
    set_up("json", "info", out)
    for name in ("a", "b", "a"):
        logging.getLogger("daemon.sources.directory").warning("folder %s is no camera", name)

    said = [json.loads(line)["said"] for line in out.getvalue().splitlines()]
    assert ["folder a is no camera", "folder b is no camera"] == said


def test_a_flood_is_one_line_in_the_log_that_is_set_up() -> None:
    out = io.StringIO()
    log = set_up("json", "info", out).bind(camera="hall")
    for number in range(50):
        log.warning("stream.gap", offset=number, reason="no video")

    (line,) = out.getvalue().splitlines()
    assert ("hall", 0) == (json.loads(line)["camera"], json.loads(line)["offset"])


def test_what_may_be_left_out_is_an_event() -> None:
    assert set(MOST_A_MINUTE) <= set(EVENTS)


@pytest.mark.parametrize("form", FORMS)
def test_the_journal_is_told_how_bad_it_is_line_by_line(
    form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    with path.open("w") as out:
        status = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log = set_up(form, "debug", out)
        for method in ("debug", "info", "warning", "error"):
            getattr(log, method)("daemon.failed")
        try:
            {}["none"]
        except KeyError:
            log.exception("daemon.failed")
        logging.getLogger("some.library").error("gone")

    lines = path.read_text().splitlines()
    assert ["<7>", "<6>", "<4>", "<3>"] == [line[:3] for line in lines[:4]]
    assert {"<3>"} == {line[:3] for line in lines[4:]}
    assert len(lines) >= 6
    if form == "json":
        assert all(json.loads(line[3:]) for line in lines)


def test_a_configuration_that_cannot_be_used_is_an_error_to_the_journal(tmp_path: Path) -> None:
    config, said = tmp_path / "wrong.yaml", tmp_path / "said"
    config.write_text("sauce: {}\nsource: []\n")
    with said.open("w") as out:
        status = os.fstat(out.fileno())
        command = [sys.executable, "-m", "daemon", "run", "--config", config]
        stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        done = subprocess.run(command, stderr=out, env=os.environ | stream, check=False)

    assert 78 == done.returncode
    lines = said.read_text().splitlines()
    assert len(lines) >= 2
    assert {"<3>"} == {line[:3] for line in lines}


@pytest.mark.parametrize("stream", ["", "1:2", "nonsense"])
def test_nobody_else_is_told_priorities(
    stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    with (tmp_path / "log").open("w") as out:
        set_up("json", "info", out).error("daemon.failed")

    assert "daemon.failed" == json.loads((tmp_path / "log").read_text())["event"]


def test_every_event_that_is_logged_is_listed_and_the_other_way_round() -> None:
    assert set(EVENTS) == set(logged_events())


def test_the_runbook_says_of_each_event_what_to_do_and_at_which_level_it_comes() -> None:
    text = (CHECKOUT / "docs" / "runbook.md").read_text()
    table = text.partition("\n## Log lines\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z._]+)` \| ([a-z, ]+) \| (.+) \| (.+) \|$", table, re.MULTILINE)

    assert sorted(EVENTS) == sorted(event for event, *_ in rows)
    logged = logged_events()
    for event, levels, meaning, what_to_do in rows:
        assert meaning
        assert what_to_do
        assert logged[event] in ({"any"}, set(levels.split(", "))), event


def logged_events() -> dict[str, set[str]]:
    """Event → at which levels the daemon's code logs it; prose goes through ``library.said``."""
    found: dict[str, set[str]] = {"library.said": {"warning", "error"}}
    for path in (CHECKOUT / "daemon").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            method = node.func.attr
            if method in ("debug", "info", "warning", "error", "exception") and node.args:
                for name in names_in(node.args[0]):
                    found.setdefault(name, set()).add("error" if method == "exception" else method)
            elif method == "log" and len(node.args) > 1:
                for name in names_in(node.args[1]):
                    found.setdefault(name, set()).add("any")
    return found


def names_in(argument: ast.expr) -> list[str]:
    """The events that an argument may be: itself, or either side of a condition."""
    texts = [node.value for node in ast.walk(argument) if isinstance(node, ast.Constant)]
    return [text for text in texts if re.fullmatch(r"[a-z]+\.[a-z_]+", str(text))]


@pytest.mark.parametrize("app", [s2netd, s2net])
def test_no_command_shows_local_variables(app: typer.Typer) -> None:
    assert not app.pretty_exceptions_enable
    assert not app.pretty_exceptions_show_locals


def test_nothing_installs_tracebacks_with_local_variables() -> None:
    for package in ("daemon", "engine", "training"):
        for path in (CHECKOUT / package).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"rich\.traceback|show_locals=True|cgitb", text), path
