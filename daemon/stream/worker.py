"""One camera's data flow, top to bottom: chunk → frames → … → events, and what it knows then.

A worker keeps and publishes nothing. What follows from a delivery is an ``Outcome``: revisions,
new features, and the camera's state with the delivery's offset in it. Outcomes of a partition go
into its next step, which its journal keeps whole or not at all. So no crash can tear a revision
from the state that it follows from, and nothing that was published is ever computed again.

Another model takes over between two chunks. If it is of the same bundle, it goes on where the one
before stopped. If it is of another bundle, the old model's events get their last revisions, and a
session of the new model replaces the old one; one outcome holds both.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
import structlog

from daemon.clock import Clock
from daemon.device.calls import RunningCalls
from daemon.device.thread import Device
from daemon.journal.base import CameraPast, CameraState, DeadLetter, FeatureRows
from daemon.metrics import Metrics
from daemon.models.slot import ModelSlot, OpenModel
from daemon.sources.base import Delivery, Position
from daemon.stream.place import (
    done_of,
    is_done,
    is_duplicate,
    is_needed_again,
    low_offset_of,
    stamped,
    with_chunk,
    with_ended,
)
from daemon.stream.status import StreamFacts
from daemon.stream.steps import Outcome
from engine.errors import SnapshotError, StaleChunkError, StreamError
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import (
    ActionEvent,
    FeatureWindow,
    FrameBatch,
    Place,
    Reason,
    Snippet,
    SnippetFeature,
    VideoChunk,
)
from engine.video.frames import Decoder


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all cameras share.

    Attributes:
        models: Tells which model to work with.
        device: Runs the model's networks.
        decode_pool: Threads that decode.
        metrics: Work and faults are counted here.
        calls: Told of each decode, so that one that hangs is noticed.
        clock: Measures latencies and gives deadlines on the device, no event times.
        log: Changes and faults of a camera are logged here.
        new_decoder: Makes a decoder of one camera's chunks for a model.
    """

    models: ModelSlot
    device: Device
    decode_pool: Executor
    metrics: Metrics
    calls: RunningCalls
    clock: Clock
    log: structlog.stdlib.BoundLogger
    new_decoder: Callable[[ModelSpec], Decoder]


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a worker begins.

    Attributes:
        past: What the camera's last owner has left; None: nothing.
        next_offset: Deliveries below it are done, and only read for frames that are needed again.
        is_over: Its place says nothing any more, for its log was made anew, or others have
            served the camera since: what was open ends.
    """

    past: CameraPast | None = None
    next_offset: int = 0
    is_over: bool = False


class StreamWorker:
    """Processes one camera's deliveries, in order.

    Args:
        camera: The camera.
        parts: What all cameras share.
        beginning: Where it begins.
    """

    def __init__(self, camera: str, parts: WorkerParts, beginning: Beginning) -> None:
        self.camera = camera
        self._parts = parts
        self._model = parts.models.take()
        self._decoder = parts.new_decoder(self._model.spec)
        self._log = parts.log.bind(camera=camera)
        self._in_duplicates = False
        self._n_gaps = 0
        self._deadline_s = 0.0  # when the camera will have its next snippet, by the device's clock
        self._new_features: list[FeatureRows] = []
        self._beginning = beginning
        self._session = self._restore(beginning)
        self._done = self._done_of(self._session)
        # A restored session lacks its latest frames until they are read again; until then, what
        # it says must be read again stays as it is.
        self._awaits_replay = (
            self._session is not None and self._session.place.low_offset is not None
        )

    @property
    def knows_nothing(self) -> bool:
        """True if nothing that the camera has sent could be used."""
        return self._session is None

    @property
    def facts(self) -> StreamFacts:
        """What others are told of the camera."""
        session, model_id = self._session, self._model.spec.model_id
        if session is None:
            return StreamFacts("", model_id, self._n_gaps)
        return StreamFacts(
            session.run, model_id, self._n_gaps, session.watermark_us, session.anchor_us
        )

    async def process_chunk(self, chunk: VideoChunk, offset: int) -> list[ActionEvent]:
        """Put one chunk through every stage, from its frames to revisions of events."""
        session = self._current_session()
        frames = await self._decode(chunk)
        self._refuse_the_past(frames, session)
        start_us = int(frames.pts_us[0])
        session.place = with_chunk(session.place, offset, start_us)
        snippets = self._sample(frames, session)
        with self._stage("backbone"):
            features = await self._parts.device.extract(
                self._model.extractor,
                snippets,
                camera=self.camera,
                deadline_s=self._deadline_s,
            )
        self._new_features.extend(self._rows(session, features))
        return await self._localize(session, session.buffer(features))

    def _rows(
        self, session: StreamSession, features: Sequence[SnippetFeature]
    ) -> Iterator[FeatureRows]:
        """Features as the feature log keeps them: consecutive ones of a segment together."""
        for (segment, _), run in groupby(
            enumerate(features), lambda pair: (pair[1].segment, pair[1].index - pair[0])
        ):
            rows = [feature for _, feature in run]
            vectors = np.stack([row.vector for row in rows]).astype(np.float16)
            yield FeatureRows(
                camera=self.camera,
                run=session.run,
                segment=segment,
                first_index=rows[0].index,
                vectors=vectors,
                feature_id=self._model.feature_id,
                anchor_us=session.anchor_us,
            )

    def _mark_end(self, session: StreamSession, kept: range, reason: Reason) -> None:
        """Tell the feature log that the segment of the ``kept`` features is ended, if any is."""
        if not kept:
            return
        self._new_features.append(
            FeatureRows(
                camera=self.camera,
                run=session.run,
                segment=0,
                first_index=kept.stop,
                vectors=np.zeros((0, self._model.spec.feature_dim), np.float16),
                feature_id=self._model.feature_id,
                anchor_us=session.anchor_us,
                closed=reason,
            )
        )

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

    async def begin(self) -> Outcome:
        """What follows from the camera's past alone; call this once, before anything else."""
        return self._owed()

    async def process(self, delivery: Delivery) -> Outcome:
        """Process one delivery; a bad chunk is counted, not raised.

        Raises:
            DeviceError: The accelerator failed.
        """
        before = await self.take_over()
        position = delivery.position
        if is_done(position, self._done) or position.offset < self._beginning.next_offset:
            await self._replay(delivery)
            return before
        self._awaits_replay = False
        stride_s = self._model.spec.grid.stride_us / 1e6
        self._deadline_s = self._parts.clock.monotonic_s() + stride_s
        revisions, dead = await self._process_new(delivery)
        session = self._session
        if session is None:
            return Outcome(dead=dead)
        self._done = position
        session.place = replace(
            session.place, partition=position.partition, offset=position.offset
        )
        self._new_features[:0] = before.features  # an end marker, where another model took over
        return self._outcome(session, [*before.revisions, *revisions], dead)

    async def take_over(self) -> Outcome:
        """Go over to the current model if it is another one; call this between two chunks.

        Raises:
            DeviceError: The accelerator failed.
        """
        if self._parts.models.current is self._model:
            return Outcome()
        await self._switch()
        return self._owed()

    async def fall_silent(self) -> Outcome:
        """Give open events their last word, as the camera sends nothing; it may come back.

        Raises:
            DeviceError: The accelerator failed.
        """
        session = self._session
        if session is None:
            return Outcome()
        self._parts.metrics.silent_cameras.labels(self.camera).inc()
        revisions = await self._end(Reason.SILENT)
        self._awaits_replay = False
        return self._outcome(session, revisions)

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
        """Replace the camera's session by one of another bundle, which owes the last words."""
        self._mark_end(session, session.kept_features, Reason.MODEL)
        last = await self._localize(session, session.break_segment())
        self._session = session.succeeded_by(
            model.spec, model.class_indices, feature_id=model.feature_id, revisions=last
        )
        self._awaits_replay = False

    def _owed(self) -> Outcome:
        """What a session before has left to be published."""
        session = self._session
        # Without its latest frames, a session's state would not do for another restart.
        if session is None or not session.owed or self._awaits_replay:
            return Outcome()
        return self._outcome(session, [])

    def _outcome(
        self,
        session: StreamSession,
        revisions: Sequence[ActionEvent],
        dead: tuple[DeadLetter, ...] = (),
    ) -> Outcome:
        """Everything since the last outcome, and the camera's state with it."""
        owed, session.owed = session.owed, ()
        features, self._new_features = tuple(self._new_features), []
        # Those of the run before have been stamped, by that run.
        n_before = sum(revision.run != session.run for revision in revisions)
        before, mine = revisions[:n_before], [*owed, *revisions[n_before:]]
        told = (*before, *stamped(session.place, session.watermark_us, mine))
        return Outcome(told, features, self._state(session), dead)

    def _state(self, session: StreamSession) -> CameraState:
        self._parts.metrics.open_events.labels(self.camera).set(len(session.open_events))
        if session.anchor_us is not None:
            watermark_s = (session.anchor_us + session.watermark_us) / 1e6
            self._parts.metrics.watermark_seconds.labels(self.camera).set(watermark_s)
        if not self._awaits_replay:
            low_offset = low_offset_of(session.place, session.resume_us)
            session.place = replace(session.place, low_offset=low_offset)
        kept = session.kept_features
        with self._stage("save"):
            return CameraState(
                blob=session.snapshot(),
                low_offset=session.place.low_offset,
                run=session.run,
                first_feature=kept.start if kept else None,
            )

    def close(self) -> None:
        """Free the decoder and give the model back."""
        self._decoder.close()
        self._parts.models.give_back(self._model)

    async def _process_new(
        self, delivery: Delivery
    ) -> tuple[list[ActionEvent], tuple[DeadLetter, ...]]:
        chunk = delivery.chunk
        if chunk is None:
            return await self._drop(delivery, delivery.error)
        if self._session is not None and is_duplicate(self._session, chunk):
            self._count_duplicate(chunk)
            return [], ()
        self._in_duplicates = False
        is_first = self._session is None
        revisions = await self._enter_run(chunk)
        session = self._current_session()
        if chunk.is_end:
            session.place = replace(session.place, sequence=chunk.sequence)
            revisions += await self._end(Reason.END)
            session.place = with_ended(session.place, chunk.run)
            return revisions, ()
        try:
            revisions += await self._break_if_chunks_are_missing(chunk, session)
            # Only now: the revisions so far are dated by the anchor that was known before.
            if chunk.anchor_us is not None:
                session.anchor_us = chunk.anchor_us
            revisions += await self.process_chunk(chunk, delivery.position.offset)
        except StreamError as error:
            if is_first:
                self._session = None  # anybody can make a name up: keep nothing of it
            more, dead = await self._drop(delivery, error)
            return revisions + more, dead
        return revisions, ()

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
        # An older snapshot does not know the chunk yet.
        session.place = with_chunk(session.place, offset, int(frames.pts_us[0]))
        session.sample(frames)

    def _restore(self, beginning: Beginning) -> StreamSession | None:
        if beginning.past is None:
            return None
        try:
            session = self._stored(beginning.past, is_over=beginning.is_over)
        except SnapshotError as error:
            self._refuse_snapshot(error)
            return None
        if session.succeeds is not None:
            ends = [rows.end_index for rows in beginning.past.features if rows.run == session.run]
            reason = session.owed[-1].reason if session.owed else Reason.GAP
            self._mark_end(session, range(max(ends, default=0)), reason)
        place = session.place
        self._log.info("stream.restored", run=session.run, offset=place.offset)
        if beginning.is_over:
            # The producer may go on with the same run; offsets of the old log say nothing.
            session.place = Place(sequence=place.sequence, ended_runs=place.ended_runs)
        elif session.succeeds is not None:
            # The old session's footage is over; the new one needs no frame of it again.
            session.place = replace(place, low_offset=None)
        return session

    def _stored(self, past: CameraPast, *, is_over: bool) -> StreamSession:
        """The session that was stored, or the one that succeeds it where it cannot go on.

        Raises:
            SnapshotError: There is no sense in what was stored.
        """
        model, blob = self._model, past.state.blob
        succeed = partial(
            StreamSession.succeed_stored,
            blob,
            model.spec,
            model.class_indices,
            feature_id=model.feature_id,
        )
        if is_over:
            return succeed(reason=Reason.GAP)
        features = [
            feature
            for rows in past.features
            if rows.run == past.state.run and rows.feature_id == model.feature_id
            for feature in rows.features()
        ]
        try:
            session = StreamSession.restore_or_succeed(
                blob,
                model.spec,
                model.class_indices,
                feature_id=model.feature_id,
                features=features,
            )
            self._done_of(session)
        except SnapshotError as error:
            session = succeed(reason=Reason.GAP)  # its events can be ended, if no more
            self._refuse_snapshot(error)
            return session
        if not features:  # an older snapshot holds them itself
            self._new_features.extend(self._rows(session, session.features))
        if session.succeeds is not None:
            self._log.info(
                "stream.model_changed", before=session.succeeds, model=model.description
            )
        return session

    def _refuse_snapshot(self, error: SnapshotError) -> None:
        self._parts.metrics.snapshots_refused.labels(self.camera).inc()
        self._log.warning("stream.snapshot_refused", error=str(error))

    def _done_of(self, session: StreamSession | None) -> Position | None:
        if session is None or session.place.offset is None:
            return None
        return done_of(session)

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
        is_over = before is not None and before.run in before.place.ended_runs
        if before is not None and before.run != chunk.run and not is_over:
            revisions = await self._end(Reason.GAP)
            revisions = stamped(before.place, before.watermark_us, revisions)
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
        self._n_gaps += 1
        self._log.warning("stream.gap", reason=reason, run=session.run)
        self._mark_end(session, session.kept_features, Reason.GAP)
        revisions = await self._localize(session, session.break_segment())
        return revisions + session.close(Reason.GAP)

    async def _end(self, reason: Reason) -> list[ActionEvent]:
        if self._session is None:
            return []
        self._mark_end(self._session, self._session.kept_features, reason)
        revisions = await self._localize(self._session, self._session.break_segment())
        revisions += self._session.close(reason)
        self._log.info("stream.ended", run=self._session.run, reason=reason.value)
        return revisions

    async def _drop(
        self, delivery: Delivery, error: StreamError | None
    ) -> tuple[list[ActionEvent], tuple[DeadLetter, ...]]:
        kind, position = type(error).__name__, delivery.position
        self._parts.metrics.corrupt_chunks.labels(self.camera, kind).inc()
        self._log.warning(
            "chunk.dropped",
            partition=position.partition,
            offset=position.offset,
            error=kind,
            reason=str(error),
        )
        dead = DeadLetter(
            camera=self.camera,
            partition=position.partition,
            offset=position.offset,
            error=kind,
            reason=str(error),
            payload=delivery.own_bytes,
            key=delivery.key,
            headers=delivery.headers,
        )
        revisions = await self._break(self._session, "corrupt chunk") if self._session else []
        return revisions, (dead,)

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        started_s = self._parts.clock.monotonic_s()
        yield
        spent_s = self._parts.clock.monotonic_s() - started_s
        self._parts.metrics.stage_seconds.labels(stage).observe(spent_s)
