"""What every ChunkSource promises, held against each of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from daemon.errors import MalformedRecordError
from daemon.kafka.connection import KafkaConnection
from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.produce.kafka_writer import KafkaChunkWriter, KafkaWriterSettings
from daemon.sources.base import ChunkSource, Delivery
from daemon.sources.directory import DirectoryChunkSource, DirectorySourceSettings
from daemon.sources.kafka.settings import KafkaSourceSettings
from daemon.sources.kafka.source import KafkaChunkSource
from daemon.sources.memory import MemoryChunkSource, MemoryLog
from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk
from tests.support.kafka import MakeTopic, put_record
from tests.support.owner import Owner
from tests.support.records import a_chunk, an_end

CAMERAS = ("door", "yard")  # on different partitions of a topic with two


class Transport(Protocol):
    """One transport from both ends."""

    async def put(self, chunk: VideoChunk) -> None: ...
    async def put_bad(self, camera: str) -> None: ...
    async def close(self) -> None: ...
    def source(self) -> ChunkSource: ...


class MemoryTransport:
    def __init__(self) -> None:
        self._log = MemoryLog()

    async def put(self, chunk: VideoChunk) -> None:
        self._log.append(chunk.camera, chunk)

    async def put_bad(self, camera: str) -> None:
        self._log.append_bad(camera, MalformedRecordError("bad"), b"bad")

    async def close(self) -> None:
        pass

    def source(self) -> ChunkSource:
        return MemoryChunkSource(self._log)


class DirectoryTransport:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._writer = DirectoryChunkWriter(root)

    async def put(self, chunk: VideoChunk) -> None:
        await self._writer.start()
        await self._writer.write(chunk, ChunkFacts())

    async def put_bad(self, camera: str) -> None:
        await self.put(a_chunk(camera, payload=b"bad"))
        newest = max((self._root / camera).glob("*.mp4"))
        newest.write_bytes(b"not what was sent")

    async def close(self) -> None:
        await self._writer.close()

    def source(self) -> ChunkSource:
        settings = DirectorySourceSettings(self._root, poll_interval_s=0.01)
        return DirectoryChunkSource(settings)


class KafkaTransport:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self._connection = KafkaConnection(bootstrap)
        self._topic = topic
        self._writer = KafkaChunkWriter(KafkaWriterSettings(self._connection, topic))
        self._is_started = False

    async def put(self, chunk: VideoChunk) -> None:
        if not self._is_started:
            await self._writer.start()
            self._is_started = True
        await self._writer.write(chunk, ChunkFacts())

    async def put_bad(self, camera: str) -> None:
        headers = [("vc_epoch", b"run-1"), ("ce_sequence", b"minus one")]
        await put_record(self._connection, self._topic, camera.encode(), b"bad", headers)

    async def close(self) -> None:
        await self._writer.close()

    def source(self) -> ChunkSource:
        settings = KafkaSourceSettings(
            self._connection, self._topic, group_id=self._topic, start="earliest"
        )
        return KafkaChunkSource(settings)


@pytest.fixture(params=["memory", "directory", pytest.param("kafka", marks=pytest.mark.kafka)])
async def transport(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    transport: Transport = MemoryTransport()
    if request.param == "directory":
        transport = DirectoryTransport(tmp_path / "chunks")
    elif request.param == "kafka":
        make_topic: MakeTopic = request.getfixturevalue("make_topic")
        transport = KafkaTransport(request.getfixturevalue("kafka_bootstrap"), await make_topic(2))
    yield transport
    await transport.close()


class Reader:
    """Takes deliveries one by one, with patience that ends."""

    def __init__(self, source: ChunkSource) -> None:
        self.source = source
        self._stream = source.deliveries()

    async def take(self, n: int) -> list[Delivery]:
        async with asyncio.timeout(240):
            return [await anext(self._stream) for _ in range(n)]


@asynccontextmanager
async def reading(transport: Transport, owner: Owner | None = None) -> AsyncIterator[Reader]:
    source = transport.source()
    await source.start(owner or Owner())
    try:
        yield Reader(source)
    finally:
        await source.close()


async def put_chunks(transport: Transport, n: int) -> None:
    """``n`` chunks of each camera, in turn."""
    for sequence in range(n):
        for camera in CAMERAS:
            await transport.put(a_chunk(camera, sequence))


def of_camera(deliveries: list[Delivery], camera: str) -> list[Delivery]:
    return [delivery for delivery in deliveries if delivery.camera == camera]


def sequences(deliveries: list[Delivery], camera: str) -> list[int]:
    return [d.chunk.sequence for d in of_camera(deliveries, camera) if d.chunk]


async def test_each_camera_arrives_whole_and_in_order(transport: Transport) -> None:
    await put_chunks(transport, 6)

    async with reading(transport) as reader:
        deliveries = await reader.take(12)

    for camera in CAMERAS:
        sent = [a_chunk(camera, sequence) for sequence in range(6)]
        assert sent == [delivery.chunk for delivery in of_camera(deliveries, camera)]


async def test_offsets_rise_within_a_partition(transport: Transport) -> None:
    await put_chunks(transport, 6)

    async with reading(transport) as reader:
        deliveries = await reader.take(12)

    for partition in {d.position.partition for d in deliveries}:
        offsets = [d.position.offset for d in deliveries if d.position.partition == partition]
        assert sorted(set(offsets)) == offsets


async def test_every_partition_is_taken_before_anything_of_it_is_delivered(
    transport: Transport,
) -> None:
    await put_chunks(transport, 2)
    owner = Owner()

    async with reading(transport, owner) as reader:
        deliveries = await reader.take(4)

    partitions = {d.position.partition for d in deliveries}
    assert 2 == len(partitions)
    assert partitions <= set(owner.taken)
    assert sorted({*owner.calls}) == sorted(owner.calls)  # once each
    assert {"take"} == {what for what, _ in owner.calls}
    assert {d.position.offset for d in deliveries if d.chunk and not d.chunk.sequence} == {
        owner.taken[partition][0] for partition in partitions
    }


@pytest.mark.parametrize("first", [0, 2, 4])
async def test_a_partition_is_read_from_where_its_owner_says(
    transport: Transport, first: int
) -> None:
    await put_chunks(transport, 5)
    async with reading(transport) as reader:
        door = of_camera(await reader.take(10), "door")

    owner = Owner({door[0].position.partition: door[first].position.offset})
    async with reading(transport, owner) as reader:
        again = await reader.take(5 - first + 5)

    assert list(range(first, 5)) == sequences(again, "door")
    assert [0, 1, 2, 3, 4] == sequences(again, "yard")


async def test_a_partition_of_which_all_is_done_is_read_on(transport: Transport) -> None:
    await put_chunks(transport, 2)
    async with reading(transport) as reader:
        ends = {d.position.partition: d.position.offset + 1 for d in await reader.take(4)}

    async with reading(transport, Owner(ends)) as reader:
        await transport.put(a_chunk("door", 2))
        (delivery,) = await reader.take(1)

    assert a_chunk("door", 2) == delivery.chunk


async def test_what_was_reached_changes_no_reading(transport: Transport) -> None:
    """Other programs may be told; the owner alone knows where to begin."""
    await put_chunks(transport, 5)
    async with reading(transport) as reader:
        door = of_camera(await reader.take(10), "door")
        partition = door[0].position.partition
        for n in (3, 1):
            reader.source.reached(partition, door[n].position.offset)

    owner = Owner({partition: door[1].position.offset})
    async with reading(transport, owner) as reader:
        again = await reader.take(4 + 5)

    assert [1, 2, 3, 4] == sequences(again, "door")


async def test_a_partition_that_was_renounced_delivers_nothing_until_it_is_taken_again(
    transport: Transport,
) -> None:
    await put_chunks(transport, 5)
    owner = Owner()

    async with reading(transport, owner) as reader:
        (first,) = await reader.take(1)
        partition = first.position.partition
        reader.source.renounce(partition)
        other = next(c for c in CAMERAS if c != first.camera)
        deliveries: list[Delivery] = []
        while len(of_camera(deliveries, other)) < 5:
            deliveries += await reader.take(1)

    assert list(range(5)) == sequences(deliveries, other)
    if of_camera(deliveries, first.camera):
        assert 2 == owner.calls.count(("take", partition))


async def test_a_source_is_caught_up_when_all_was_delivered(transport: Transport) -> None:
    await put_chunks(transport, 3)

    async with reading(transport) as reader:
        deliveries = await reader.take(1)
        partition = deliveries[0].position.partition
        assert not reader.source.is_caught_up(partition)
        deliveries += await reader.take(5)
        waiting = asyncio.create_task(reader.take(1))
        async with asyncio.timeout(240):
            while not all(reader.source.is_caught_up(p) for p in partitions_of(deliveries)):
                await asyncio.sleep(0.01)
            assert not any(reader.source.is_blind(p) for p in partitions_of(deliveries))
        await transport.put(a_chunk("door", 3))
        await waiting


def partitions_of(deliveries: list[Delivery]) -> set[str]:
    return {delivery.position.partition for delivery in deliveries}


async def test_a_bad_record_is_a_delivery_and_harms_no_other(transport: Transport) -> None:
    await transport.put(a_chunk("door", 0))
    await transport.put_bad("door")
    await transport.put(a_chunk("door", 1))

    async with reading(transport) as reader:
        good, bad, last = await reader.take(3)

    assert a_chunk("door", 0) == good.chunk
    assert bad.chunk is None
    assert bad.error is not None
    assert "door" == bad.camera
    assert bad.payload
    assert a_chunk("door", 1) == last.chunk


async def test_a_paused_partition_delivers_nothing_until_resumed(transport: Transport) -> None:
    await put_chunks(transport, 8)

    async with reading(transport) as reader:
        first = await reader.take(1)
        paused, other = first[0].camera, next(c for c in CAMERAS if c != first[0].camera)
        reader.source.pause(first[0].position.partition)
        meanwhile = await reader.take(8)
        reader.source.resume(first[0].position.partition)
        after = await reader.take(7)

    assert list(range(8)) == sequences(meanwhile, other)
    assert list(range(1, 8)) == sequences(after, paused)


async def test_chunks_put_while_reading_arrive(transport: Transport) -> None:
    await transport.put(a_chunk("door", 0))

    async with reading(transport) as reader:
        await reader.take(1)
        await transport.put(a_chunk("door", 1))
        later = await reader.take(1)

    assert a_chunk("door", 1) == later[0].chunk


async def test_the_end_of_an_run_arrives(transport: Transport) -> None:
    await transport.put(a_chunk("door", 0))
    await transport.put(an_end("door", 1))

    async with reading(transport) as reader:
        deliveries = await reader.take(2)

    assert an_end("door", 1) == deliveries[1].chunk


async def test_a_discontinuity_arrives(transport: Transport) -> None:
    broken = a_chunk("door", 7, discontinuity=True)
    await transport.put(broken)

    async with reading(transport) as reader:
        deliveries = await reader.take(1)

    assert broken == deliveries[0].chunk


async def test_close_ends_deliveries_that_wait(transport: Transport) -> None:
    await transport.put(a_chunk("door", 0))
    source = transport.source()
    await source.start(Owner())
    stream = source.deliveries()
    await anext(stream)

    async with asyncio.timeout(240), asyncio.TaskGroup() as tasks:
        rest = tasks.create_task(_rest(stream))
        await asyncio.sleep(0)
        await source.close()

    assert [] == rest.result()


async def _rest(stream: AsyncIterator[Delivery]) -> list[Delivery]:
    return [delivery async for delivery in stream]


async def test_close_may_be_repeated(transport: Transport) -> None:
    await transport.put(a_chunk("door", 0))
    source = transport.source()
    await source.start(Owner())

    await source.close()
    await source.close()
