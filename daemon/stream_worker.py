"""One camera's data flow, top to bottom: chunk → frames → … → events, published and remembered.

Order is the guarantee:
  1. the events of a chunk are durable in the sink,
  2. then the camera's state, with the chunk's position in it, is durable in the store,
  3. then the position is reported as finished, and may be committed.
A crash between any two repeats work, and repeats it with the same event ids and revisions.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from daemon.calls import RunningCalls
from daemon.clock import Clock
from daemon.device import Device
from daemon.metrics import Metrics
from daemon.sinks.base import EventSink
from daemon.sources.base import Delivery, Position
from daemon.state.base import StateStore
from engine.errors import SnapshotError, StaleChunkError, StreamError
from engine.frames import Decoder
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import ActionEvent, FeatureWindow, FrameBatch, Reason, VideoChunk

NO_OFFSET = -1
# A producer that comes back after a network cut may still deliver what it had queued.
N_ENDED_EPOCHS = 16


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all cameras share.

    Attributes:
        spec: The model.
        labels: Classes to report; None means all.
        device: Backbone and localizer.
        decode_pool: Threads that decode.
        sink: Where events go.
        store: Where state is kept.
        metrics: Counted here.
        calls: Decodes that do not come back.
        clock: For latency only.
        log: Where life-cycle is told.
        new_decoder: A decoder for one camera.
    """

    spec: ModelSpec
    labels: frozenset[int] | None
    device: Device
    decode_pool: Executor
    sink: EventSink
    store: StateStore
    metrics: Metrics
    calls: RunningCalls
    clock: Clock
    log: structlog.stdlib.BoundLogger
    new_decoder: Callable[[], Decoder]


class StreamWorker:
    """Processes one camera's deliveries, in order.

    Args:
        stream_id: The camera.
        parts: What all cameras share.
    """

    def __init__(self, stream_id: str, parts: WorkerParts) -> None:
        self.stream_id = stream_id
        self._parts = parts
        self._decoder = parts.new_decoder()
        self._log = parts.log.bind(camera=stream_id)
        # Where recent chunks begin: (offset, stream time of the first frame).
        self._recent: deque[tuple[int, int]] = deque(maxlen=256)
        self._in_duplicates = False
        self._session = self._restore()
        self._done: Position | None = None
        if self._session is not None:
            self._done = Position(
                str(self._session.source["partition"]), int(self._session.source["offset"])
            )

    async def process(self, delivery: Delivery) -> None:
        """Take one delivery as far as the store; a bad chunk is counted, never raised.

        Raises:
            DeviceError: The accelerator failed.
            TransportError: The sink or the store cannot be reached.
        """
        if self._is_done(delivery.position):
            await self._replay(delivery)
            return
        records = await self._process_new(delivery)
        await self._deliver(records)
        self._remember(delivery)

    def _is_done(self, position: Position) -> bool:
        # A camera may have moved to another partition, whose offsets say nothing about this one's.
        done = self._done
        return (
            done is not None
            and position.partition == done.partition
            and position.offset <= done.offset
        )

    def close(self) -> None:
        """Free the decoder."""
        self._decoder.close()

    async def _process_new(self, delivery: Delivery) -> list[ActionEvent]:
        chunk = delivery.chunk
        if chunk is None:
            return await self._drop(delivery, delivery.error)
        if self._is_duplicate(chunk):
            self._count_duplicate(chunk)
            return []
        self._in_duplicates = False
        records = await self._enter_epoch(chunk)
        session = self._current_session()
        if chunk.is_end:
            session.source["sequence"] = chunk.sequence
            records += await self._end(Reason.END)
            self._remember_ended(session, chunk.epoch)
            return records
        try:
            records += await self._break_if_chunks_are_missing(chunk, session)
            # Only now: what was just flushed happened by the clock as it was known before.
            if chunk.anchor_us is not None:
                session.anchor_us = chunk.anchor_us
            return records + await self.process_chunk(chunk, delivery.position.offset)
        except StreamError as error:
            return records + await self._drop(delivery, error)

    async def process_chunk(self, chunk: VideoChunk, offset: int) -> list[ActionEvent]:
        """The data flow of one chunk; every line is one stage."""
        session = self._current_session()
        frames = await self._decode(chunk)
        self._refuse_the_past(frames, session)
        self._recent.append((offset, int(frames.pts_us[0])))
        snippets = session.sample(frames)
        self._parts.metrics.snippets.labels(self.stream_id).inc(len(snippets))
        with self._stage("backbone"):
            features = await self._parts.device.extract(snippets)
        return await self._localize(session, session.buffer(features))

    async def _localize(
        self, session: StreamSession, windows: list[FeatureWindow]
    ) -> list[ActionEvent]:
        self._parts.metrics.windows.labels(self.stream_id).inc(len(windows))
        with self._stage("localize"):
            cas_windows = await self._parts.device.localize(windows)
        with self._stage("track"):
            return session.track(cas_windows)

    async def _decode(self, chunk: VideoChunk) -> FrameBatch:
        loop = asyncio.get_running_loop()
        with self._stage("decode"), self._parts.calls.running():
            frames = await loop.run_in_executor(
                self._parts.decode_pool, self._decoder.decode, chunk
            )
        self._parts.metrics.chunks.labels(self.stream_id).inc()
        self._parts.metrics.frames.labels(self.stream_id).inc(frames.n_decoded)
        return frames

    def _refuse_the_past(self, frames: FrameBatch, session: StreamSession) -> None:
        newest_us, seen_us = int(frames.pts_us[-1]), session.seen_us
        if seen_us is not None and newest_us <= seen_us:
            raise StaleChunkError(
                f"the chunk ends at {newest_us} us, footage up to {seen_us} us was seen: "
                "a producer whose clock goes back must start a new epoch"
            )

    async def _deliver(self, records: Sequence[ActionEvent]) -> None:
        if not records:
            return
        with self._stage("publish"):
            await self._parts.sink.publish(records)
        now_us = self._parts.clock.unix_us()
        for record in records:
            self._parts.metrics.events.labels(self.stream_id, record.phase.value).inc()
            if record.anchor_us is not None:
                latency_s = (now_us - record.anchor_us - record.decided_us) / 1e6
                self._parts.metrics.event_latency_seconds.observe(max(latency_s, 0))

    def _remember(self, delivery: Delivery) -> None:
        """Make the camera's state durable, with this delivery in it."""
        session, position = self._session, delivery.position
        if session is None:
            return
        self._done = position
        session.source["partition"] = position.partition
        session.source["offset"] = position.offset
        self._parts.metrics.open_events.labels(self.stream_id).set(len(session.open_events))
        low_offset = self._low_offset(session)
        session.source["low"] = NO_OFFSET if low_offset is None else low_offset
        with self._stage("save"):
            self._parts.store.save(
                self.stream_id, position.partition, low_offset, session.snapshot()
            )

    def _low_offset(self, session: StreamSession) -> int | None:
        """The first delivery that a restart must read again: its frames are still needed."""
        if session.resume_us is None:
            self._recent.clear()
            return None
        while len(self._recent) > 1 and self._recent[1][1] <= session.resume_us:
            self._recent.popleft()
        return self._recent[0][0] if self._recent else None

    async def _replay(self, delivery: Delivery) -> None:
        """Read again what was processed before a restart: only its frames are wanted."""
        chunk, session, offset = delivery.chunk, self._session, delivery.position.offset
        if session is None or not NO_OFFSET < int(session.source.get("low", NO_OFFSET)) <= offset:
            return  # another camera of the partition needs this stretch again, not this one
        if chunk is None:
            session.break_segment()
            return
        if chunk.is_end or chunk.epoch != session.epoch:
            return
        try:
            frames = await self._decode(chunk)
        except StreamError:
            session.break_segment()
            return
        self._recent.append((offset, int(frames.pts_us[0])))
        session.sample(frames)

    def _restore(self) -> StreamSession | None:
        blob = self._parts.store.load(self.stream_id)
        if blob is None:
            return None
        try:
            session = StreamSession.restore(blob, self._parts.spec, self._parts.labels)
        except SnapshotError as error:
            self._parts.metrics.snapshots_refused.labels(self.stream_id).inc()
            self._log.warning("stream.snapshot_refused", error=str(error))
            return None
        self._log.info("stream.restored", epoch=session.epoch, offset=session.source["offset"])
        return session

    def _current_session(self) -> StreamSession:
        if self._session is None:
            raise AssertionError("a chunk is processed inside its epoch")
        return self._session

    def _is_duplicate(self, chunk: VideoChunk) -> bool:
        session = self._session
        if session is None:
            return False
        if chunk.epoch in _ended(session):
            return True
        is_current = session.epoch == chunk.epoch
        return is_current and chunk.sequence <= int(session.source.get("sequence", NO_OFFSET))

    def _count_duplicate(self, chunk: VideoChunk) -> None:
        self._parts.metrics.duplicate_chunks.labels(self.stream_id).inc()
        if not self._in_duplicates:  # the first of a row is worth a line: a producer may be lost
            self._log.warning("chunk.duplicate", sequence=chunk.sequence, epoch=chunk.epoch)
        self._in_duplicates = True

    def _remember_ended(self, session: StreamSession, epoch: str) -> None:
        """Events of an ended epoch are final: chunks of it that come late must change nothing."""
        ended = [*_ended(session), epoch][-N_ENDED_EPOCHS:]
        session.source["ended"] = "\n".join(ended)

    async def _enter_epoch(self, chunk: VideoChunk) -> list[ActionEvent]:
        """A new run of the producer is a new stream time: what was open ends here."""
        records: list[ActionEvent] = []
        before = self._session
        if before is not None and before.epoch != chunk.epoch:
            records = await self._end(Reason.GAP)
            self._remember_ended(before, before.epoch)
        if before is None or before.epoch != chunk.epoch:
            self._session = StreamSession(
                self.stream_id,
                chunk.epoch,
                self._parts.spec,
                self._parts.labels,
                background=before.background if before is not None else None,
            )
            if before is not None:
                self._session.source["ended"] = before.source.get("ended", "")
            self._recent.clear()
            self._log.info("stream.opened", epoch=chunk.epoch)
        return records

    async def _break_if_chunks_are_missing(
        self, chunk: VideoChunk, session: StreamSession
    ) -> list[ActionEvent]:
        last = session.source.get("sequence")
        session.source["sequence"] = chunk.sequence
        # Without the producer's own ticks the sequence is the broker's offset, which other
        # cameras of the partition use up too; frame times then tell what is missing.
        is_numbered = chunk.start_ticks is not None
        is_missing = is_numbered and last is not None and chunk.sequence != int(last) + 1
        if not (is_missing or chunk.discontinuity):
            return []
        return await self._break(session, reason="chunks missing")

    async def _break(self, session: StreamSession, reason: str) -> list[ActionEvent]:
        self._parts.metrics.gaps.labels(self.stream_id).inc()
        self._log.warning("stream.gap", reason=reason, epoch=session.epoch)
        records = await self._localize(session, session.break_segment())
        return records + session.close(Reason.GAP)

    async def _end(self, reason: Reason) -> list[ActionEvent]:
        if self._session is None:
            return []
        records = await self._localize(self._session, self._session.break_segment())
        records += self._session.close(reason)
        self._log.info("stream.ended", epoch=self._session.epoch, reason=reason.value)
        return records

    async def _drop(self, delivery: Delivery, error: StreamError | None) -> list[ActionEvent]:
        kind = type(error).__name__
        self._parts.metrics.corrupt_chunks.labels(self.stream_id, kind).inc()
        self._log.warning(
            "chunk.dropped",
            partition=delivery.position.partition,
            offset=delivery.position.offset,
            error=kind,
            reason=str(error),
        )
        return await self._break(self._session, "corrupt chunk") if self._session else []

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        started_s = self._parts.clock.monotonic_s()
        yield
        spent_s = self._parts.clock.monotonic_s() - started_s
        self._parts.metrics.stage_seconds.labels(stage).observe(spent_s)


def _ended(session: StreamSession) -> list[str]:
    """Epochs of the camera that are over, oldest first; epoch names hold no line ends."""
    return [epoch for epoch in str(session.source.get("ended", "")).split("\n") if epoch]
