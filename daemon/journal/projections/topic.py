"""Events as records of a Kafka topic, keyed by camera, from a local journal.

A broker cannot be part of a local transaction. So after a crash the last revisions may come a
second time, with the same event id, revision and content; the journal in Kafka knows no such case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.kafka.connection import KafkaConnection
from daemon.kafka.producer import DurableProducer
from daemon.outages import Kind, Outages
from daemon.wire.records import event_record
from engine.types import ActionEvent


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """Where events go.

    Attributes:
        connection: How to reach the broker.
        topic: The topic of the events; it must exist.
        site: Written into every event.
    """

    connection: KafkaConnection
    topic: str
    site: str = "default"


class TopicProjection:
    """Publishes each revision at least once, as a record; one camera's records stay in order.

    Args:
        settings: Where events go.
        outages: Told when the broker is away, which is waited for.
    """

    def __init__(self, settings: TopicSettings, outages: Outages | None = None) -> None:
        self.mark = 0
        self.file: Path | None = None
        self._site = settings.site
        outage = (outages or Outages()).watch(Kind.BROKER, f"topic {settings.topic}")
        self._producer = DurableProducer(settings.connection, settings.topic, outage)

    async def start(self, mark: int | None, waiting: Sequence[ActionEvent]) -> None:
        """See ``Projection``."""
        self.mark = mark or 0
        await self._producer.start()
        await self.show(waiting)

    def size_of(self, event: ActionEvent) -> int:  # noqa: ARG002 - each counts the same
        """See ``Projection``: one."""
        return 1

    async def let_go_if_moved(self) -> bool:
        """See ``Projection``; a topic stays where it is."""
        return False

    async def show(self, events: Sequence[ActionEvent]) -> None:
        """See ``Projection``."""
        await self._producer.send([event_record(event, site=self._site) for event in events])
        self.mark += len(events)

    async def close(self) -> None:
        """See ``Projection``."""
        await self._producer.close()
