"""What every EventSink promises, held against each of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from daemon.kafka.connection import KafkaConnection
from daemon.sinks.base import EventSink
from daemon.sinks.jsonl import JsonlEventSink, JsonlSinkSettings
from daemon.sinks.kafka import KafkaEventSink, KafkaSinkSettings
from daemon.sinks.memory import MemoryEventSink
from daemon.wire.records import parse_event
from engine.types import ActionEvent
from tests.support.records import an_event


class Destination(Protocol):
    """One place events go to, and an independent reader of it."""

    def sink(self) -> EventSink: ...
    async def read(self) -> list[ActionEvent]: ...


class MemoryDestination:
    def __init__(self) -> None:
        self._events: list[ActionEvent] = []

    def sink(self) -> EventSink:
        return MemoryEventSink(self._events)

    async def read(self) -> list[ActionEvent]:
        return list(self._events)


class JsonlDestination:
    def __init__(self, path: Path) -> None:
        self._path = path

    def sink(self) -> EventSink:
        return JsonlEventSink(JsonlSinkSettings(self._path))

    async def read(self) -> list[ActionEvent]:
        return [parse_event(line) for line in self._path.read_bytes().splitlines()]


class KafkaDestination:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic

    def sink(self) -> EventSink:
        return KafkaEventSink(KafkaSinkSettings(KafkaConnection(self._bootstrap), self._topic))

    async def read(self) -> list[ActionEvent]:
        """What a reader that comes later finds, up to the end of the topic now."""
        partition = TopicPartition(self._topic, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap)
        await consumer.start()
        try:
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            end = (await consumer.end_offsets([partition]))[partition]
            records = [await consumer.getone(partition) for _ in range(end)]
        finally:
            await consumer.stop()
        return [parse_event(record.value) for record in records]


@pytest.fixture(params=["memory", "jsonl", pytest.param("kafka", marks=pytest.mark.kafka)])
async def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "jsonl":
        return JsonlDestination(tmp_path / "events" / "events.jsonl")
    if request.param == "kafka":
        make_topic = request.getfixturevalue("make_topic")
        return KafkaDestination(request.getfixturevalue("kafka_bootstrap"), await make_topic(1))
    return MemoryDestination()


@pytest.fixture
async def sink(destination: Destination) -> AsyncIterator[EventSink]:
    sink = destination.sink()
    await sink.start()
    yield sink
    await sink.close()


async def test_published_events_are_durable_before_close(
    destination: Destination, sink: EventSink
) -> None:
    events = [an_event("e1", revision) for revision in range(3)]

    await sink.publish(events)

    assert events == await destination.read()


async def test_events_keep_their_order_over_many_calls(
    destination: Destination, sink: EventSink
) -> None:
    events = [an_event(f"e{n}") for n in range(20)]

    for event in events:
        await sink.publish([event])

    assert events == await destination.read()


async def test_publishing_again_changes_no_final_state(
    destination: Destination, sink: EventSink
) -> None:
    events = [an_event("e1", revision) for revision in range(3)]

    await sink.publish(events)
    await sink.publish(events)

    newest = max(await destination.read(), key=lambda event: event.revision)
    assert events[2] == newest
    assert set(events) == set(await destination.read())


async def test_a_sink_opened_again_adds_to_what_is_there(
    destination: Destination, sink: EventSink
) -> None:
    await sink.publish([an_event("e1")])
    await sink.close()

    later = destination.sink()
    await later.start()
    await later.publish([an_event("e2")])
    await later.close()

    assert [an_event("e1"), an_event("e2")] == await destination.read()


async def test_cameras_may_publish_at_the_same_time(
    destination: Destination, sink: EventSink
) -> None:
    async def run_camera(camera: str) -> None:
        for revision in range(10):
            await sink.publish([an_event(camera, revision, camera=camera)])

    cameras = [f"camera-{n}" for n in range(5)]
    async with asyncio.TaskGroup() as tasks:
        for camera in cameras:
            tasks.create_task(run_camera(camera))

    seen = await destination.read()
    for camera in cameras:
        revisions = [event.revision for event in seen if event.camera == camera]
        assert list(range(10)) == revisions


async def test_nothing_to_publish_is_no_record(destination: Destination, sink: EventSink) -> None:
    await sink.publish([])

    assert [] == await destination.read()
