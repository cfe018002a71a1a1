"""The group's offsets in the partitions of the chunks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.clients import let_go, start
from daemon.kafka.stable_offset import GroupOffset, stable_offset


class GroupOffsets:
    """Reads them, with one client for all partitions; one that failed is thrown away.

    Args:
        settings: Names the group and the topic.
    """

    def __init__(self, settings: KafkaJournalSettings) -> None:
        self._settings = settings
        self._admin: AIOKafkaAdminClient | None = None
        self._lock = asyncio.Lock()

    async def of(self, number: int) -> GroupOffset:
        """The one of a partition; see ``stable_offset``."""
        partition = TopicPartition(self._settings.chunks_topic, number)
        async with self._client() as admin:
            return await stable_offset(admin, self._settings.group_id, partition)

    async def close(self) -> None:
        """Let the client go. Safe to repeat."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await let_go(admin)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[AIOKafkaAdminClient]:
        async with self._lock:
            if self._admin is None:
                admin = AIOKafkaAdminClient(**self._settings.connection.options())
                try:
                    await start(admin)
                except BaseException:
                    await let_go(admin)
                    raise
                self._admin = admin
            try:
                yield self._admin
            except BaseException:
                await self.close()
                raise
