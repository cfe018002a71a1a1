"""Health endpoints, metrics, logs and the service manager's protocol."""

import io
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from daemon.errors import ConfigError
from daemon.health import HealthServer
from daemon.logs import set_up
from daemon.metrics import Metrics
from daemon.systemd import Notifier
from tests.support.checkout import CHECKOUT


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=240) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_says_what_the_reports_say():
    state = {"ready": False}
    metrics = Metrics()
    metrics.chunks.labels("cam").inc(3)
    server = HealthServer(
        "127.0.0.1",
        0,
        metrics.registry,
        live=lambda: (True, {"live": True}),
        ready=lambda: (state["ready"], dict(state)),
    )
    try:
        assert (503, {"ready": False}) == _json(get(server.port, "/readyz"))
        state["ready"] = True
        assert (200, {"ready": True}) == _json(get(server.port, "/readyz"))
        assert (200, {"live": True}) == _json(get(server.port, "/livez"))
        assert 's2netd_chunks_total{camera="cam"} 3.0' in get(server.port, "/metrics")[1]
        assert 404 == get(server.port, "/")[0]
    finally:
        server.close()


def _json(answer: tuple[int, str]) -> tuple[int, object]:
    return answer[0], json.loads(answer[1])


def test_a_taken_port_is_named_with_the_fix():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}.*http.port"):
            HealthServer(
                "127.0.0.1", port, Metrics().registry, lambda: (True, {}), lambda: (True, {})
            )


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "no.such.invalid"])
def test_a_host_that_is_none_is_named_with_the_fix(host: str) -> None:
    with pytest.raises(ConfigError, match=rf"cannot listen on {host}:0: .*http\.port"):
        HealthServer(host, 0, Metrics().registry, lambda: (True, {}), lambda: (True, {}))


def test_every_metric_is_documented_and_the_other_way_round():
    documented = {
        line.split("`")[1]
        for line in (CHECKOUT / "docs" / "operating.md").read_text().splitlines()
        if line.startswith("| `s2netd_")
    }
    names = set()
    for family in Metrics().registry.collect():
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)

    assert names == documented


def test_two_daemons_fit_in_one_process():
    assert Metrics().registry is not Metrics().registry


def test_logs_are_one_json_object_a_line():
    out = io.StringIO()
    log = set_up("json", "info", out)
    log.warning("chunk.dropped", camera="cam", reason="corrupt")
    log.debug("chunk.duplicate")

    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert ("chunk.dropped", "warning", "cam") == (
        entry["event"],
        entry["level"],
        entry["camera"],
    )
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize("abstract", [False, True])
def test_the_notifier_speaks_the_protocol(tmp_path: Path, abstract):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = "@s2netd-test" if abstract else str(tmp_path / "notify")
        manager.bind("\0" + address[1:] if abstract else address)
        manager.settimeout(240)
        notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
        notifier.starting("building tiny")
        notifier.ready("consuming")
        notifier.alive()
        notifier.stopping()

        assert b"EXTEND_TIMEOUT_USEC=300000000\nSTATUS=building tiny" == manager.recv(100)
        assert b"READY=1\nSTATUS=consuming" == manager.recv(100)
        assert b"WATCHDOG=1" == manager.recv(100)
        assert b"STOPPING=1" == manager.recv(100)
        assert 30.0 == notifier.watchdog_s


def test_without_a_service_manager_nothing_happens(tmp_path: Path):
    Notifier({}).ready("consuming")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()

    assert Notifier({"WATCHDOG_USEC": "x"}).watchdog_s is None
