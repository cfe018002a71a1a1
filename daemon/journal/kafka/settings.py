"""Where the journal in Kafka keeps things, and what it needs to know of the consumer group."""

from dataclasses import dataclass
from typing import Literal, Protocol

from daemon.kafka.connection import KafkaConnection

Guarantee = Literal["exactly-once", "at-least-once"]


@dataclass(frozen=True, slots=True)
class KafkaJournalSettings:
    """Where steps go.

    Attributes:
        connection: How to reach the broker.
        group_id: The consumer group; its offsets say what is done.
        chunks_topic: The topic of the chunks.
        events_topic: The topic of the events; it must exist.
        prefix: What the names of the journal's own topics begin with.
        site: Written into every event.
        guarantee: Whether a step is a transaction.
        transaction_timeout_ms: How long a transaction may take. Readers of the events wait so
            long for one that a crash has left open.
        max_record_bytes: The largest dead letter.
    """

    connection: KafkaConnection
    group_id: str
    chunks_topic: str
    events_topic: str
    prefix: str
    site: str = "default"
    guarantee: Guarantee = "exactly-once"
    transaction_timeout_ms: int = 8000
    max_record_bytes: int = 8 * 2**20

    @property
    def state_topic(self) -> str:
        """What each camera knows; compacted."""
        return f"{self.prefix}.state.v1"

    @property
    def features_topic(self) -> str:
        """The feature log."""
        return f"{self.prefix}.features.v1"

    @property
    def latest_topic(self) -> str:
        """The newest revision of each event; compacted."""
        return f"{self.prefix}.action-events.latest.v1"

    @property
    def status_topic(self) -> str:
        """How each camera is; compacted."""
        return f"{self.prefix}.camera-status.v1"

    @property
    def dead_topic(self) -> str:
        """Records that could not be used."""
        return f"{self.prefix}.dlq.v1"


class GroupMember(Protocol):
    """The consumer whose partitions the journal's steps belong to."""

    async def is_member(self) -> bool:
        """True if the group's coordinator says now that this member is still one of it.

        Raises:
            KafkaError: It gives no answer.
        """

    async def commit(self, partition: str, next_offset: int, metadata: str) -> None:
        """Commit an offset as a member, outside of any transaction.

        Raises:
            StaleOwnerError: The member does not have the partition any more.
            KafkaError: It failed.
        """
