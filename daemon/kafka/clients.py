"""aiokafka's clients, such that none leaves a connection behind.

aiokafka's own loses sight of one in three cases, which a broker that falls silent brings about:

* It is cancelled while it asks the first broker for the others.
* It is still connecting, in a task of its own, when it is closed.
* What comes before the closing, as leaving a group, does not end, or is cancelled.

Such a connection stays open until it happens to be collected.
"""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError
from typing_extensions import override

from daemon.cancellation import own_cancellation
from daemon.errors import ForeignCancellationError
from daemon.kafka.reasons import Access

_END_S = 2.0  # an end may take, where nothing hangs on it

Client: TypeAlias = AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient


async def start(client: Client) -> None:
    """Start a client; ``stop`` it in any case, even if this fails or is cancelled."""
    _connections_of(client).__class__ = TidyClient  # it makes its own, whatever one wishes
    await client.start()


@asynccontextmanager
async def admin_of(access: Access) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client."""
    admin = AIOKafkaAdminClient(**access.options())
    try:
        await start(admin)
        yield admin
    finally:
        await stop(admin)


async def stop(client: Client) -> None:
    """Stop a client, as it does it itself; however that ends, no connection is left."""
    try:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
    finally:
        _connections_of(client).hang_up()


async def let_go(client: Client) -> None:
    """Stop a client that has nothing under way, or nothing that is wanted."""
    async with briefly():
        await stop(client)


@asynccontextmanager
async def briefly(timeout_s: float = _END_S) -> AsyncIterator[None]:
    """An end of a client's that may fail, and is waited for no longer than this.

    Two may be about it at once, and then one cancels what the other waits for: both are done.
    """
    whatever_it_says = contextlib.suppress(KafkaError, TimeoutError, ForeignCancellationError)
    with whatever_it_says, own_cancellation("the end of a client"):
        async with asyncio.timeout(timeout_s):
            yield


def _connections_of(client: Client) -> Any:
    if isinstance(client, AIOKafkaProducer):
        return client.client
    return client._client  # noqa: SLF001 - there is no public way


class TidyClient(AIOKafkaClient):  # type: ignore[misc] # aiokafka is untyped
    """What holds the connections of a client."""

    _is_over = False

    @override
    async def bootstrap(self) -> None:
        """Ask the first broker for the others."""
        try:
            await super().bootstrap()
        except BaseException as error:
            # Nothing but the frame that was left knows the connection.
            for frame, _line in traceback.walk_tb(error.__traceback__):
                if frame.f_code is AIOKafkaClient.bootstrap.__code__:
                    _close(frame.f_locals.get("bootstrap_conn"))
            raise

    @override
    async def close(self) -> None:
        """Close all connections, and wait until they are."""
        try:
            await super().close()
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """Close all connections, and each that still comes about."""
        self._is_over = True
        if self._sync_task is not None:
            self._sync_task.cancel()
        for connection in self._conns.values():
            _close(connection)

    @override
    async def _get_conn(self, *node: Any, **how: Any) -> Any:
        connection = await super()._get_conn(*node, **how)
        if self._is_over:
            _close(connection)
        return connection


def _close(connection: Any) -> None:
    if connection is not None:
        connection.close(reason=CloseReason.SHUTDOWN)
