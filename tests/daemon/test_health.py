"""The HTTP port answers whoever else is connected to it, and whatever others do to it."""

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from daemon import health
from daemon.calls import RunningCalls
from daemon.clock import SystemClock
from daemon.config import Config
from daemon.health import MOST_CONNECTIONS, MOST_HEAD_BYTES, HealthServer
from daemon.metrics import Metrics
from daemon.outages import Outages
from daemon.starting import Start
from daemon.systemd import Notifier
from tests.support.daemons import LogCapture

N_CLIENTS = 200
PATIENCE_S = 240


class Site:
    """A server, and what it told of those it dropped."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.metrics = Metrics()
        self.server = HealthServer(
            "127.0.0.1",
            0,
            self.metrics.registry,
            live=lambda: (True, {"live": True}),
            ready=lambda: (False, {"ready": False}),
            on_dropped=lambda why: self.dropped.update([why]),
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE_S)

    def ask(
        self, path: str = "/livez", method: str = "GET", **headers: str
    ) -> tuple[int, bytes, Any]:
        client = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)
        with contextlib.closing(client):
            client.request(method, path, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read(), answer.headers

    def is_live(self) -> bool:
        status, body, _ = self.ask()
        return (200, {"live": True}) == (status, json.loads(body))

    def send(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.fixture(name="site")
def _site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.close()
    site.server.close()


def test_hundreds_of_open_connections_take_no_threads_and_hold_nobody_up(site: Site) -> None:
    n_threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        for number in range(N_CLIENTS):
            client = stack.enter_context(site.connect())
            if number % 2:
                client.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        assert site.is_live()
        assert threading.active_count() <= n_threads
        assert len(site.server._clients) <= MOST_CONNECTIONS
    assert site.dropped["crowded"] >= N_CLIENTS - MOST_CONNECTIONS


def test_who_sends_drop_by_drop_is_dropped_in_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REQUEST_TIMEOUT_S", 0.2)
    with site.connect() as client:
        with contextlib.suppress(OSError):
            while not site.dropped["slow"]:
                client.sendall(b"G")
                time.sleep(0.01)
        monkeypatch.undo()
        assert site.is_live()
    assert {"slow": 1} == site.dropped


def test_who_does_not_read_is_dropped_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20_000):  # more than socket buffers take
        site.metrics.chunks.labels(f"{number:0200}").inc()
    monkeypatch.setattr(health, "ANSWER_TIMEOUT_S", 0.2)
    with site.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        while not site.dropped["slow"]:
            time.sleep(0.01)
        monkeypatch.undo()
        assert site.is_live()


def test_clients_that_vanish_leave_nothing_behind(site: Site) -> None:
    for _ in range(50):
        site.connect().close()
    for _ in range(50):
        with site.connect() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")

    assert site.is_live()
    while site.server._clients:
        time.sleep(0.01)
    assert not site.dropped["slow"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /readyz?x=1 HTTP/1.0\r\nAccept: */*\r\n\r\n", b"503"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /livez HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /livez\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),  # TLS
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", b"400"),
        (b"GET /" + b"x" * MOST_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"x" * 2**20, b"431"),
    ],
)
def test_a_request_is_answered_or_refused_by_number(
    site: Site, request_bytes: bytes, status: bytes
) -> None:
    try:
        answer = site.send(request_bytes)
    except OSError:  # it was refused before it was all sent
        assert len(request_bytes) > MOST_HEAD_BYTES
    else:
        assert answer.startswith(b"HTTP/1.1 " + status) or len(request_bytes) > MOST_HEAD_BYTES
    assert site.is_live()


def test_head_gives_no_body_and_metrics_can_be_compressed(site: Site) -> None:
    status, body, headers = site.ask("/metrics", "HEAD")
    assert (200, b"") == (status, body)
    assert int(headers["Content-Length"]) > 0
    status, body, headers = site.ask("/metrics", **{"Accept-Encoding": "gzip"})
    assert "gzip" == headers["Content-Encoding"]
    assert b"s2netd_steps_total" in gzip.decompress(body)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=300))
def test_no_bytes_harm_it(site: Site, request_bytes: bytes) -> None:
    with contextlib.suppress(OSError):
        site.send(request_bytes + b"\r\n\r\n")
    assert site.is_live()


def test_what_the_daemon_drops_it_counts_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate(
        {
            "model": {"backend": "scripted"},
            "source": {"kind": "directory", "path": str(tmp_path)},
            "sink": {"kind": "jsonl", "path": str(tmp_path / "events.jsonl")},
            "http": {"port": 0},
        }
    )
    monkeypatch.setattr(health, "REQUEST_TIMEOUT_S", 0.05)
    metrics, log, calls = Metrics(), LogCapture(), RunningCalls(SystemClock())
    logger = log.logger()
    start = Start(config, Notifier({}), metrics, logger, [], calls, Outages(logger))
    server = start.open_health()
    try:
        with socket.create_connection(("127.0.0.1", server.port)):
            counted = {"why": "slow"}
            while not metrics.registry.get_sample_value("s2netd_http_dropped_total", counted):
                time.sleep(0.01)
    finally:
        server.close()
    assert [{"error": "slow"}] == log.named("http.dropped")


class Yielding(float):
    """A time that lets other threads run whenever it is compared."""

    @override
    def __add__(self, other: float) -> float:
        return Yielding(float(self) + other)

    @override
    def __lt__(self, other: float) -> bool:
        time.sleep(0)
        return float(self) < float(other)


class YieldingClock:
    def monotonic_s(self) -> float:
        return Yielding(time.monotonic())

    def unix_us(self) -> int:
        return 0


def test_asking_for_the_oldest_call_never_races_with_calls_that_begin_and_end() -> None:
    calls, is_over = RunningCalls(YieldingClock()), threading.Event()
    held = [calls.begin() for _ in range(10)]

    def work() -> None:
        while not is_over.is_set():
            with calls.running():
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        ages_s = [calls.oldest_s() for _ in range(20)]
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    for number in held:
        calls.end(number)

    assert all(age_s > 0 for age_s in ages_s)
    assert 0 == calls.oldest_s()
