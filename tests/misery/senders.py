"""Who sends: cameras by files, and strangers by Kafka and by files."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaProducer

from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.wire.facts import ChunkFacts
from daemon.wire.records import Record, chunk_record, parse_chunk
from engine.types import VideoChunk
from engine.video.cutting import CutChunk

STRAY = "stray"  # what runs of strangers begin with
MARK = ("misery", b"1")  # a header of records that a camera's own producer has not sent


class FolderLink:
    """A folder of chunks, as a ``Link`` of cameras.

    Args:
        root: The folder.
        make_folder: Makes a camera's folder in it.
    """

    def __init__(self, root: Path, make_folder: Callable[[str], Path]) -> None:
        self._writer = DirectoryChunkWriter(root)
        self._make_folder = make_folder
        self._numbers = itertools.count()

    async def start(self) -> None:
        """See ``Link``."""
        await self._writer.start()

    async def stop(self) -> None:
        """See ``Link``."""
        await self._writer.close()

    async def send(self, record: Record) -> "asyncio.Future[Any]":
        """See ``Link``."""
        chunk = parse_chunk(record.key, record.headers, record.value, timestamp_us=0, offset=0)
        self._make_folder(chunk.camera)
        await self._writer.write(chunk, ChunkFacts())
        written: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        written.set_result(SimpleNamespace(partition=0, offset=next(self._numbers)))
        return written


class Stranger:
    """Sends to a topic what it likes.

    Args:
        bootstrap: Address of the broker.
        topic: The topic.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=2**26)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator["Stranger"]:
        """It is there until the end of the block."""
        await self._producer.start()
        try:
            yield self
        finally:
            await self._producer.stop()

    async def send(
        self, camera: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Send one record under a camera's name."""
        await self._producer.send_and_wait(
            self._topic, value, key=camera.encode(), headers=list(headers)
        )

    async def send_chunk(self, chunk: VideoChunk) -> None:
        """Send a chunk as `s2netd produce` would, but for a mark."""
        record = chunk_record(chunk, ChunkFacts(), site="default")
        await self.send(chunk.camera, record.value, [*record.headers, MARK])


def stray_chunks(camera: str, clip: Sequence[CutChunk], run: str) -> list[VideoChunk]:
    """What a second producer sends under a camera's name."""
    return [piece.to_chunk(camera, run, number) for number, piece in enumerate(clip)]


def an_end(chunk: VideoChunk, run: str) -> VideoChunk:
    """The end mark of a run, after a chunk."""
    return replace(chunk, run=run, sequence=chunk.sequence + 1, payload=b"", is_end=True)


def put_foreign(folder: Path, number: int, payload: bytes, suffix: str) -> Path:
    """Put a whole file without headers into a camera's folder."""
    hidden = folder / f".{number:010d}.tmp"
    hidden.write_bytes(payload)
    return hidden.rename(folder / f"{number:010d}{suffix}")


def copy_without_strangers(chunks: Path, cameras: Sequence[str], target: Path) -> None:
    """Copy cameras' folders, without the chunks that strangers have put there."""
    for camera in cameras:
        (target / camera).mkdir(parents=True)
        for sidecar in sorted((chunks / camera).glob("[0-9]*.json")):
            if f'"vc_epoch": "{STRAY}' in sidecar.read_text():
                continue
            for file in (chunks / camera).glob(f"{sidecar.stem}.*"):
                shutil.copy(file, target / camera / file.name)
