"""Reads what a partition's last owner has left in Kafka: its step, states and features."""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord, TopicPartition

from daemon.errors import MalformedRecordError
from daemon.journal.base import CameraPast, FeatureRows, Past, features_from
from daemon.journal.kafka.committed import STEP_KEY, Committed, parse_step
from daemon.journal.kafka.records import StoredState, parse_features, parse_state
from daemon.journal.kafka.settings import KafkaJournalSettings
from daemon.kafka.reading import a_reader, bounds, records_between


@dataclass(slots=True)
class Left:
    """What was left, and where in the feature log each camera's rows lie.

    Attributes:
        cameras: What was left of each.
        log_id: The log that their states count in.
        told: What the newest step says of itself; None: none does.
        rows_at: Camera → (offset in the feature log, run, one past the last index) of its rows.
        states_end: The end of the states, as far as they can be read.
        features_end: The end of the feature log, as far as it can be read.
        n_damaged: Records that could not be read.
    """

    cameras: dict[str, CameraPast] = field(default_factory=dict)
    log_id: str = ""
    told: Committed | None = None
    rows_at: dict[str, list[tuple[int, str, int]]] = field(default_factory=dict)
    states_end: int = 0
    features_end: int = 0
    n_damaged: int = 0

    def past(self, known: Committed) -> Past:
        """All that an owner needs, if this is the last step."""
        # A broker that deletes a topic forgets the group's offsets in it; the states stay.
        log_id = known.log_id or self.log_id
        return Past(known.number, known.next_offset, log_id, known.served_by, self.cameras)


async def read_past(settings: KafkaJournalSettings, number: int) -> Left:
    """All that the last owner of a partition has left; whoever asks must own it already."""
    states_at = TopicPartition(settings.state_topic, number)
    features_at = TopicPartition(settings.features_topic, number)
    connection = settings.connection
    async with a_reader(connection, states_at, features_at) as consumer:
        part = await bounds(consumer, states_at)
        oldest, newest = await bounds(consumer, features_at)
        left = Left(states_end=part[1], features_end=newest)
        states = await _states(records_between(connection, consumer, states_at, *part), left)
        needed = [
            stored.features_offset
            for stored in states.values()
            if stored.state.first_feature is not None
        ]
        first = max(min(needed, default=newest), oldest)
        records = records_between(connection, consumer, features_at, first, newest)
        features = await _features(records, states, left)
    left.cameras = {
        camera: CameraPast(stored.state, tuple(features[camera]))
        for camera, stored in states.items()
    }
    left.log_id = next((stored.log_id for stored in states.values()), "")
    return left


async def _states(records: AsyncIterator[ConsumerRecord], left: Left) -> dict[str, StoredState]:
    states: dict[str, StoredState] = {}
    async for record in records:
        try:
            if record.key == STEP_KEY:
                left.told = parse_step(record)
                continue
            camera = (record.key or b"").decode("utf-8", "replace")
            if record.value is None:
                states.pop(camera, None)
            else:
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
