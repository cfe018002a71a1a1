"""The shipped unit of cameras on a real systemd: ready at once, hardened, and ended in time."""

import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.real_parts import missing
from tests.support.systemd import SystemManager, why_no_manager
from tests.support.videos import make_video

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

HALL = "s2netd-produce@hall.service"
CHUNKS = "/var/lib/s2netd/hall/chunks"


class _Camera(BaseHTTPRequestHandler):
    footage = make_video(container="mpegts", n_frames=50, gop=10)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        self.wfile.write(self.footage)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A camera outside; the manager's machine shares the network."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Camera) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/cam.ts"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def booted() -> Iterator[SystemManager]:
    reason = why_no_manager()
    if reason:
        missing(reason)
    with SystemManager() as manager:
        yield manager


@pytest.fixture
def manager(booted: SystemManager, url: str) -> Iterator[SystemManager]:
    write(booted, f"to: {{kind: directory, path: chunks}}\ncameras: {{gate: {{url: '{url}'}}}}\n")
    booted.path("/run/hall.cameras.log").unlink(missing_ok=True)
    yield booted
    booted.systemctl("stop", HALL)
    booted.remove_drop_ins(HALL)
    booted.systemctl("reset-failed")


def write(manager: SystemManager, text: str) -> None:
    manager.path("/etc/s2netd/hall.cameras.yaml").write_text(text)


def ended_well(manager: SystemManager) -> None:
    manager.kill_main(HALL, signal.SIGTERM)
    manager.wait_for(HALL, "ActiveState", "inactive")
    seen = {prop: manager.show(HALL, prop) for prop in ("Result", "ExecMainStatus", "NRestarts")}
    assert seen == {"Result": "success", "ExecMainStatus": "0", "NRestarts": "0"}


def test_cameras_become_chunks_inside_the_sandbox(manager: SystemManager) -> None:
    manager.systemctl("start", HALL)
    folder = manager.path(f"{CHUNKS}/gate")
    manager.wait_until(lambda: len(list(folder.glob("*.mp4"))) > 1, "chunks")
    manager.wait_until(
        lambda: " of 1 cameras live" in manager.show(HALL, "StatusText"), "a status"
    )
    pid = manager.show(HALL, "MainPID")
    status = manager.inside("cat", f"/proc/{pid}/status")
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    assert manager.inside("stat", "--format=%U", CHUNKS).strip() == "s2netd"
    ended_well(manager)


def test_what_is_away_is_no_failure(manager: SystemManager) -> None:
    to = "{kind: kafka, bootstrap_servers: '127.0.0.1:1', topic: chunks}"
    write(manager, f"to: {to}\ncameras: {{gate: {{url: 'rtsp://127.0.0.1:9/x'}}}}\n")
    manager.systemctl("start", HALL)
    manager.wait_until(
        lambda: manager.show(HALL, "StatusText").startswith("waiting for broker: "), "a status"
    )
    ended_well(manager)


def test_an_address_may_lie_in_a_file_that_others_cannot_read(
    manager: SystemManager, url: str
) -> None:
    path = "/etc/s2netd/gate.url"
    manager.path(path).write_text(url + "\n")
    manager.inside("chown", "root:s2netd", path)
    manager.inside("chmod", "640", path)
    write(
        manager,
        f"to: {{kind: directory, path: chunks}}\ncameras: {{yard: {{url_file: {path}}}}}\n",
    )
    manager.systemctl("start", HALL)
    folder = manager.path(f"{CHUNKS}/yard")
    manager.wait_until(lambda: len(list(folder.glob("*.mp4"))) > 0, "chunks")


def test_a_wrong_file_is_not_tried_again(manager: SystemManager) -> None:
    write(manager, "to: {kind: directory, path: chunks}\ncameras: {}\n")
    with pytest.raises(RuntimeError, match="failed"):
        manager.systemctl("start", HALL)
    manager.wait_for(HALL, "SubState", "failed")
    assert manager.show(HALL, "ExecMainStatus") == "78"
    assert manager.show(HALL, "NRestarts") == "0"
    assert "/etc/s2netd/hall.cameras.yaml: cameras: " in manager.log("hall.cameras")


def test_a_process_that_hangs_is_ended_by_the_watchdog(manager: SystemManager) -> None:
    manager.drop_in(HALL, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    manager.systemctl("start", HALL)
    manager.kill_main(HALL, signal.SIGSTOP)
    manager.wait_for(HALL, "NRestarts", "1")
    manager.wait_for(HALL, "SubState", "running")
