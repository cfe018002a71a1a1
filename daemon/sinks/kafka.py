"""Events as records of a Kafka topic, keyed by camera."""

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.kafka.connection import KafkaConnection
from daemon.kafka.producer import DurableProducer
from daemon.wire.records import event_record
from engine.types import ActionEvent


@dataclass(frozen=True, slots=True)
class KafkaSinkSettings:
    """Where events go.

    Attributes:
        connection: How to reach the broker.
        topic: The topic of the events; it must exist.
        site: Written into every event.
    """

    connection: KafkaConnection
    topic: str
    site: str = "default"


class KafkaEventSink:
    """Publishes each revision at least once, as a record; one camera's records stay in order.

    Args:
        settings: Where events go.
    """

    def __init__(self, settings: KafkaSinkSettings) -> None:
        self._site = settings.site
        self._producer = DurableProducer(settings.connection, settings.topic)

    async def start(self) -> None:
        """See ``EventSink``."""
        await self._producer.start()

    async def publish(self, events: Sequence[ActionEvent]) -> None:
        """See ``EventSink``."""
        await self._producer.send([event_record(event, site=self._site) for event in events])

    async def close(self) -> None:
        """See ``EventSink``."""
        await self._producer.close()
