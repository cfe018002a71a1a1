"""One partition's place in the journal: its producer, and where its features lie in their log."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import RecordMetadata

from daemon.journal.base import CameraState, Step
from daemon.journal.kafka.committed import Committed, step_record
from daemon.journal.kafka.dead_records import dead_record
from daemon.journal.kafka.past import Left
from daemon.journal.kafka.records import (
    StoredState,
    features_record,
    latest_records,
    state_record,
)
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.journal.statuses import status_record
from daemon.wire.records import Record, event_record


@dataclass(slots=True)
class FeatureOffsets:
    """Which offset of the feature log each camera's rows lie at, as far as they may be needed."""

    end: int = 0  # every further row lies at or after it
    _rows: dict[str, deque[tuple[int, str, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, left: Left) -> "FeatureOffsets":
        """Those of what was left."""
        rows = {camera: deque(at) for camera, at in left.rows_at.items()}
        return cls(left.features_end, rows)

    def add(self, camera: str, offset: int, run: str, end_index: int) -> None:
        """Take note of rows that were written."""
        self._rows.setdefault(camera, deque()).append((offset, run, end_index))
        self.end = max(self.end, offset + 1)

    def needed_from(self, camera: str, state: CameraState | None) -> int:
        """The offset from which a restart must read; older rows are forgotten here."""
        rows = self._rows.get(camera, deque())
        if state is None or state.first_feature is None:
            self._rows.pop(camera, None)
            return self.end
        while rows and (rows[0][1] != state.run or rows[0][2] <= state.first_feature):
            rows.popleft()
        return rows[0][0] if rows else self.end


@dataclass(slots=True)
class Seat:
    """A partition that is ours.

    Attributes:
        settings: Where things go.
        number: Of the partition.
        offsets: Where its features lie.
        most_dead_bytes: The largest payload of a dead letter.
        answered: The last step of which the broker has told us that it was taken; None: of none.
        producer: None: it must be made anew, for it is not known what became of its last step.
    """

    settings: KafkaJournalSettings
    number: int
    offsets: FeatureOffsets
    most_dead_bytes: int
    answered: Committed | None = None
    producer: AIOKafkaProducer | None = None

    @property
    def partition(self) -> str:
        """Its name."""
        return f"{self.settings.chunks_topic}/{self.number}"

    async def send(self, producer: AIOKafkaProducer, step: Step) -> None:
        """Send all of a step but its offset, and wait until the broker has it.

        Revisions go first, so that without transactions a crash repeats them and loses none.

        Raises:
            KafkaError: It was not sent, or part of it may not have been.
        """
        settings = self.settings
        events = [event_record(event, site=settings.site) for event in step.revisions]
        await _all([await _send(producer, settings.events_topic, each) for each in events])
        latest = latest_records(step.revisions, site=settings.site)
        waiting = [await _send(producer, settings.latest_topic, each) for each in latest]
        statuses = [status_record(status, site=settings.site) for status in step.statuses]
        waiting += [await _send(producer, settings.status_topic, each) for each in statuses]
        dead = [dead_record(letter, most_bytes=self.most_dead_bytes) for letter in step.dead]
        # In one partition, so that an offset alone says which letter is meant.
        waiting += [await _send(producer, settings.dead_topic, each, 0) for each in dead]
        features = [
            await _send(
                producer, settings.features_topic, features_record(rows, step.number), self.number
            )
            for rows in step.features
        ]
        states = [
            await _send(
                producer,
                settings.state_topic,
                self._state(camera, state, step.log_id),
                self.number,
            )
            for camera, state in step.states.items()
        ]
        if settings.guarantee == "exactly-once":
            taken = step_record(Committed.by(step))
            states.append(await _send(producer, settings.state_topic, taken, self.number))
        await _all([*waiting, *states])
        for rows, written in zip(step.features, await _all(features), strict=True):
            self.offsets.add(rows.camera, written.offset, rows.run, rows.end_index)

    def offset(self, taken: Committed) -> dict[TopicPartition, tuple[int | None, str]]:
        """A step's offset, with its number beside it."""
        partition = TopicPartition(self.settings.chunks_topic, self.number)
        return {partition: (taken.next_offset, taken.metadata)}

    def _state(self, camera: str, state: CameraState | None, log_id: str) -> Record:
        needed_from = self.offsets.needed_from(camera, state)
        stored = None if state is None else StoredState(state, needed_from, log_id)
        return state_record(camera, stored)


async def _send(
    producer: AIOKafkaProducer, topic: str, record: Record, partition: int | None = None
) -> "asyncio.Future[RecordMetadata]":
    # A record that holds nothing is a tombstone, which takes its key out of a compacted topic.
    value = record.value if record.value or record.headers else None
    future: asyncio.Future[RecordMetadata] = await producer.send(
        topic, value, key=record.key, partition=partition, headers=record.headers
    )
    return future


async def _all(sent: "Sequence[asyncio.Future[RecordMetadata]]") -> list[RecordMetadata]:
    """Wait for all, so that none fails unheard, and raise the first error."""
    results = await asyncio.gather(*sent, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
