"""The network that can be cut: nothing passes, and nothing is lost."""

import asyncio

import pytest

from tests.faults.proxy import Proxy, free_port


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1000):
        writer.write(piece)
    writer.close()


async def test_what_is_sent_over_a_cut_network_arrives_when_it_heals():
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    to_port = server.sockets[0].getsockname()[1]
    async with server, Proxy(free_port(), to_port).running() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")

        assert b"one" == await reader.readexactly(3)

        proxy.cut()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readexactly(1)
        proxy.heal()

        assert b"two" == await reader.readexactly(3)

        writer.close()


async def test_an_end_that_closes_closes_the_other():
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    to_port = server.sockets[0].getsockname()[1]
    async with server, Proxy(free_port(), to_port).running() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write_eof()

        assert b"" == await reader.read()

        writer.close()
