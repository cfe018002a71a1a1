"""What to read of Kafka, and how."""

from dataclasses import dataclass
from typing import Literal

from daemon.kafka.connection import KafkaConnection


@dataclass(frozen=True, slots=True)
class KafkaSourceSettings:
    """What to read, and how.

    Attributes:
        connection: How to reach the broker.
        topic: The topic of the chunks; it must exist.
        group_id: Consumer group; its members share the partitions.
        group_instance_id: A member name that outlives the process, so that a restart within the
            session time-out moves no partitions. None: the member has no such name.
        start: Where to begin while the group knows nothing of the topic. Partitions that are
            added later are read from their oldest record.
        max_chunk_bytes: Larger records are refused.
        max_buffer_bytes: Most bytes that one fetch from a broker brings.
        commit_interval_s: Least time between two commits, in seconds; None: offsets are committed
            by somebody else.
        session_timeout_s: A member without a heartbeat for so long loses its partitions.
        max_poll_interval_ms: So does a member without progress for so long.
    """

    connection: KafkaConnection
    topic: str
    group_id: str
    group_instance_id: str | None = None
    start: Literal["earliest", "latest"] = "latest"
    max_chunk_bytes: int = 8 * 2**20
    max_buffer_bytes: int = 32 * 2**20
    commit_interval_s: float | None = 1.0
    session_timeout_s: float = 30.0
    max_poll_interval_ms: int = 900_000
