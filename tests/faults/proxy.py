"""A network between daemons and a broker, which can be cut and healed, or made slow.

A cut network loses nothing and refuses nothing: what is sent arrives when it heals, as with a
switch that hangs. So a daemon behind it is alive and does not know that it was given up.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PIECE = 65_536


class Proxy:
    """Takes connections on one port and passes their bytes on to another.

    Attributes:
        port: Where it listens.
        delay_s: How long every piece is held back, in each direction.
    """

    def __init__(self, port: int, to_port: int) -> None:
        self.port = port
        self.delay_s = 0.0
        self._to_port = to_port
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self._passing: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """From now on nothing passes."""
        self._is_whole.clear()

    def heal(self) -> None:
        """What was held back passes, and all that follows."""
        self._is_whole.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for task in self._passing:
                task.cancel()
            await asyncio.gather(*self._passing, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back))
                group.create_task(self._pass(there, writer))
        except* OSError:
            pass
        finally:
            for end in (writer, back):
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._is_whole.wait()
            writer.write(piece)
            await writer.drain()
        await self._is_whole.wait()
        with contextlib.suppress(OSError):
            writer.close()


def free_port() -> int:
    """A port that nobody listens on, outside of the range from which connections take theirs."""
    for port in random.sample(range(12_000, 20_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")
