"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP, on loopback unless told otherwise."""

import json
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from typing_extensions import override

from daemon.errors import ConfigError

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Report = Callable[[], tuple[bool, dict[str, Any]]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    @override
    def log_message(self, *_args: object) -> None:
        """Log nothing, for metrics are fetched every few seconds."""


class HealthServer:
    """Serves until closed, in a thread of its own.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which is then found in ``port``.
        registry: The metrics that ``/metrics`` shows.
        live: Tells whether work goes forward, with details.
        ready: Tells whether everything is open and warm, with details.

    Raises:
        ConfigError: The address cannot be listened on.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, live: Report, ready: Report
    ) -> None:
        metrics_app = make_wsgi_app(registry)
        reports = {"/livez": live, "/readyz": ready}

        def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return list(metrics_app(environ, start_response))
            if path not in reports:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"try /livez, /readyz or /metrics\n"]
            good, details = reports[path]()
            status = "200 OK" if good else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [json.dumps(details).encode() + b"\n"]

        try:
            self._server = make_server(host, port, app, _Server, _Quiet)
        except OSError as error:
            raise ConfigError(
                f"http: cannot listen on {host}:{port}: {error}; choose another http.port"
            ) from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="health")
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
