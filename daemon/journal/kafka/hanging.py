"""Ends what a broker has left hanging of a partition's last transaction.

A broker that dies between deciding on a transaction and marking its partitions calls it complete
when it is back, and may mark none of those that were left. Readers of such a partition get nothing
more, of any producer; a group's offset stays unsettled. Kafka's own clients have no way out. But a
mark ends whatever hangs of its producer in its partition, so the same producer ends it with a
transaction that writes nothing.
"""

from dataclasses import dataclass, replace

from aiokafka import AIOKafkaProducer, TopicPartition

from daemon.errors import TransportError
from daemon.journal.kafka.committed import END_BY_HAND, Committed, Verdict, judge
from daemon.journal.kafka.group_offsets import GroupOffsets
from daemon.journal.kafka.past import Left, read_past
from daemon.journal.kafka.records import step_of
from daemon.journal.kafka.seat import Seat
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.reading import a_reader, records_between, written_ends

_MOST_ENDS = 4  # one fault may lie behind another


@dataclass(frozen=True, slots=True)
class Found:
    """What a partition's last owner has left, after an end of what hung.

    Attributes:
        known: The last step that was taken.
        left: The rest.
        has_hung: Whether something hung.
    """

    known: Committed
    left: Left
    has_hung: bool


async def find(seat: Seat, producer: AIOKafkaProducer, offsets: GroupOffsets) -> Found:
    """What the last owner of a partition has left; what hangs of it is ended first.

    Args:
        seat: The partition, which is ours.
        producer: Its producer, which was just made anew: no transaction of it is under way.
        offsets: The group's offsets.

    Raises:
        KafkaError: What hung was not ended, or may not have been.
        TransportError: It cannot be told, or another's transaction hides it.
    """
    verdict, left, where = await _look(seat, offsets)
    n_ends = 0
    while verdict.ends is not None and n_ends < _MOST_ENDS:
        await _end(seat, producer, verdict)
        verdict, left, where = await _look(seat, offsets)
        n_ends += 1
    if where:
        raise TransportError(
            f"a transaction hangs in {where}, which hides what was left; {END_BY_HAND}"
        )
    return Found(verdict.known, left, n_ends > 0)


async def _look(seat: Seat, offsets: GroupOffsets) -> tuple[Verdict, Left, str]:
    """What became of the last step, what was left, and where something hangs that hides it."""
    offset = await offsets.of(seat.number)
    settings, number = seat.settings, seat.number
    states_at = TopicPartition(settings.state_topic, number)
    features_at = TopicPartition(settings.features_topic, number)
    written = await written_ends(settings.connection, states_at, features_at)
    left = await read_past(settings, number)
    readable = {states_at: left.states_end, features_at: left.features_end}
    features_of = None
    if left.features_end < written[features_at]:
        features_of = await _step_of(settings.connection, features_at, left.features_end)
    where = ", ".join(
        f"partition {number} of topic {at.topic}, at offset {readable[at]} of {written[at]}"
        for at in readable
        if readable[at] < written[at]
    )
    verdict = judge(
        Committed.of(offset),
        left.told,
        is_settled=offset.is_settled,
        is_whole=left.states_end >= written[states_at],
        features_of=features_of,
        answered=seat.answered,
    )
    return verdict, left, where


async def _step_of(connection: KafkaConnection, at: TopicPartition, offset: int) -> int:
    """The step whose features hang there; 0 if they do not say."""
    async with a_reader(connection, at, isolation_level="read_uncommitted") as consumer:
        async for record in records_between(connection, consumer, at, offset, offset + 1):
            return step_of(record.headers)
    return 0


async def _end(seat: Seat, producer: AIOKafkaProducer, verdict: Verdict) -> None:
    """End what hangs, wherever a step may have written."""
    settings = seat.settings
    topics = (
        settings.events_topic,
        settings.latest_topic,
        settings.status_topic,
        settings.dead_topic,
    )
    reached = [
        TopicPartition(topic, number)
        for topic in topics
        for number in await producer.partitions_for(topic)
    ]
    reached += [
        TopicPartition(topic, seat.number)
        for topic in (settings.state_topic, settings.features_topic)
    ]
    known = verdict.known
    offset = seat.offset(replace(known, next_offset=known.next_offset or 0))
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction(offset, settings.group_id)
    # At last, for what fails from here on is aborted wherever it reaches.
    for each in reached:
        producer._txn_manager.maybe_add_partition_to_txn(each)  # noqa: SLF001 - no public way
    if verdict.ends == "commit":
        await producer.commit_transaction()
    else:
        await producer.abort_transaction()
