"""The shipped unit on a real systemd: start, stop, hang, wrong configuration, sandbox.

The manager is PID 1 of namespaces of its own (tests/support/systemd.py), the daemon is the real
one with a two-layer network.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.footage import BUSY, colour_clip
from tests.support.real_parts import missing
from tests.support.systemd import PRODUCE_UNIT, UNIT, SystemManager, why_no_manager
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.systemd

# systemd-analyze counts in tenths; 2.0 and below is the best of its grades.
MOST_EXPOSURE = 20

HALL = "s2netd@hall.service"
CONFIG = """
model: {bundle: /etc/s2netd/tiny, precision: f32}
source: {kind: directory, path: chunks}
sink: {kind: jsonl, path: events.jsonl}
state: {kind: sqlite, path: state.sqlite}
http: {port: 0}
"""
A_BROKER = """
source:
  kind: kafka
  bootstrap_servers: localhost:9092
  topic: chunks
  security:
    protocol: SASL_PLAINTEXT
    sasl_username: u
    sasl_password_file: kafka-password
"""


@pytest.fixture
def analyze() -> str:
    """The systemd-analyze command."""
    found = shutil.which("systemd-analyze")
    return found or missing("no systemd-analyze on this machine (Debian: apt install systemd)")


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemManager]:
    reason = why_no_manager()
    if reason:
        missing(reason)
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with SystemManager() as manager:
        shutil.copytree(bundle, manager.path("/etc/s2netd/tiny"))
        own = ["install", "-d", "-o", "s2netd", "-g", "s2netd"]
        manager.inside(*own, "/var/lib/s2netd/hall", "/var/lib/s2netd/hall/chunks")
        yield manager


@pytest.fixture
def manager(booted: SystemManager) -> Iterator[SystemManager]:
    """The manager with a good configuration and no instance running."""
    booted.path("/etc/s2netd/hall.yaml").write_text(CONFIG)
    booted.path("/run/hall.log").unlink(missing_ok=True)
    yield booted
    booted.systemctl("stop", HALL)
    booted.remove_drop_ins(HALL)
    booted.systemctl("reset-failed")


def running(manager: SystemManager) -> str:
    """Start the instance; its main PID."""
    manager.systemctl("start", HALL)
    return manager.show(HALL, "MainPID")


@pytest.mark.parametrize(("shipped", "n_commands"), [(UNIT, 2), (PRODUCE_UNIT, 1)])
def test_analyze_verify_has_nothing_to_say(
    analyze: str, tmp_path: Path, shipped: Path, n_commands: int
) -> None:
    # The command must exist where it is verified; only its path is changed.
    text = shipped.read_text()
    installed = "=/opt/s2netd/venv/bin/s2netd "
    assert n_commands == text.count(installed)
    unit = tmp_path / shipped.name
    unit.write_text(text.replace(installed, "=/bin/true "))
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    # Its status is 0 even where it says that a key is unknown.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [UNIT, PRODUCE_UNIT])
def test_analyze_security_counts_little_exposure(analyze: str, unit: Path) -> None:
    threshold = f"--threshold={MOST_EXPOSURE}"
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", threshold, unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_start_returns_when_the_model_is_warm(manager: SystemManager) -> None:
    running(manager)
    assert manager.show(HALL, "SubState") == "running"
    assert manager.show(HALL, "StatusText") != ""
    assert "daemon.ready" in events_logged(manager)


def test_sigterm_ends_it_cleanly_and_for_good(manager: SystemManager) -> None:
    running(manager)
    manager.kill_main(HALL, signal.SIGTERM)
    manager.wait_for(HALL, "ActiveState", "inactive")
    seen = {prop: manager.show(HALL, prop) for prop in ("Result", "ExecMainStatus", "NRestarts")}
    assert seen == {"Result": "success", "ExecMainStatus": "0", "NRestarts": "0"}


def test_a_reload_brings_another_model_in_without_a_restart(manager: SystemManager) -> None:
    pid = running(manager)
    manager.path("/etc/s2netd/hall.yaml").write_text(
        CONFIG.replace("precision: f32", "precision: f32, open_score: 0.9")
    )
    manager.systemctl("reload", HALL)
    manager.wait_until(lambda: "model.closed" in events_logged(manager), "the old model is closed")
    assert "model.swapped" in events_logged(manager)
    assert manager.show(HALL, "MainPID") == pid
    manager.wait_for(HALL, "StatusText", "consuming")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("http:", "sauce: {}\nhttp:", "sauce: unknown key"),
        ("http:", "site: a\nsite: b\nhttp:", "is not YAML: line 7: key 'site' stands in line 6"),
        ("/etc/s2netd/tiny", "/etc/s2netd/none", "model: /etc/s2netd/none is no bundle"),
        ("precision: f32", "labels: [gren]", "labels: 'gren' is none of the model's 2 classes"),
        (
            "events.jsonl",
            "/usr/events.jsonl",
            "sink.path: /usr/events.jsonl: cannot be written in /usr: Read-o",
        ),
        ("path: chunks", "path: chips", "source.path: chips: no such folder"),
    ],
)
def test_a_reload_of_what_cannot_run_fails_and_the_daemon_goes_on(
    manager: SystemManager, old: str, new: str, told: str
) -> None:
    pid = running(manager)
    assert old in CONFIG
    manager.path("/etc/s2netd/hall.yaml").write_text(CONFIG.replace(old, new))
    before = events_logged(manager)

    with pytest.raises(RuntimeError, match="failed"):
        manager.systemctl("reload", HALL)

    assert told in manager.log("hall")
    seen = [manager.show(HALL, prop) for prop in ("ActiveState", "MainPID", "NRestarts")]
    assert ["active", pid, "0"] == seen
    assert before == events_logged(manager)  # it was not even asked
    manager.path("/etc/s2netd/hall.yaml").write_text(CONFIG)
    manager.systemctl("reload", HALL)
    manager.wait_until(lambda: "config.reloaded" in events_logged(manager), "the next reload")


@pytest.mark.slow
def test_a_reload_sees_the_credentials_that_the_daemon_sees(manager: SystemManager) -> None:
    secret = manager.path("/etc/kafka-password")
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    manager.drop_in(HALL, "[Service]\nLoadCredential=kafka-password:/etc/kafka-password\n")
    running(manager)
    manager.path("/etc/s2netd/hall.yaml").write_text(
        CONFIG.replace("source: {kind: directory, path: chunks}", A_BROKER)
    )

    manager.systemctl("reload", HALL)

    manager.wait_until(
        lambda: "config.restart_needed" in events_logged(manager), "the file is read again"
    )


@pytest.mark.slow
def test_a_hung_daemon_is_ended_by_the_watchdog_and_restarted(manager: SystemManager) -> None:
    manager.drop_in(HALL, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    first = running(manager)
    manager.kill_main(HALL, signal.SIGSTOP)
    manager.wait_for(HALL, "NRestarts", "1")
    manager.wait_for(HALL, "SubState", "running")
    assert manager.show(HALL, "MainPID") != first


@pytest.mark.slow
def test_a_killed_daemon_is_restarted(manager: SystemManager) -> None:
    first = running(manager)
    manager.kill_main(HALL, signal.SIGKILL)
    manager.wait_for(HALL, "NRestarts", "1")
    manager.wait_for(HALL, "SubState", "running")
    assert manager.show(HALL, "MainPID") != first


@pytest.mark.slow
def test_what_the_watchdog_ends_leaves_a_traceback_of_every_thread(manager: SystemManager) -> None:
    running(manager)
    manager.kill_main(HALL, signal.SIGABRT)  # WatchdogSignal= is this by default
    manager.wait_for(HALL, "NRestarts", "1")
    assert "Fatal Python error: Aborted" in manager.log("hall")
    assert 'daemon/compose.py", line' in manager.log("hall")  # the main thread
    assert "\nThread 0x" in manager.log("hall")  # the others


def test_a_broker_that_is_away_is_no_failure(manager: SystemManager) -> None:
    kafka = "kind: kafka, bootstrap_servers: '127.0.0.1:1'"
    config = manager.path("/etc/s2netd/hall.yaml")
    config.write_text(
        CONFIG.replace("kind: directory, path: chunks", f"{kafka}, topic: chunks").replace(
            "kind: jsonl, path: events.jsonl", f"{kafka}, topic: events"
        )
    )
    pid = running(manager)  # the start is over, or a machine that boots would wait for it
    assert manager.show(HALL, "StatusText").startswith("waiting for broker: ")
    assert manager.show(HALL, "SubState") == "running"
    assert "outage.began" in events_logged(manager)
    manager.kill_main(HALL, signal.SIGTERM)
    manager.wait_for(HALL, "ActiveState", "inactive")
    seen = {prop: manager.show(HALL, prop) for prop in ("Result", "ExecMainStatus", "NRestarts")}
    assert seen == {"Result": "success", "ExecMainStatus": "0", "NRestarts": "0"}
    assert pid


@pytest.mark.slow
def test_however_often_it_fails_it_is_started_again(manager: SystemManager) -> None:
    manager.drop_in(HALL, "[Service]\nRestartSec=100ms\n")
    running(manager)
    for n in range(1, 13):  # systemd gives up after five by default
        manager.wait_until(
            lambda: manager.show(HALL, "MainPID") != "0", "a process that can be killed"
        )
        manager.kill_main(HALL, signal.SIGKILL)
        manager.wait_until(lambda n=n: int(manager.show(HALL, "NRestarts")) >= n, f"restart {n}")
    manager.wait_for(HALL, "SubState", "running")


def test_a_wrong_configuration_is_not_tried_again(manager: SystemManager) -> None:
    manager.path("/etc/s2netd/hall.yaml").write_text(CONFIG + "sauce: {}\n")
    with pytest.raises(RuntimeError, match="failed"):
        manager.systemctl("start", HALL)
    # It would be "auto-restart" where another try was coming.
    manager.wait_for(HALL, "SubState", "failed")
    assert manager.show(HALL, "ExecMainStatus") == "78"
    assert manager.show(HALL, "NRestarts") == "0"
    assert "/etc/s2netd/hall.yaml: sauce: unknown key" in manager.log("hall")


@pytest.mark.slow
def test_video_becomes_events_inside_the_sandbox(manager: SystemManager, tmp_path: Path) -> None:
    clip = colour_clip(tmp_path / "clip.mp4", BUSY)
    command = [sys.executable, "-m", "daemon", "produce", str(clip), "--camera", "door"]
    subprocess.run(
        [*command, "--to", f"dir:{tmp_path / 'chunks'}"], check=True, capture_output=True
    )
    shutil.copytree(tmp_path / "chunks" / "door", manager.path("/var/lib/s2netd/hall/chunks/door"))
    running(manager)
    manager.wait_until(lambda: "stream.ended" in events_logged(manager), "the end of the clip")
    written = manager.path("/var/lib/s2netd/hall/events.jsonl")

    def finals() -> set[str]:
        whole = written.read_text().rpartition("\n")[0].splitlines()
        return {record["label"] for record in map(json.loads, whole) if record["final"]}

    # The end is logged when it is known, and its events are written a step later.
    manager.wait_until(lambda: finals() == {"red", "green"}, "both events' last words")


def test_it_runs_as_its_user_and_writes_only_its_own_folders(manager: SystemManager) -> None:
    pid = running(manager)
    status = manager.inside("cat", f"/proc/{pid}/status")
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    assert manager.inside("stat", "--format=%U", f"/proc/{pid}").strip() == "s2netd"
    assert manager.inside("stat", "--format=%U", "/var/lib/s2netd/hall/state.sqlite") == "s2netd\n"
    mounts = manager.inside("cat", f"/proc/{pid}/mountinfo").splitlines()
    writable = {line.split()[4] for line in mounts if line.split()[5].startswith("rw")}
    assert writable >= {"/var/lib/s2netd/hall", "/var/cache/s2netd"}
    assert not writable & {"/", "/etc", "/opt", "/usr", "/home"}


def events_logged(manager: SystemManager) -> list[str]:
    """Event names of the daemon's log lines; those of its checks are no JSON."""
    lines = [line for line in manager.log("hall").splitlines() if line.startswith("{")]
    return [json.loads(line)["event"] for line in lines]
