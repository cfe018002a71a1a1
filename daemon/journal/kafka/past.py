"""Reads what a partition's last owner has left in Kafka: its step, states and features."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from daemon.errors import MalformedRecordError
from daemon.journal.base import CameraPast, FeatureRows, Past, features_from
from daemon.journal.kafka.records import StoredState, parse_features, parse_state
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.reading import a_reader, bounds, records_between
from daemon.kafka.stable_offset import stable_offset

_METADATA = re.compile(r"s2netd:(\d+):([^:]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group's offset of a partition says.

    Attributes:
        number: The last step; 0: none is known.
        next_offset: The first delivery that is not done; None: nothing was committed.
        log_id: Names the log that it counts in.
        served_by: Which model and host committed it.
    """

    number: int = 0
    next_offset: int | None = None
    log_id: str = ""
    served_by: str = ""

    @classmethod
    def of(cls, next_offset: int | None, metadata: str) -> "Committed":
        """What an offset says; nothing but itself if an operator has moved it with other tools."""
        match = _METADATA.fullmatch(metadata)
        if match is None:
            return cls(0, next_offset)
        return cls(int(match[1]), next_offset, match[2], match[3])

    @property
    def metadata(self) -> str:
        """What is written beside the offset."""
        return f"s2netd:{self.number}:{self.log_id}:{self.served_by}"


@dataclass(slots=True)
class Left:
    """What was left, and where in the feature log each camera's rows lie.

    Attributes:
        past: All that an owner needs.
        rows_at: Camera → (offset in the feature log, run, one past the last index) of its rows.
        features_end: The end of the feature log.
        n_damaged: Records that could not be read.
    """

    past: Past
    rows_at: dict[str, list[tuple[int, str, int]]] = field(default_factory=dict)
    features_end: int = 0
    n_damaged: int = 0


async def committed(
    admin: AIOKafkaAdminClient, settings: KafkaJournalSettings, number: int
) -> Committed:
    """The group's offset of one partition of the chunks; no transaction of ours is under way."""
    partition = TopicPartition(settings.chunks_topic, number)
    found = await stable_offset(admin, settings.group_id, partition)
    return Committed() if found is None else Committed.of(*found)


async def read_past(settings: KafkaJournalSettings, number: int, known: Committed) -> Left:
    """All that the last owner of a partition has left; whoever asks must own it already."""
    states_at = TopicPartition(settings.state_topic, number)
    features_at = TopicPartition(settings.features_topic, number)
    connection = settings.connection
    async with a_reader(connection, states_at, features_at) as consumer:
        part = await bounds(consumer, states_at)
        oldest, newest = await bounds(consumer, features_at)
        left = Left(Past(), features_end=newest)
        states = await _states(records_between(connection, consumer, states_at, *part), left)
        needed = [
            stored.features_offset
            for stored in states.values()
            if stored.state.first_feature is not None
        ]
        first = max(min(needed, default=newest), oldest)
        records = records_between(connection, consumer, features_at, first, newest)
        features = await _features(records, states, left)
    cameras = {
        camera: CameraPast(stored.state, tuple(features[camera]))
        for camera, stored in states.items()
    }
    # A broker that deletes a topic forgets the group's offsets in it; the states are still there.
    log_ids = [stored.log_id for stored in states.values()]
    log_id = known.log_id or next(iter(log_ids), "")
    left.past = Past(known.number, known.next_offset, log_id, known.served_by, cameras)
    return left


async def _states(records: AsyncIterator[ConsumerRecord], left: Left) -> dict[str, StoredState]:
    states: dict[str, StoredState] = {}
    async for record in records:
        camera = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            states.pop(camera, None)
            continue
        try:
            states[camera] = parse_state(record.headers, record.value)
        except MalformedRecordError:
            left.n_damaged += 1
    return states


async def _features(
    records: AsyncIterator[ConsumerRecord],
    states: dict[str, StoredState],
    left: Left,
) -> dict[str, list[FeatureRows]]:
    features: dict[str, list[FeatureRows]] = defaultdict(list)
    async for record in records:
        try:
            rows = parse_features(record.key, record.headers, record.value or b"")
        except MalformedRecordError:
            left.n_damaged += 1
            continue
        stored = states.get(rows.camera)
        if stored is not None and features_from(rows, stored.state):
            features[rows.camera].append(rows)
            left.rows_at.setdefault(rows.camera, []).append(
                (record.offset, rows.run, rows.end_index)
            )
    return features
