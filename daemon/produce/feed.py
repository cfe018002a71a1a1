"""One camera: its footage is cut, waits in the spool, and is written.

Each pass over a file, and each connection to a camera, is a run, and ends with an end marker, so
that the daemon knows that nothing follows; so does a run whose dates were too far off. A live
camera that drops out is connected to again, in a new run, for ever. Live footage is cut whether
or not it can be written; a file waits.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from daemon.calls import RunningCalls
from daemon.clock import Clock
from daemon.errors import RefusedRecordError, TransportError
from daemon.outages import Outage
from daemon.produce.base import ChunkWriter
from daemon.produce.footage import Footage, not_produced, source_files
from daemon.produce.losses import Losses
from daemon.produce.runs import SourceRuns
from daemon.produce.spool import Spool, Waiting
from daemon.threads import forget, in_thread, told_if_slow
from daemon.wire.facts import ChunkFacts
from engine.errors import UnreadableVideoError
from engine.types import VideoChunk
from engine.video.arrivals import HostClocks
from engine.video.cutting import CutChunk, cut_video

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
SLOW_S = 5.0  # of a target: then it counts as away
_FIRST_WRITE_RETRY_S = 0.2
_LAST_WRITE_RETRY_S = 5.0

REFUSED = "the target takes no such chunk"
FAILED = "an error that nobody foresaw"
SPOOL_FULL = "the spool was full"
STOPPED = "produce was stopped before they were written"


@dataclass(frozen=True, slots=True)
class FeedParts:
    """What the cameras of a process share.

    Attributes:
        writer: Where chunks go.
        is_open: Set once the writer has been started.
        spool: What waits for it.
        drop: Told of what must go from the spool, of whatever camera.
        stop: Set when the process is to end.
        clock: Sets the pace and gives capture times.
        calls: Told of each call that may hang.
        log: What becomes of the footage is told here.
    """

    writer: ChunkWriter
    is_open: asyncio.Event
    spool: Spool
    drop: Callable[[list[Waiting]], None]
    stop: asyncio.Event
    clock: Clock
    calls: RunningCalls
    log: structlog.stdlib.BoundLogger


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """How a camera is.

    Attributes:
        camera: Its name.
        state: ``opening``, ``live``, ``away`` (it is tried again) or ``ended``.
        fps: Frames a second of its newest chunk; None before the first.
        lag_s: By how much the newest footage that was written lies behind now; None: not known.
        spooled_chunks: Chunks that wait to be written.
        spooled_bytes: Bytes of these.
        dropped_chunks: Chunks that were not sent, for whatever reason, since the start.
        dropped_s: Seconds of footage in these.
    """

    camera: str
    state: str
    fps: float | None
    lag_s: float | None
    spooled_chunks: int
    spooled_bytes: int
    dropped_chunks: int
    dropped_s: float

    def line(self) -> str:
        """It as a line for people."""
        fps = "-" if self.fps is None else f"{self.fps:.1f}"
        lag = "-" if self.lag_s is None else f"{self.lag_s:.1f} s"
        return (
            f"{self.camera}: {self.state}, fps {fps}, lag {lag}, "
            f"spooled {self.spooled_chunks} chunks ({self.spooled_bytes / 1e6:.1f} MB), "
            f"dropped {self.dropped_chunks} chunks ({self.dropped_s:.1f} s)"
        )


class Feed:
    """One camera's way from footage to the writer.

    Args:
        footage: What is cut.
        parts: What it shares with other cameras.
        target: Told whether this camera's chunks can be written.

    Attributes:
        losses: What could not be sent.
        n_chunks: Chunks written, without end markers.
        n_bytes: Bytes of these.
    """

    def __init__(self, footage: Footage, parts: FeedParts, target: Outage) -> None:
        self.footage = footage
        self.losses = Losses(footage.camera)
        self.n_chunks = 0
        self.n_bytes = 0
        self._parts = parts
        self._target = target
        self._log = parts.log.bind(camera=footage.camera, source=footage.shown)
        self._state = "opening"
        self._fps: float | None = None
        self._written_us: int | None = None  # Unix time of the newest footage that is written
        self._n_cut = 0
        self._is_cut = False  # nothing more will come
        self._changed = asyncio.Event()  # set when one of the two loops may go on

    async def run(self) -> None:
        """Send the camera's footage until it ends, or until told to stop.

        Cancelled, it counts what it has not sent as lost.

        Raises:
            ConfigError: The source is not usable as it was named.
            UnreadableVideoError: Files could not be read; all others were sent.
        """
        self._is_cut = False
        failed: UnreadableVideoError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_all())
                failed = await (self._cut_live() if self.footage.is_live else self._cut_files())
                self._is_cut = True
                self._changed.set()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        if failed is not None:
            raise failed

    def give_up(self) -> None:
        """What still waits will not be written."""
        for waiting in self._parts.spool.clear(self.footage.camera):
            self.losses.add(waiting, STOPPED)

    def status(self) -> FeedStatus:
        """How it is now."""
        n_chunks, n_bytes = self._parts.spool.held(self.footage.camera)
        written_us = self._written_us
        now_us = self._parts.clock.unix_us()
        return FeedStatus(
            camera=self.footage.camera,
            state=self._state,
            fps=self._fps,
            lag_s=None if written_us is None else (now_us - written_us) / 1e6,
            spooled_chunks=n_chunks,
            spooled_bytes=n_bytes,
            dropped_chunks=self.losses.n_chunks,
            dropped_s=self.losses.duration_us / 1e6,
        )

    async def _cut_files(self) -> UnreadableVideoError | None:
        files = await self._unless_stopped(partial(source_files, self.footage.source)) or []
        failed: list[UnreadableVideoError] = []
        is_again = True
        while is_again and not self._parts.stop.is_set():
            failed = []
            for path in files:
                if self._parts.stop.is_set():
                    break
                try:
                    await self._cut_run(str(path))
                except UnreadableVideoError as error:
                    failed.append(error)
                    if len(files) > 1:
                        self._log.warning("produce.unreadable", reason=str(error))
            is_again = self.footage.loop and len(failed) < len(files)
        self._state = "ended"
        return not_produced(failed, len(files)) if failed else None

    async def _cut_live(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._parts.stop.is_set():
            n_before, reason = self._n_cut, f"{self.footage.shown}: the stream ended"
            try:
                await self._cut_run(self.footage.source)
            except UnreadableVideoError as error:
                reason = str(error)
            retry_s = FIRST_RETRY_S if self._n_cut > n_before else retry_s
            if not self._parts.stop.is_set():
                self._state = "away"
                self._log.warning("produce.away", reason=reason, again_in_s=retry_s)
                await self._pause(retry_s)
            retry_s = min(retry_s * 2, LAST_RETRY_S)
        self._state = "ended"

    async def _cut_run(self, source: str) -> None:
        """Cut one run of one source, end marker included."""
        footage, clock = self.footage, self._parts.clock
        self._state = "opening"
        started_s = clock.monotonic_s()
        # A file that is read as fast as it goes was captured at some other time, which is unknown.
        runs = SourceRuns(footage.camera, clock.unix_us() if footage.realtime else None)
        log = self._log if footage.is_live else self._log.bind(source=source)
        pieces = cut_video(
            source,
            chunk_s=footage.chunk_s,
            transcode=footage.transcode,
            on_note=lambda note: log.warning("produce.note", said=note),
            live=footage.is_live,
            clocks=HostClocks(clock.monotonic_s, clock.unix_us),
            access=footage.access,
            most_bytes=lambda: self._parts.writer.most_bytes,
        )
        try:
            while (piece := await self._unless_stopped(partial(next, pieces, None))) is not None:
                if footage.realtime and not footage.is_live:
                    end_us = piece.start_us + piece.duration_us
                    await self._pause(started_s + end_us / 1e6 - clock.monotonic_s())
                if not runs.n_chunks and footage.is_live:
                    log.info("produce.connected")
                self._state = "live"
                self._fps = piece.n_frames * 1e6 / max(piece.duration_us, 1)
                for sent in runs.taken(piece):
                    self._put(*sent)
                self._n_cut += 1
                if not footage.is_live:
                    await self._until_written()
        finally:
            forget(in_thread(partial(_close, pieces)))
            for sent in runs.ended():
                self._put(*sent)

    def _put(self, chunk: VideoChunk, facts: ChunkFacts) -> None:
        """Let a chunk wait to be written."""
        self._parts.drop(self._parts.spool.put(Waiting(chunk, facts)))
        self._changed.set()

    async def _until_written(self) -> None:
        """A file can wait: nothing of it must go."""
        while self._parts.spool.held(self.footage.camera)[0]:
            self._changed.clear()
            await self._changed.wait()

    async def _write_all(self) -> None:
        await self._parts.is_open.wait()
        spool = self._parts.spool
        while True:
            waiting = spool.take(self.footage.camera)
            if waiting is None:
                if self._is_cut:
                    return
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                await self._write(waiting)
            except BaseException:
                self.losses.add(waiting, STOPPED if self._parts.stop.is_set() else FAILED)
                raise
            finally:
                spool.done(waiting)
            self._changed.set()

    async def _write(self, waiting: Waiting) -> None:
        """Write a chunk, however long that takes; what no try can write is left out."""
        retry_s = _FIRST_WRITE_RETRY_S
        while True:
            writing = self._parts.writer.write(waiting.chunk, waiting.facts)
            try:
                await told_if_slow(writing, SLOW_S, self._target.failed)
            except RefusedRecordError as error:
                self._target.worked()  # it has answered
                self.losses.add(waiting, REFUSED, str(error))
                return
            except TransportError as error:
                self._target.failed(error)
            else:
                break
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LAST_WRITE_RETRY_S)
        self._target.worked()
        self._count(waiting)

    def _count(self, waiting: Waiting) -> None:
        chunk = waiting.chunk
        if chunk.is_end:
            return
        self.n_chunks += 1
        self.n_bytes += len(chunk.payload)
        if chunk.anchor_us is not None:
            self._written_us = chunk.anchor_us + chunk.start_us + waiting.duration_us

    async def _pause(self, wait_s: float) -> None:
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._parts.stop.wait(), wait_s)

    async def _unless_stopped(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, in a thread of its own; None if told to stop before it is done."""
        if self._parts.stop.is_set():
            return None
        watched = self._parts.calls.watched(f"footage of {self.footage.camera}", work)
        coming = in_thread(watched, "footage")
        stopped = asyncio.create_task(self._parts.stop.wait())
        try:
            await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            forget(coming)
        return coming.result() if coming.done() else None


def _close(pieces: Iterator[CutChunk]) -> None:
    """Close a source, unless a thread is at work in it, which closes it then."""
    with suppress(ValueError):
        pieces.close()  # type: ignore[attr-defined] # a generator
