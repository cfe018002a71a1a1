"""`s2netd produce`: footage → closed-GOP chunks on a transport.

Each pass over a file, and each connection to a camera, is a run, and ends with an end marker, so
that the daemon knows that nothing follows. A live camera that drops out is connected to again, in
a new run.
"""

import asyncio
import secrets
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from daemon.clock import Clock, SystemClock
from daemon.config import load_security
from daemon.errors import ConfigError, MalformedRecordError
from daemon.kafka.connection import KafkaConnection
from daemon.kafka.topics import check_name
from daemon.library_lines import silence_kafka_client
from daemon.produce.base import ChunkWriter
from daemon.produce.directory_writer import DirectoryChunkWriter
from daemon.produce.kafka_writer import KafkaChunkWriter, KafkaWriterSettings
from daemon.wire.facts import ChunkFacts
from daemon.wire.headers import read_name
from engine.errors import UnreadableVideoError
from engine.types import VideoChunk
from engine.video.addresses import without_password
from engine.video.cutting import CutChunk, cut_video
from engine.video.folders import VIDEO_SUFFIXES, is_video_name

Transcode = Literal["auto", "never", "always"]
URL_SCHEMES = ("rtsp", "rtsps", "http", "https")
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class ProduceOptions:
    """What the command line says; see `s2netd produce --help`."""

    source: str
    camera: str
    to: str
    bootstrap: str = "127.0.0.1:9092"
    security: Path | None = None
    chunk_s: float = 1.0
    transcode: str = "auto"
    realtime: bool = False
    loop: bool = False
    site: str = "default"

    @property
    def is_live(self) -> bool:
        """True for a network address: a camera there sets the pace and is not expected to end."""
        return "://" in self.source


class Producer:
    """Cuts and publishes until the source ends or ``stop`` is called.

    Args:
        options: What to do.
        console: Notes and progress are shown here.
        clock: Sets the pace and gives capture times; None: the machine's.
    """

    def __init__(
        self, options: ProduceOptions, console: Console, clock: Clock | None = None
    ) -> None:
        if options.transcode not in ("auto", "never", "always"):
            raise ConfigError(
                f"--transcode is {options.transcode!r}, wanted auto, never or always"
            )
        for option, name in (("--camera", options.camera), ("--site", options.site)):
            try:
                read_name(option, name)
            except MalformedRecordError as error:
                raise ConfigError(str(error)) from error
        scheme = options.source.partition("://")[0] if options.is_live else None
        if scheme not in (None, *URL_SCHEMES):
            raise ConfigError(
                f"{options.source}: {scheme}:// is not supported, wanted {', '.join(URL_SCHEMES)}"
            )
        self._options = options
        self._console = console
        self._clock = clock or SystemClock()
        self._stop = asyncio.Event()
        self.n_chunks = 0
        self.n_bytes = 0

    def stop(self) -> None:
        """Let ``run`` publish the chunk in hand and the end marker, and then return."""
        self._stop.set()

    async def run(self) -> None:
        """Produce chunks until the source ends or ``stop`` is called.

        Raises:
            ConfigError: The source or the target is not usable as it was named.
            TransportError: The target cannot be reached any more.
            UnreadableVideoError: The source is no video.
        """
        files = None if self._options.is_live else source_files(self._options.source)
        options = self._options
        writer = open_writer(
            options.to, options.bootstrap, site=options.site, security=options.security
        )
        await writer.start()
        try:
            await self._produce_all(writer, files)
        finally:
            await writer.close()

    async def _produce_all(self, writer: ChunkWriter, files: list[Path] | None) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        is_plain = not self._console.is_terminal
        with Progress(
            *columns, console=self._console, transient=True, disable=is_plain
        ) as progress:
            if files is None:
                await self._produce_live(writer, progress)
                return
            while not self._stop.is_set():
                for path in files:
                    await self._produce_run(writer, str(path), progress)
                if not self._options.loop:
                    return

    async def _produce_live(self, writer: ChunkWriter, progress: Progress) -> None:
        retry_s = FIRST_RETRY_S
        while not self._stop.is_set():
            n_before = self.n_chunks
            try:
                await self._produce_run(writer, self._options.source, progress)
            except UnreadableVideoError as error:
                self._console.print(f"{error}; connecting again in {retry_s:.0f} s", markup=False)
            retry_s = FIRST_RETRY_S if self.n_chunks > n_before else retry_s
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), retry_s)
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    async def _produce_run(self, writer: ChunkWriter, source: str, progress: Progress) -> None:
        """Produce one run of one source, end marker included."""
        run = new_run()
        started_s = self._clock.monotonic_s()
        # A file that is read as fast as it goes was captured at some other time, which is unknown.
        is_now = self._options.is_live or self._options.realtime
        anchor_us = self._clock.unix_us() if is_now else None
        name = without_password(source)
        task = progress.add_task(f"{name}: opening")
        sequence, end_us = 0, 0
        pieces = cut_video(
            source,
            chunk_s=self._options.chunk_s,
            transcode=cast(Transcode, self._options.transcode),
            on_note=lambda note: self._console.print(
                f"{name}: {note}", markup=False, highlight=False, soft_wrap=True
            ),
            live=self._options.is_live,
        )
        try:
            while not self._stop.is_set():
                piece = await asyncio.to_thread(next, pieces, None)
                if piece is None:
                    break
                end_us = piece.start_us + piece.duration_us
                if self._options.realtime and not self._options.is_live:
                    await self._pace(started_s + end_us / 1e6)
                chunk = piece.to_chunk(self._options.camera, run, sequence, anchor_us)
                await writer.write(chunk, _facts_of(piece))
                sequence += 1
                self._count(piece)
                progress.update(
                    task,
                    description=f"{name}: {sequence} chunks, {end_us / 1e6:.1f} s of video",
                )
        finally:
            await asyncio.to_thread(_close, pieces)
            if sequence:
                await writer.write(
                    _end_of(self._options.camera, run, sequence, end_us), ChunkFacts()
                )
            progress.remove_task(task)

    async def _pace(self, until_s: float) -> None:
        """Wait until ``until_s``, as a camera delivers a chunk only after its last frame."""
        wait_s = until_s - self._clock.monotonic_s()
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)

    def _count(self, piece: CutChunk) -> None:
        self.n_chunks += 1
        self.n_bytes += len(piece.payload)


def open_writer(
    to: str, bootstrap: str, *, site: str, security: Path | None = None
) -> ChunkWriter:
    """Make the writer for the target that ``--to`` names.

    Args:
        to: ``dir:PATH`` or ``kafka:TOPIC``.
        bootstrap: Of Kafka: addresses of brokers.
        site: Written into every chunk.
        security: Of Kafka: a file with the keys of a section ``security``; None: there are none.

    Raises:
        ConfigError: ``to`` is neither, or the file is wrong.
    """
    kind, _, name = to.partition(":")
    if kind == "dir" and name:
        if security is not None:
            raise ConfigError(f"--security is {security}, but --to is {to}; a folder takes none")
        return DirectoryChunkWriter(Path(name), site=site)
    if kind == "kafka" and name:
        keys = {} if security is None else load_security(security).model_dump()
        try:
            check_name(name)
        except ValueError as error:
            raise ConfigError(f"--to kafka:TOPIC: {error}") from error
        return KafkaChunkWriter(
            KafkaWriterSettings(KafkaConnection(bootstrap, **keys), name, site)
        )
    raise ConfigError(f"--to is {to!r}, wanted dir:PATH or kafka:TOPIC")


def _close(pieces: Iterator[CutChunk]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


def new_run() -> str:
    """A run's name, which no other run has; names sort by time, for people."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def source_files(source: str) -> list[Path]:
    """The file, or the video files of a folder, sorted by name.

    Raises:
        ConfigError: There is no such file, or none in the folder.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if is_video_name(p) and p.is_file())
        if not files:
            raise ConfigError(
                f"{path}: holds no video file; looked for {' '.join(sorted(VIDEO_SUFFIXES))}"
            )
        return files
    if not path.is_file():
        raise UnreadableVideoError(
            f"{path}: no such file or folder, and no rtsp:// or http:// address"
        )
    return [path]


def _end_of(camera: str, run: str, sequence: int, end_us: int) -> VideoChunk:
    return VideoChunk(camera, run, sequence, end_us, b"", is_end=True)


def _facts_of(piece: CutChunk) -> ChunkFacts:
    return ChunkFacts(
        content_type=piece.content_type,
        duration_us=piece.duration_us,
        n_frames=piece.n_frames,
        width=piece.width,
        height=piece.height,
    )


def produce_blocking(options: ProduceOptions, console: Console) -> None:
    """Produce until the source ends, or until SIGTERM or Ctrl-C."""
    silence_kafka_client()

    async def run() -> Producer:
        producer = Producer(options, console)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, producer.stop)
        await producer.run()
        return producer

    producer = asyncio.run(run())
    console.print(
        f"{options.camera}: {producer.n_chunks} chunks, {producer.n_bytes / 1e6:.1f} MB "
        f"to {options.to}",
        markup=False,
    )
