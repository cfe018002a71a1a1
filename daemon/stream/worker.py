"""One camera's data flow, top to bottom: chunk → frames → … → events, published and remembered.

Three steps follow one another, and this order is what guarantees that no event is lost:
  1. The camera's state becomes durable in the store. It holds the chunk's position and the
     revisions of events that follow from the chunk; until these are published, it owes them.
  2. Then the revisions become durable in the sink, and the state owes them no longer.
  3. Then the position is reported as finished, and ``daemon.app`` may commit it.
A crash between two steps repeats work, with the same event ids and revisions. As all that is
published is in the store too, this holds even if another model runs after the crash, which could
not find the same events again.

Another model takes over between two chunks. If it is of the same bundle, it goes on where the one
before stopped. If it is of another bundle, the old model's events get their last revisions, and a
session of the new model replaces the old one. One save does both: it holds the new session, which
owes those revisions.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog

from daemon.clock import Clock
from daemon.device.calls import RunningCalls
from daemon.device.thread import Device
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.sinks.base import EventSink
from daemon.sources.base import Delivery
from daemon.state.base import StateStore
from daemon.stream.place import (
    RecentChunks,
    done_of,
    is_done,
    is_duplicate,
    is_needed_again,
    with_ended,
)
from engine.errors import SnapshotError, StaleChunkError, StreamError
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import ActionEvent, FeatureWindow, FrameBatch, Place, Reason, Snippet, VideoChunk
from engine.video.frames import Decoder


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all cameras share.

    Attributes:
        models: Tells which model to work with.
        device: Runs the model's networks.
        decode_pool: Threads that decode.
        sink: Where events go.
        store: Where each camera's state is kept.
        metrics: Work and faults are counted here.
        calls: Told of each decode, so that one that hangs is noticed.
        clock: Measures latencies and gives deadlines on the device, no event times.
        log: Changes and faults of a camera are logged here.
        new_decoder: Makes a decoder of one camera's chunks for a model.
    """

    models: ModelSlot
    device: Device
    decode_pool: Executor
    sink: EventSink
    store: StateStore
    metrics: Metrics
    calls: RunningCalls
    clock: Clock
    log: structlog.stdlib.BoundLogger
    new_decoder: Callable[[ModelSpec], Decoder]


class StreamWorker:
    """Processes one camera's deliveries, in order.

    Args:
        camera: The camera.
        parts: What all cameras share.
    """

    def __init__(self, camera: str, parts: WorkerParts) -> None:
        self.camera = camera
        self._parts = parts
        self._model = parts.models.take()
        self._decoder = parts.new_decoder(self._model.spec)
        self._log = parts.log.bind(camera=camera)
        self._recent = RecentChunks()
        self._in_duplicates = False
        self._deadline_s = 0.0  # when the camera will have its next snippet, by the device's clock
        self._session = self._restore()
        self._done = None if self._session is None else done_of(self._session)
        # A restored session lacks its latest frames until they are read again; until then the
        # snapshot in the store must stay as it is.
        self._awaits_replay = (
            self._session is not None and self._session.place.low_offset is not None
        )

    async def process_chunk(self, chunk: VideoChunk, offset: int) -> list[ActionEvent]:
        """Put one chunk through every stage, from its frames to revisions of events."""
        session = self._current_session()
        frames = await self._decode(chunk)
        self._refuse_the_past(frames, session)
        self._recent.add(offset, int(frames.pts_us[0]))
        snippets = self._sample(frames, session)
        with self._stage("backbone"):
            features = await self._parts.device.extract(
                self._model.extractor,
                snippets,
                camera=self.camera,
                deadline_s=self._deadline_s,
            )
        return await self._localize(session, session.buffer(features))

    async def _decode(self, chunk: VideoChunk) -> FrameBatch:
        loop = asyncio.get_running_loop()
        with self._stage("decode"), self._parts.calls.running():
            frames = await loop.run_in_executor(
                self._parts.decode_pool, self._decoder.decode, chunk
            )
        self._parts.metrics.chunks.labels(self.camera).inc()
        self._parts.metrics.frames.labels(self.camera).inc(frames.n_decoded)
        return frames

    def _sample(self, frames: FrameBatch, session: StreamSession) -> list[Snippet]:
        n_late_before = session.n_late_frames
        snippets = session.sample(frames)
        n_late = frames.n_late + session.n_late_frames - n_late_before
        self._parts.metrics.late_frames.labels(self.camera).inc(n_late)
        self._parts.metrics.snippets.labels(self.camera).inc(len(snippets))
        return snippets

    def _refuse_the_past(self, frames: FrameBatch, session: StreamSession) -> None:
        newest_us, seen_us = int(frames.pts_us[-1]), session.seen_us
        if seen_us is not None and newest_us <= seen_us:
            raise StaleChunkError(
                f"the chunk ends at {newest_us} us, footage up to {seen_us} us was seen: "
                "a producer whose clock goes back must start a new run"
            )

    async def _localize(
        self, session: StreamSession, windows: list[FeatureWindow]
    ) -> list[ActionEvent]:
        self._parts.metrics.windows.labels(self.camera).inc(len(windows))
        with self._stage("localize"):
            cas_windows = await self._parts.device.localize(
                self._model.localizer,
                windows,
                camera=self.camera,
                deadline_s=self._deadline_s,
            )
        with self._stage("track"):
            return session.track(cas_windows)

    async def process(self, delivery: Delivery) -> None:
        """Process one delivery, store the state, and publish; a bad chunk is counted, not raised.

        Raises:
            DeviceError: The accelerator failed.
            TransportError: The sink or the store cannot be reached.
        """
        await self.take_over()
        if is_done(delivery.position, self._done):
            await self._replay(delivery)
            return
        self._awaits_replay = False
        stride_s = self._model.spec.grid.stride_us / 1e6
        self._deadline_s = self._parts.clock.monotonic_s() + stride_s
        revisions = await self._process_new(delivery)
        self._remember(delivery, revisions)
        await self._pay()

    async def take_over(self) -> None:
        """Go over to the current model if it is another one; call this between two chunks.

        Raises:
            DeviceError: The accelerator failed.
            TransportError: The sink or the store cannot be reached.
        """
        if self._parts.models.current is not self._model:
            await self._switch()
        await self._pay()

    async def _switch(self) -> None:
        before, session = self._model, self._session
        model = self._parts.models.take()
        try:
            if before.spec.model_id == model.spec.model_id:
                if session is not None:
                    session.retune(model.spec, model.class_indices)
            else:
                if session is not None:
                    await self._succeed(session, model)
                self._decoder.close()
                self._decoder = self._parts.new_decoder(model.spec)
        except BaseException:
            self._parts.models.give_back(model)
            raise
        self._model = model
        self._parts.models.give_back(before)
        self._log.info("stream.model_changed", before=before.description, model=model.description)

    async def _succeed(self, session: StreamSession, model: OpenModel) -> None:
        """Replace the camera's session by one of another bundle, and make that durable at once."""
        last = await self._localize(session, session.break_segment())
        self._session = session.succeeded_by(
            model.spec, model.class_indices, feature_id=model.feature_id, revisions=last
        )
        self._recent.clear()
        self._awaits_replay = False
        self._save(self._session)

    async def _pay(self) -> None:
        """Publish the revisions that the saved state owes."""
        session = self._session
        if session is None or not session.owed:
            return
        await self._deliver(session.owed)  # 2. the revisions are durable, and owed no longer
        session.owed = ()
        if not self._awaits_replay:
            self._save(session)

    def close(self) -> None:
        """Free the decoder and give the model back."""
        self._decoder.close()
        self._parts.models.give_back(self._model)

    async def _process_new(self, delivery: Delivery) -> list[ActionEvent]:
        chunk = delivery.chunk
        if chunk is None:
            return await self._drop(delivery, delivery.error)
        if self._session is not None and is_duplicate(self._session, chunk):
            self._count_duplicate(chunk)
            return []
        self._in_duplicates = False
        revisions = await self._enter_run(chunk)
        session = self._current_session()
        if chunk.is_end:
            session.place = replace(session.place, sequence=chunk.sequence)
            revisions += await self._end(Reason.END)
            session.place = with_ended(session.place, chunk.run)
            return revisions
        try:
            revisions += await self._break_if_chunks_are_missing(chunk, session)
            # Only now: the revisions so far are dated by the anchor that was known before.
            if chunk.anchor_us is not None:
                session.anchor_us = chunk.anchor_us
            return revisions + await self.process_chunk(chunk, delivery.position.offset)
        except StreamError as error:
            return revisions + await self._drop(delivery, error)

    async def _deliver(self, revisions: Sequence[ActionEvent]) -> None:
        with self._stage("publish"):
            await self._parts.sink.publish(revisions)
        now_us = self._parts.clock.unix_us()
        for revision in revisions:
            self._parts.metrics.events.labels(self.camera, revision.phase.value).inc()
            if revision.anchor_us is not None:
                latency_s = (now_us - revision.anchor_us - revision.decided_us) / 1e6
                self._parts.metrics.event_latency_seconds.observe(max(latency_s, 0))

    def _remember(self, delivery: Delivery, revisions: Sequence[ActionEvent]) -> None:
        """Make the camera's state durable, with this delivery and the revisions it led to."""
        session, position = self._session, delivery.position
        if session is None:
            return
        self._done = position
        session.owed = (*session.owed, *revisions)
        session.place = replace(
            session.place, partition=position.partition, offset=position.offset
        )
        self._save(session)  # 1. the state is durable, and owes the revisions

    def _save(self, session: StreamSession) -> None:
        self._parts.metrics.open_events.labels(self.camera).set(len(session.open_events))
        low_offset = self._recent.low_offset(session.resume_us)
        session.place = replace(session.place, low_offset=low_offset)
        done = done_of(session)
        if low_offset is None and session.owed:
            # The camera may send nothing more, and what it owes must not wait for its next chunk.
            # So a restart reads its last chunk again, and then publishes.
            low_offset = done.offset
        with self._stage("save"):
            self._parts.store.save(self.camera, done.partition, low_offset, session.snapshot())

    async def _replay(self, delivery: Delivery) -> None:
        """Take in the frames of a chunk that was processed before a restart, and only these."""
        chunk, session, offset = delivery.chunk, self._session, delivery.position.offset
        if session is None or not is_needed_again(session.place, offset):
            return
        if chunk is None:
            session.break_segment()
            return
        if chunk.is_end or chunk.run != session.run:
            return
        try:
            frames = await self._decode(chunk)
        except StreamError:
            session.break_segment()
            return
        self._recent.add(offset, int(frames.pts_us[0]))
        session.sample(frames)

    def _restore(self) -> StreamSession | None:
        blob = self._parts.store.load(self.camera)
        if blob is None:
            return None
        model = self._model
        try:
            session = StreamSession.restore_or_succeed(
                blob, model.spec, model.class_indices, feature_id=model.feature_id
            )
            done = done_of(session)
        except SnapshotError as error:
            self._parts.metrics.snapshots_refused.labels(self.camera).inc()
            self._log.warning("stream.snapshot_refused", error=str(error))
            return None
        self._log.info("stream.restored", run=session.run, offset=done.offset)
        if session.succeeds is not None:
            # The old model's footage is over; the new one needs no frame of it again.
            session.place = replace(session.place, low_offset=None)
            self._log.info(
                "stream.model_changed", before=session.succeeds, model=model.description
            )
        return session

    def _current_session(self) -> StreamSession:
        if self._session is None:
            raise AssertionError("a chunk is processed inside its run")
        return self._session

    def _count_duplicate(self, chunk: VideoChunk) -> None:
        self._parts.metrics.duplicate_chunks.labels(self.camera).inc()
        if not self._in_duplicates:  # only the first of a row is logged; the producer may be wrong
            self._log.warning("chunk.duplicate", sequence=chunk.sequence, run=chunk.run)
        self._in_duplicates = True

    async def _enter_run(self, chunk: VideoChunk) -> list[ActionEvent]:
        """If the chunk begins a new run, end the old run's events; stream time starts anew."""
        revisions: list[ActionEvent] = []
        before = self._session
        if before is not None and before.run != chunk.run:
            revisions = await self._end(Reason.GAP)
            before.place = with_ended(before.place, before.run)
        if before is None or before.run != chunk.run:
            self._session = StreamSession(
                self.camera,
                chunk.run,
                self._model.spec,
                self._model.class_indices,
                camera_mean=before.camera_mean if before is not None else None,
                feature_id=self._model.feature_id,
            )
            if before is not None:
                self._session.place = Place(ended_runs=before.place.ended_runs)
            self._recent.clear()
            self._log.info("stream.opened", run=chunk.run)
        return revisions

    async def _break_if_chunks_are_missing(
        self, chunk: VideoChunk, session: StreamSession
    ) -> list[ActionEvent]:
        last = session.place.sequence
        session.place = replace(session.place, sequence=chunk.sequence)
        # Without the producer's own ticks the sequence is the broker's offset, which other
        # cameras of the partition use up too; frame times then tell what is missing.
        is_numbered = chunk.start_ticks is not None
        is_missing = is_numbered and last is not None and chunk.sequence != last + 1
        if not (is_missing or chunk.discontinuity):
            return []
        return await self._break(session, reason="chunks missing")

    async def _break(self, session: StreamSession, reason: str) -> list[ActionEvent]:
        self._parts.metrics.gaps.labels(self.camera).inc()
        self._log.warning("stream.gap", reason=reason, run=session.run)
        revisions = await self._localize(session, session.break_segment())
        return revisions + session.close(Reason.GAP)

    async def _end(self, reason: Reason) -> list[ActionEvent]:
        if self._session is None:
            return []
        revisions = await self._localize(self._session, self._session.break_segment())
        revisions += self._session.close(reason)
        self._log.info("stream.ended", run=self._session.run, reason=reason.value)
        return revisions

    async def _drop(self, delivery: Delivery, error: StreamError | None) -> list[ActionEvent]:
        kind = type(error).__name__
        self._parts.metrics.corrupt_chunks.labels(self.camera, kind).inc()
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
