"""The real `s2netd` as processes, on a tiny real network."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

S2NETD = [sys.executable, "-m", "daemon"]

# How long anything is waited for that must happen. No test is about this time: a machine may be as
# busy as it likes, and only what would never happen is ended by it.
PATIENCE_S = 240.0


def wait_until(holds: Callable[[], bool], what: Callable[[], str] = lambda: "") -> None:
    """Wait for what another process brings about; say where things stand if it never does."""
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, f"waited in vain: {what()}"
        time.sleep(0.05)


def s2netd(*arguments: object, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*S2NETD, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_s2netd(*arguments: object, log: Path) -> subprocess.Popen[bytes]:
    """Start a command; what it prints goes to ``log``."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [*S2NETD, *map(str, arguments)], stdout=out, stderr=out, env=dict(os.environ)
        )


def run_and_kill(
    config: Path, log: Path, rng: random.Random, *, after: Callable[[], bool] | None
) -> None:
    """A daemon's life that a SIGKILL ends, within a second of a moment.

    Args:
        config: Its configuration.
        log: What it and those before it log.
        rng: Says how much of the second it still has.
        after: Holds from that moment on; None: the moment is its start.
    """
    daemon = start_s2netd("run", "--config", config, log=log)

    def has_come() -> bool:
        assert daemon.poll() is None, log.read_text()
        return after is None or after()

    wait_until(has_come, log.read_text)
    time.sleep(rng.random())
    assert daemon.poll() is None, log.read_text()
    daemon.kill()
    daemon.wait()


def n_taken_up(log: Path) -> int:
    """How often a daemon went on with a camera, or began."""
    text = log.read_text() if log.exists() else ""
    return text.count("stream.restored") + text.count("stream.opened")


def write_config(path: Path, **sections: Any) -> Path:
    """A daemon's configuration with the sections every test wants alike."""
    plain = {
        "http": {"port": 0},
        "drain_timeout_s": 120,
        **sections,
    }
    path.write_text(yaml.safe_dump(plain))
    return path


def log_entries(text: str) -> list[dict[str, Any]]:
    """What a process has logged; the line that it is writing just now is left out."""
    lines = text.rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def read_events(path: Path) -> list[dict[str, Any]]:
    """All records of an events.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def final_state(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The consumer's rule: the highest revision of each event id."""
    latest: dict[str, dict[str, Any]] = {}
    for record in records:
        known = latest.get(record["event_id"])
        if known is None or record["revision"] >= known["revision"]:
            latest[record["event_id"]] = record
    return latest


def without_ids(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Final events, leaving out what must differ from one run of a producer to the next."""
    rows = [
        (
            record["label"],
            record["start"]["stream_us"],
            record["end"]["stream_us"],
            round(record["score"], 4),
            record["revision"],
            record["state"],
            record["reason"],
        )
        for record in final_state(records).values()
    ]
    return sorted(rows)


def assert_repeats_agree(records: list[dict[str, Any]]) -> None:
    """A record that came twice came with the same content."""
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        key = (record["event_id"], record["revision"])
        assert record == seen.setdefault(key, record)


def assert_each_once(records: list[dict[str, Any]]) -> None:
    """No revision was published a second time."""
    assert len(records) == len({(record["event_id"], record["revision"]) for record in records})
