"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP, on loopback unless told otherwise.

One thread with an event loop of its own serves all clients, so neither slow ones nor many of them
take threads, and a daemon whose own loop hangs still answers. A connection is for one request, has
a few seconds for each half of it, and gives way to newer ones when there are too many.
"""

import asyncio
import errno
import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from prometheus_client import CollectorRegistry, make_wsgi_app

from daemon.errors import ConfigError

Report = Callable[[], tuple[bool, dict[str, Any]]]

MOST_CONNECTIONS = 64
MOST_HEAD_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0  # to send all of a request
ANSWER_TIMEOUT_S = 10.0  # to read all of an answer


class _BadRequestError(Exception):
    """What a client sent is no request that is answered here."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class HealthServer:
    """Serves until closed, in a thread of its own.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which is then found in ``port``.
        registry: The metrics that ``/metrics`` shows.
        live: Tells whether work goes forward, with details.
        ready: Tells whether everything is open and warm, with details.
        on_dropped: Told why a connection was closed without an answer: ``slow`` or ``crowded``.

    Raises:
        ConfigError: The address cannot be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        live: Report,
        ready: Report,
        on_dropped: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self._app = _app(make_wsgi_app(registry), {"/livez": live, "/readyz": ready})
        self._on_dropped = on_dropped
        self._clients: dict[asyncio.Task[None], None] = {}  # oldest first
        listener = _listener(host, port)
        self.port: int = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Safe to repeat."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._take, sock=listener, limit=MOST_HEAD_BYTES)
        await self._over.wait()
        server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MOST_CONNECTIONS:
            oldest = next(iter(self._clients))
            self._clients.pop(oldest)
            oldest.cancel()
            self._on_dropped("crowded")
        client = self._loop.create_task(self._talk(reader, writer))
        self._clients[client] = None
        client.add_done_callback(partial(self._let_go, writer))

    def _let_go(self, writer: asyncio.StreamWriter, client: asyncio.Task[None]) -> None:
        self._clients.pop(client, None)
        writer.transport.abort()  # also of one that was cancelled before it began

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                answer = await self._answer(reader)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                writer.write(answer)
                writer.close()
                await writer.wait_closed()
        except TimeoutError:
            self._on_dropped("slow")
        except OSError:
            pass  # the client has gone

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            is_head, environ = _request(head)
        except asyncio.IncompleteReadError:
            return b""  # the client has gone without a request
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value, [], b"")
        except _BadRequestError as error:
            return _response(error.status.value, [], b"")
        status, headers = 0, list[tuple[str, str]]()

        def start_response(line: str, fields: list[tuple[str, str]], _info: object = None) -> Any:
            nonlocal status, headers
            status, headers = int(line[:3]), fields

        body = b"".join(self._app(environ, start_response))
        return _response(status, headers, body, is_head=is_head)


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, as the server does; ``host`` may be a name, or empty for all.

    Raises:
        OSError: It cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError as error:  # of a name that DNS could not hold
        raise OSError(errno.EINVAL, f"{host!r:.80} is no host's name") from error
    return socket.create_server(address, family=family, backlog=MOST_CONNECTIONS)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise ConfigError(
            f"http: cannot listen on {host}:{port}: {error}; choose another http.port"
        ) from error


def _app(metrics: WSGIApplication, reports: dict[str, Report]) -> WSGIApplication:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path not in reports:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"try /livez, /readyz or /metrics\n"]
        good, details = reports[path]()
        status = "200 OK" if good else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(details).encode() + b"\n"]

    return app


def _request(head: bytes) -> tuple[bool, dict[str, Any]]:
    """Whether it asks for no body, and the rest as WSGI has it, as far as our applications look.

    Raises:
        _BadRequestError: It is none, or changes something.
    """
    stream = io.BytesIO(head)
    line = re.fullmatch(r"(\S+) (\S+) HTTP/1\.\d\r\n", stream.readline().decode("latin-1"))
    if line is None:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    if line[1] not in ("GET", "HEAD"):
        raise _BadRequestError(HTTPStatus.METHOD_NOT_ALLOWED)
    try:
        headers = http.client.parse_headers(stream)
    except http.client.HTTPException as error:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST) from error
    path, _, query = line[2].partition("?")
    return line[1] == "HEAD", {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_ACCEPT": headers.get("Accept", ""),
        "HTTP_ACCEPT_ENCODING": headers.get("Accept-Encoding", ""),
    }


def _response(
    status: int, headers: Iterable[tuple[str, str]], body: bytes, *, is_head: bool = False
) -> bytes:
    fields = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in fields)]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if is_head else head + body
