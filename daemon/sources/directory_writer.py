"""The producer's end of the directory transport."""

import asyncio
import json
from pathlib import Path

from daemon.errors import ConfigError, TransportError
from daemon.sources.base import ChunkFacts
from daemon.sources.directory import END_SUFFIX, SIDECAR_SUFFIX, last_number
from daemon.wire import chunk_record
from engine.types import VideoChunk

_SUFFIXES = {
    "video/mp4": ".mp4",
    "video/mp2t": ".ts",
    "video/h264": ".h264",
    "video/h265": ".h265",
    "video/x-matroska": ".mkv",
    "image/jpeg": ".mjpeg",
}


class DirectoryChunkWriter:
    """Puts chunks into ``root/<camera>/``, numbered on from what is there.

    Args:
        root: Made if missing.
        site: Written into every chunk's headers.
    """

    def __init__(self, root: Path, *, site: str = "default") -> None:
        self._root = root
        self._site = site
        self._next: dict[str, int] = {}

    async def start(self) -> None:
        """See ``ChunkWriter``."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._root}: cannot make it: {error.strerror}") from error

    async def write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        """See ``ChunkWriter``."""
        try:
            await asyncio.to_thread(self._write, chunk, facts)
        except OSError as error:
            raise TransportError(
                f"{self._root}: cannot write a chunk of {chunk.stream_id}: {error.strerror}"
            ) from error

    async def close(self) -> None:
        """See ``ChunkWriter``; every chunk is in place already."""

    def _write(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        folder = self._root / _folder_name(chunk.stream_id)
        number = self._next_number(chunk.stream_id, folder)
        record = chunk_record(chunk, facts, site=self._site)
        headers = {name: value.decode() for name, value in record.headers}
        suffix = END_SUFFIX if chunk.is_end else _SUFFIXES.get(facts.content_type, ".bin")
        sidecar = json.dumps(headers, indent=1, ensure_ascii=False).encode()
        # The sidecar first: a payload in place is a chunk that is whole.
        _put(folder / f"{number:010d}{SIDECAR_SUFFIX}", sidecar)
        _put(folder / f"{number:010d}{suffix}", record.value)
        self._next[chunk.stream_id] = number + 1

    def _next_number(self, stream_id: str, folder: Path) -> int:
        if stream_id not in self._next:
            folder.mkdir(exist_ok=True)
            self._next[stream_id] = last_number(folder) + 1
        return self._next[stream_id]


def _folder_name(stream_id: str) -> str:
    if "/" in stream_id or "\0" in stream_id or stream_id.startswith("."):
        raise ConfigError(
            f"camera {stream_id!r} cannot name a folder: leave out '/' and a leading '.'"
        )
    return stream_id


def _put(path: Path, payload: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(payload)
    unfinished.replace(path)
