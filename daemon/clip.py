"""`s2netd clip`: an event → the video that shows it, cut out of the chunks without re-encoding."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiokafka import TopicPartition
from rich.console import Console

from daemon.compose import options_of
from daemon.config import Config, DirectorySourceConfig, JsonlSinkConfig, load
from daemon.errors import ConfigError, MalformedRecordError, TransportError
from daemon.kafka.connection import KafkaConnection, describe_topic, explained
from daemon.kafka.reading import a_reader, bounds, chunk_of, records_between
from daemon.library_lines import silence_kafka_client
from daemon.sources.chunk_files import read_numbered
from daemon.wire.records import parse_event
from engine.errors import StreamError
from engine.types import FOREIGN_RUN, ActionEvent, Evidence, VideoChunk
from engine.video.joining import join_chunks


def cut_clip(config_path: Path, event_id: str, out: Path | None, console: Console) -> Path:
    """Find an event, and write the chunks that show it as one MP4.

    Args:
        config_path: The daemon's configuration: where chunks and events are.
        event_id: The event, or the beginning of its id.
        out: The file to write; None: named for camera and event, in the current folder.
        console: Shows what is being done.

    Returns:
        The file.

    Raises:
        ConfigError: There is no such event, or nothing is known of its footage.
        TransportError: Its chunks are not kept any more, or the broker is away.
        UnreadableVideoError: The chunks cannot be one video.
    """
    silence_kafka_client()
    config = load(config_path)
    with console.status("looking for the event"):
        event = asyncio.run(_event(config, event_id))
    if event.evidence is None:
        raise ConfigError(
            f"event {event.event_id}: it does not say where its footage lies (no `evidence`)"
        )
    with console.status("reading its chunks"):
        chunks = asyncio.run(_chunks(config, event, event.evidence))
    path = out or Path(f"{event.camera.replace('/', '_')}-{event.event_id[:8]}.mp4")
    seconds = join_chunks(chunks, path)
    inside_s = (event.span.start_us - _begins_us(chunks, config)) / 1e6
    console.print(
        f"{event.class_name} on {event.camera}, {event.span.duration_us / 1e6:.1f} s: begins "
        f"{max(inside_s, 0):.1f} s into {path} ({seconds:.1f} s, {len(chunks)} chunks)",
        markup=False,
        highlight=False,
    )
    return path


def _begins_us(chunks: list[VideoChunk], config: Config) -> int:
    """Stream time at which the first chunk begins, as far as its record tells."""
    start_us = chunks[0].start_us
    if chunks[0].run != FOREIGN_RUN or config.foreign_time != "end" or len(chunks) == 1:
        return start_us
    return start_us - (chunks[1].start_us - start_us)  # its record tells when it ends


async def _event(config: Config, event_id: str) -> ActionEvent:
    """The newest revision of an event.

    Raises:
        ConfigError: There is none, or several ids begin so.
    """
    found: dict[str, ActionEvent] = {}
    async for value in _event_values(config):
        with contextlib.suppress(MalformedRecordError):
            event = parse_event(value)
            before = found.get(event.event_id)
            if event.event_id.startswith(event_id) and (
                before is None or before.revision <= event.revision
            ):
                found[event.event_id] = event
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        sink = config.sink
        where = sink.path if isinstance(sink, JsonlSinkConfig) else f"topic {sink.topic}"
        raise ConfigError(f"event {event_id}: {where} has none with an id that begins so")
    raise ConfigError(f"event {event_id}: {len(found)} ids begin so, {', '.join(sorted(found))}")


async def _event_values(config: Config) -> AsyncIterator[bytes]:
    sink = config.sink
    if isinstance(sink, JsonlSinkConfig):
        for line in _lines(sink.path):
            yield line
        return
    connection: KafkaConnection = options_of(sink)["connection"]
    seen = await describe_topic(connection, sink.topic)
    partitions = [TopicPartition(sink.topic, number) for number in seen.partitions]
    async with (
        explained(connection, f"topic {sink.topic}"),
        a_reader(connection, *partitions) as consumer,
    ):
        for partition in partitions:
            part = (partition, *await bounds(consumer, partition))
            async for record in records_between(connection, consumer, *part):
                yield record.value or b""


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the events: {error.strerror}") from error


async def _chunks(config: Config, event: ActionEvent, evidence: Evidence) -> list[VideoChunk]:
    """The chunks of an event's run that its evidence names.

    Raises:
        TransportError: None of them is kept any more.
    """
    source = config.source
    if isinstance(source, DirectorySourceConfig):
        folder = source.path / evidence.partition
        most = config.decode.max_chunk_bytes
        read = read_numbered(folder, evidence.first_offset, evidence.last_offset, most)
    else:
        read = [chunk async for chunk in _topic_chunks(options_of(source)["connection"], evidence)]
    # A run that is not the first of its name is called name@offset, but not in its records.
    chunks = [
        chunk
        for run in (event.run, event.run.rpartition("@")[0])
        for chunk in read
        if chunk.camera == event.camera and chunk.run == run and chunk.payload
    ]
    chunks = [chunk for chunk in chunks if chunk.run == chunks[0].run]
    if not chunks:
        raise TransportError(
            f"event {event.event_id}: none of its chunks ({evidence.partition}, "
            f"{evidence.first_offset} to {evidence.last_offset}) is kept any more"
        )
    return chunks


async def _topic_chunks(
    connection: KafkaConnection, evidence: Evidence
) -> AsyncIterator[VideoChunk]:
    topic, _, number = evidence.partition.rpartition("/")
    partition = TopicPartition(topic, int(number))
    async with explained(connection, f"topic {topic}"), a_reader(connection, partition) as reader:
        oldest, newest = await bounds(reader, partition)
        first = max(evidence.first_offset, oldest)
        end = min(evidence.last_offset + 1, newest)
        async for record in records_between(connection, reader, partition, first, end):
            with contextlib.suppress(StreamError):
                yield chunk_of(record, evidence.partition)
