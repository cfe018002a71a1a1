"""A real daemon whose broker is away, whose disk is full, or whose files hang.

It waits, says so, goes on by itself, and ends in time when it is told to.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import free_port
from tests.support.kafka import OwnBroker
from tests.support.processes import (
    PATIENCE_S,
    S2NETD,
    read_events,
    s2netd,
    start_s2netd,
    wait_until,
    without_ids,
    write_config,
)
from tests.support.small_disk import fill, small_disk

__all__ = ["small_disk"]

pytestmark = [pytest.mark.slow, pytest.mark.openvino]

DEADLINE_S = 12.0
# A stop is measured from outside, on a machine that may be busy; what hangs would take for ever.
MARGIN_S = 20.0


# The daemon with a system call that hangs, as on a disk or file server that is dead.
HANGING = """
import os, sys, time
name = sys.argv.pop(1)
setattr(os, name, lambda *arguments: time.sleep(1e6))
from daemon.cli import main
main()
"""


class Daemon:
    """A daemon as a process, and what it tells.

    Args:
        folder: Where its configuration and log lie.
        hanging: A system call of Python's ``os`` that never comes back, on whatever it is used.
        sections: Of its configuration.
    """

    def __init__(
        self, folder: Path, bundle: Path, *, hanging: str | None = None, **sections: Any
    ) -> None:
        self._port = free_port()
        config = write_config(
            folder / "daemon.yaml",
            **{
                "model": {"bundle": str(bundle), "precision": "f32"},
                "http": {"port": self._port},
                "drain_timeout_s": DEADLINE_S,
                **sections,
            },
        )
        self.log = folder / "daemon.log"
        if hanging is None:
            self.process = start_s2netd("run", "--config", config, log=self.log)
            return
        command = [sys.executable, "-c", HANGING, hanging, "run", "--config", config]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def asked(self, path: str) -> dict[str, Any]:
        """What /readyz or /livez says; empty while nothing answers."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as answer:
                return json.load(answer)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            return json.load(error)  # type: ignore[no-any-return]
        except OSError:
            return {}

    def metrics(self) -> str:
        """What /metrics says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
            return str(answer.read().decode())

    def waits_for(self) -> list[str]:
        """What /readyz says it waits for."""
        return [each["for"] for each in self.asked("/readyz").get("waiting", [])]

    def logged(self, event: str) -> int:
        """How often that was logged."""
        return self.log.read_text().count(f'"event": "{event}"')

    def until(self, holds: Any) -> None:
        """Wait until something holds."""
        wait_until(holds, self.log.read_text)

    def stop(self) -> int:
        """SIGTERM; gives the exit code, and fails if the daemon takes too long."""
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert time.monotonic() - began_s < DEADLINE_S + MARGIN_S, self.log.read_text()
        return code


def put_chunks(clip: Path, root: Path, *cameras: str) -> None:
    for camera in cameras:
        command = [*S2NETD, "produce", str(clip), "--camera", camera, "--to", f"dir:{root}"]
        subprocess.run(command, check=True, capture_output=True)


def local(chunks: Path, place: Path) -> dict[str, Any]:
    return {
        "source": {"kind": "directory", "path": str(chunks)},
        "sink": {"kind": "jsonl", "path": str(place / "events.jsonl")},
        "journal": {"path": str(place / "journal.sqlite")},
    }


@pytest.mark.parametrize("journal", ["kafka", "local"])
def test_a_broker_that_is_away_at_the_start_is_waited_for(
    tmp_path: Path, bundle: Path, journal: str
) -> None:
    kafka = {"kind": "kafka", "bootstrap_servers": f"127.0.0.1:{free_port()}"}
    daemon = Daemon(
        tmp_path,
        bundle,
        source={**kafka, "topic": "chunks"},
        sink={**kafka, "topic": "events"},
        journal={"kind": journal, "path": str(tmp_path / "journal.sqlite")},
    )
    daemon.until(lambda: daemon.waits_for() == ["broker"])

    assert not daemon.asked("/readyz")["ready"]
    assert daemon.asked("/livez")["live"]
    daemon.until(lambda: daemon.logged("outage.began") == 1)
    assert "aiokafka" not in daemon.log.read_text()
    assert 0 == daemon.stop()


@pytest.mark.kafka
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "hangs"])
def test_a_daemon_whose_broker_has_gone_ends_in_order(
    tmp_path: Path, bundle: Path, clip: Path, own_broker: OwnBroker, sig: signal.Signals
) -> None:
    """With chunks that were read and never kept: they are read again."""
    address = own_broker.start()
    for topic in ("chunks", "events"):
        own_broker.run("topic", topic, "2")
    kafka = {"kind": "kafka", "bootstrap_servers": address}
    daemon = Daemon(
        tmp_path,
        bundle,
        source={**kafka, "topic": "chunks", "group_id": "g"},
        sink={**kafka, "topic": "events"},
    )
    daemon.until(lambda: bool(daemon.logged("daemon.ready")))
    to = ("--to", "kafka:chunks", "--bootstrap", address)
    for camera in "abcd":
        assert 0 == s2netd("produce", clip, "--camera", camera, *to).returncode
    daemon.until(lambda: bool(daemon.logged("stream.opened")))
    own_broker.signal(sig)
    daemon.until(lambda: daemon.waits_for() == ["broker"])

    code = daemon.stop()
    if sig == signal.SIGSTOP:
        own_broker.signal(signal.SIGCONT)  # or it could not be stopped
    assert 0 == code, daemon.log.read_text()
    assert not daemon.logged("daemon.cut_short")


def test_a_full_disk_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, bundle: Path, clip: Path, localized: list[Any], small_disk: Path
) -> None:
    put_chunks(clip, tmp_path / "chunks", "a")
    ours = tmp_path / "chunks" / "a"
    shutil.move(ours, tmp_path / "later")
    daemon = Daemon(tmp_path, bundle, **local(tmp_path / "chunks", small_disk))
    daemon.until(lambda: bool(daemon.logged("daemon.ready")))
    filler = fill(small_disk)
    shutil.move(tmp_path / "later", ours)
    daemon.until(lambda: daemon.waits_for() == ["disk"])

    assert not daemon.asked("/readyz")["ready"]
    assert daemon.asked("/livez")["live"]
    filler.unlink()
    daemon.until(lambda: without_ids(read_events(small_disk / "events.jsonl")) == localized)
    daemon.until(lambda: bool(daemon.asked("/readyz")["ready"]))
    daemon.until(lambda: bool(daemon.logged("outage.over")))
    assert 0 == daemon.stop()
    assert 1 == daemon.logged("outage.began") == daemon.logged("outage.over")


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_daemon_whose_disk_is_full_ends_in_time(
    tmp_path: Path, bundle: Path, clip: Path, small_disk: Path, when: str
) -> None:
    (tmp_path / "chunks").mkdir()
    if when == "at the start":
        fill(small_disk)
    daemon = Daemon(tmp_path, bundle, **local(tmp_path / "chunks", small_disk))
    if when == "later":
        daemon.until(lambda: bool(daemon.logged("daemon.ready")))
        fill(small_disk)
        put_chunks(clip, tmp_path / "chunks", "a")
    daemon.until(lambda: daemon.waits_for() == ["disk"])

    assert 0 == daemon.stop()


def test_a_pipe_in_one_folder_costs_no_other_camera_anything(
    tmp_path: Path, bundle: Path, clip: Path, localized: list[Any]
) -> None:
    chunks = tmp_path / "chunks"
    (chunks / "a").mkdir(parents=True)
    for name in ("0000000000.mp4", "0000000001.json"):
        os.mkfifo(chunks / "a" / name)
    (chunks / "a" / "0000000001.mp4").write_bytes(b"video")
    put_chunks(clip, chunks, "b")
    daemon = Daemon(tmp_path, bundle, **local(chunks, tmp_path))
    daemon.until(lambda: without_ids(read_events(tmp_path / "events.jsonl")) == localized)
    # Of like lines one a minute is said; the dead letters are counted.
    refused = 's2netd_corrupt_chunks_total{camera="a",error="MalformedRecordError"} 2.0'
    daemon.until(lambda: refused in daemon.metrics())
    assert "is no regular file" in daemon.log.read_text()

    assert daemon.asked("/readyz")["ready"]
    assert 0 == daemon.stop()


@pytest.mark.parametrize(
    ("call", "named"), [("fsync", "events"), ("pread", "events"), ("scandir", "chunk folder")]
)
def test_a_call_that_hangs_is_named_and_delays_no_end(
    tmp_path: Path, bundle: Path, call: str, named: str
) -> None:
    (tmp_path / "chunks").mkdir()
    (tmp_path / "events.jsonl").write_bytes(b"torn")
    daemon = Daemon(tmp_path, bundle, hanging=call, **local(tmp_path / "chunks", tmp_path))

    def hangs() -> bool:
        calls = daemon.asked("/livez").get("running_calls", [])
        return [each["what"] for each in calls if each["seconds"] > 1] == [named]

    daemon.until(hangs)
    daemon.until(lambda: not daemon.asked("/readyz")["ready"])
    code, log = daemon.stop(), daemon.log.read_text()
    # A look at a folder is left to its thread; what may have half written something is not.
    assert (0 if named == "chunk folder" else 1) == code
    is_named = f'"hanging": ["{named}"], "event": "daemon.cut_short"' in log
    assert is_named == (named != "chunk folder")
