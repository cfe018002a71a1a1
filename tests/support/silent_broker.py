"""A broker that lets clients in, answers a few of their requests, and then none."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from typing_extensions import override

METADATA, VERSIONS = 3, 18
_KINDS = range(60)
_HOST = b"127.0.0.1"


class SilentBroker:
    """One node, which answers for its versions and its metadata.

    Args:
        n_versions: How many requests for its versions it answers; a connection begins so.
        n_metadata: How many requests for its metadata it answers.

    Attributes:
        address: Where it listens.
        n_open: Connections to it that are open.
        n_unanswered: Requests that wait.
    """

    def __init__(self, n_versions: int, n_metadata: int) -> None:
        self.address = ""
        self.n_open = 0
        self._left = {VERSIONS: n_versions, METADATA: n_metadata}
        self._waiting: list[tuple[_Connection, int, int]] = []

    @property
    def n_unanswered(self) -> int:
        return len(self._waiting)

    def asked(self, connection: "_Connection", kind: int, number: int) -> None:
        if self._left.get(kind, 0) <= 0:
            self._waiting.append((connection, kind, number))
        else:
            self._left[kind] -= 1
            connection.answer(number, self._body(kind))

    def go_on(self) -> None:
        """Answer what waits for the versions."""
        for connection, kind, number in self._waiting:
            if kind == VERSIONS:
                connection.answer(number, self._body(kind))

    def _body(self, kind: int) -> bytes:
        if kind == VERSIONS:
            return struct.pack(">hi", 0, len(_KINDS)) + b"".join(
                struct.pack(">hhh", kind, 0, kind not in self._left) for kind in _KINDS
            )
        port = int(self.address.rpartition(":")[2])
        broker = struct.pack(f">ih{len(_HOST)}si", 1, len(_HOST), _HOST, port)
        return struct.pack(">i", 1) + broker + struct.pack(">i", 0)


class _Connection(asyncio.Protocol):
    def __init__(self, broker: SilentBroker) -> None:
        self._broker = broker
        self._bytes = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._broker.n_open += 1

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.n_open -= 1

    @override
    def data_received(self, data: bytes) -> None:
        self._bytes += data
        while len(self._bytes) >= 4 and len(self._bytes) >= (end := self._end()):
            kind, _version, number = struct.unpack(">hhi", self._bytes[4:12])
            self._bytes = self._bytes[end:]
            self._broker.asked(self, kind, number)

    def _end(self) -> int:
        return 4 + int(struct.unpack(">i", self._bytes[:4])[0])

    def answer(self, number: int, body: bytes) -> None:
        self._transport.write(struct.pack(">ii", 4 + len(body), number) + body)


@asynccontextmanager
async def a_silent_broker(n_versions: int, n_metadata: int) -> AsyncIterator[SilentBroker]:
    broker = SilentBroker(n_versions, n_metadata)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(broker), "127.0.0.1", 0)
    try:
        broker.address = "{}:{}".format(*server.sockets[0].getsockname())
        yield broker
    finally:
        server.close()
