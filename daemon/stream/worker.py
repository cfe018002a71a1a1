"""One camera's data flow, top to bottom: chunk → frames → … → events, and what it knows then.

A worker keeps and publishes nothing. What follows from a delivery is an ``Outcome``: revisions,
new features, and the camera's state with the delivery's offset in it. Outcomes of a partition go
into its next step, which its journal keeps whole or not at all. So no crash can tear a revision
from the state that it follows from, and nothing that was published is ever computed again.

Another model takes over between two chunks. If it is of the same bundle, it goes on where the one
before stopped. If it is of another bundle, the old model's events get their last revisions, and a
session of the new model replaces the old one; one outcome holds both.
"""

from collections.abc import Sequence
from dataclasses import replace

from daemon.journal.base import CameraState, DeadLetter, FeatureRows
from daemon.models.slot import OpenModel
from daemon.sources.base import Delivery
from daemon.stream.beginning import Beginning, take_up
from daemon.stream.condition import Condition
from daemon.stream.foreign import Foreigners, Placement, moved
from daemon.stream.logged import end_of, rows_of
from daemon.stream.place import (
    done_of,
    is_done,
    is_needed_again,
    low_offset_of,
    stamped,
    with_chunk,
)
from daemon.stream.runs import (
    Claim,
    claim_of,
    claim_of_past,
    claim_of_step,
    name_of_run,
    producer_run_of,
    with_ended,
    without_row,
)
from daemon.stream.stages import Stages, WorkerParts
from daemon.stream.status import StreamFacts
from daemon.stream.steps import Outcome
from daemon.text import cut
from engine.errors import RivalRunError, StaleChunkError, StreamError
from engine.session import StreamSession
from engine.types import (
    FOREIGN_RUN,
    ActionEvent,
    FeatureWindow,
    FrameBatch,
    Place,
    Reason,
    Rival,
    VideoChunk,
)


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
        self._stages = Stages(camera, parts, self._model)
        self._log = parts.log.bind(camera=camera)
        self._condition = Condition(camera, parts, self._model.spec)
        self._foreigners = Foreigners(parts.foreign_time)
        self._new_features: list[FeatureRows] = []
        self._next_offset = beginning.next_offset
        self._session = self._taken_up(beginning)
        is_placed = self._session is not None and self._session.place.offset is not None
        self._done = done_of(self._session) if self._session and is_placed else None
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
    def is_too_slow(self) -> bool:
        """True if to decode the last chunk took far longer than it plays."""
        return self._stages.is_too_slow

    @property
    def facts(self) -> StreamFacts:
        """What others are told of the camera."""
        return self._condition.facts(self._session, self._model.spec.model_id)

    async def _process_frames(self, frames: FrameBatch, offset: int) -> list[ActionEvent]:
        """Put one chunk's frames through every stage, down to revisions of events."""
        session = self._current_session()
        session.place = with_chunk(session.place, offset, int(frames.pts_us[0]))
        n_gaps, n_late = session.n_gaps, session.n_late_frames
        session.rung = self._condition.rung
        snippets = self._stages.sample(frames, session)
        self._condition.pictures_are_unused(
            session, session.n_gaps - n_gaps, frames.n_late + session.n_late_frames - n_late
        )
        features = await self._stages.look(session, snippets)
        self._new_features.extend(rows_of(session, features, self._model.feature_id))
        revisions = await self._stages.localize(session, session.buffer(features))
        self._condition.finished(session, frames, len(snippets))
        return revisions

    def _end_segment(self, session: StreamSession, reason: Reason) -> list[FeatureWindow]:
        """Nothing follows in the segment: its last features go to the log; give its windows."""
        features = self._stages.release(session)
        self._new_features.extend(rows_of(session, features, self._model.feature_id))
        windows = session.buffer(features)
        self._mark_end(session, session.kept_features, reason)
        return [*windows, *session.break_segment()]

    def _mark_end(self, session: StreamSession, kept: range, reason: Reason) -> None:
        """Tell the feature log that the segment of the ``kept`` features is ended, if any is."""
        if kept:
            self._new_features.append(
                end_of(
                    session,
                    kept.stop,
                    reason,
                    feature_dim=self._model.spec.feature_dim,
                    feature_id=self._model.feature_id,
                )
            )

    async def begin(self) -> Outcome:
        """What follows from the camera's past alone; call this once, before anything else."""
        return self._owed()

    async def process(self, delivery: Delivery) -> Outcome:
        """Process one delivery; a bad chunk is counted, not raised.

        Raises:
            DeviceError: The accelerator failed.
        """
        before = await self.take_over()
        self._stages.begin()
        position = delivery.position
        if is_done(position, self._done):
            await self._replay(delivery)
            return before
        if position.offset < self._next_offset:  # it was refused untried
            return before
        self._awaits_replay = False
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
        session.place = replace(session.place, is_over=True)
        self._awaits_replay = False
        self._condition.fell_silent(self._model.spec)
        return self._outcome(session, revisions)

    async def _switch(self) -> None:
        before, session = self._model, self._session
        model = self._parts.models.take()
        is_other_bundle = before.spec.model_id != model.spec.model_id
        try:
            if session is not None and is_other_bundle:
                await self._succeed(session, model)
            elif session is not None:
                session.retune(model.spec, model.class_indices)
            self._condition.model_changed(model.spec, is_other_bundle=is_other_bundle)
        except BaseException:
            self._parts.models.give_back(model)
            raise
        self._model = model
        self._stages.close()
        self._stages = Stages(self.camera, self._parts, model)
        self._parts.models.give_back(before)
        self._log.info("stream.model_changed", before=before.description, model=model.description)

    async def _succeed(self, session: StreamSession, model: OpenModel) -> None:
        """Replace the camera's session by one of another bundle, which owes the last words."""
        last = await self._stages.localize(session, self._end_segment(session, Reason.MODEL))
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
        session.settle()
        owed, session.owed = session.owed, ()
        features, self._new_features = tuple(self._new_features), []
        # Those of the run before have been stamped, by that run.
        n_before = sum(revision.run != session.run for revision in revisions)
        before, mine = revisions[:n_before], [*owed, *revisions[n_before:]]
        told = (*before, *stamped(session.place, session.watermark_us, session.rung, mine))
        return Outcome(told, features, self._state(session), dead)

    def _state(self, session: StreamSession) -> CameraState:
        if not self._awaits_replay:
            low_offset = low_offset_of(session.place, session.resume_us)
            session.place = replace(session.place, low_offset=low_offset)
        kept = session.kept_features
        with self._stages.timed("save"):
            return CameraState(
                blob=session.snapshot(),
                low_offset=session.place.low_offset,
                run=session.run,
                first_feature=kept.start if kept else None,
            )

    def restated(self) -> Outcome:
        """What the camera knows now, with what a session before has left to be published."""
        return Outcome() if self._session is None else self._outcome(self._session, [])

    def refuse(self, delivery: Delivery, error: StreamError) -> Outcome:
        """Do nothing with a delivery but to name it."""
        _, dead = self._drop(delivery, error)
        return Outcome(dead=dead)

    def close(self) -> None:
        """Free the decoder and give the model back."""
        self._stages.close()
        self._parts.models.give_back(self._model)

    async def _process_new(
        self, delivery: Delivery
    ) -> tuple[list[ActionEvent], tuple[DeadLetter, ...]]:
        chunk = delivery.chunk
        if chunk is None:
            return self._drop(delivery, delivery.error)
        claim = self._claimed(chunk)
        if claim is Claim.SEEN:
            self._count_duplicate(chunk)
            return [], ()
        if claim is Claim.REFUSED:
            return self._drop(delivery, self._rivalry(chunk))
        if chunk.is_end:
            return await self._end_run(chunk), ()
        try:
            frames = await self._stages.decode(chunk)
            placement = self._foreigners.placed(chunk, frames, self._session)
            if placement is not None:
                frames = moved(frames, placement.start_us, placement.apart_us)
            claim = self._claim_by_time(claim, chunk, frames, placement)
        except StreamError as error:
            is_damage = claim is Claim.GOES_ON and not isinstance(error, StaleChunkError)
            revisions = await self._break_at(chunk) if is_damage else []
            return self._drop(delivery, error, revisions)
        offset = delivery.position.offset
        revisions = await self._begin_run(chunk, offset) if claim is Claim.BEGINS else []
        revisions += await self._break_if_chunks_are_missing(chunk)
        session = self._current_session()
        session.place = replace(without_row(session.place), is_over=False)
        self._keep(placement, chunk)
        # Only now: the revisions so far are dated by the anchor that was known before.
        if chunk.anchor_us is not None:
            session.anchor_us = chunk.anchor_us
        return revisions + await self._process_frames(frames, offset), ()

    def _claimed(self, chunk: VideoChunk) -> Claim:
        if self._foreigners.is_sent_again(chunk):
            return Claim.SEEN
        return self._noted(claim_of(self._session, chunk))

    def _keep(self, placement: Placement | None, chunk: VideoChunk) -> None:
        if placement is not None:
            session = self._current_session()
            session.place = placement.kept_in(session.place)
            self._foreigners.take(chunk)

    def _noted(self, claim_and_rival: tuple[Claim, Rival | None]) -> Claim:
        claim, rival = claim_and_rival
        if self._session is not None:
            self._session.place = replace(self._session.place, rival=rival)
        return claim

    def _claim_by_time(
        self, claim: Claim, chunk: VideoChunk, frames: FrameBatch, placement: Placement | None
    ) -> Claim:
        """The claim, once the chunk's frames are known.

        Raises:
            StaleChunkError: They are all older than what was seen.
        """
        session = self._session
        seen_us = None if session is None else session.seen_us
        newest_us = int(frames.pts_us[-1])
        if claim is not Claim.GOES_ON or session is None or seen_us is None:
            return claim
        if placement is not None and placement.is_step:
            claim = self._noted(claim_of_step(session, chunk))
        elif newest_us <= seen_us:
            claim = self._noted(claim_of_past(session, chunk))
        if claim is Claim.REFUSED:
            raise StaleChunkError(
                f"the chunk ends at {newest_us} us, footage up to {seen_us} us was seen: "
                "a producer whose clock goes back must start a new run"
            )
        return claim

    def _rivalry(self, chunk: VideoChunk) -> RivalRunError:
        run = producer_run_of(self._current_session())
        what = "a record without headers" if chunk.run == FOREIGN_RUN else f"run {chunk.run}"
        return RivalRunError(
            f"two producers write camera {self.camera}: {what} is left out while run {run} goes "
            "on; stop one of them, or give it a camera name of its own"
        )

    async def _replay(self, delivery: Delivery) -> None:
        """Take in the frames of a chunk that was processed before a restart, and only these."""
        chunk, session, offset = delivery.chunk, self._session, delivery.position.offset
        if chunk is not None and chunk.run == FOREIGN_RUN:
            self._foreigners.take(chunk)  # it may be sent again
        if session is None or not is_needed_again(session.place, offset):
            return
        if chunk is None or chunk.is_end or chunk.run != producer_run_of(session):
            return
        try:
            frames = await self._stages.decode(chunk)
        except StreamError:
            session.break_segment()
            return
        placed_us = dict(session.place.chunks).get(offset)
        if placed_us is not None:
            frames = moved(frames, placed_us, session.place.apart_us)
        # An older snapshot does not know the chunk yet.
        session.place = with_chunk(session.place, offset, int(frames.pts_us[0]))
        session.sample(frames)

    def _taken_up(self, beginning: Beginning) -> StreamSession | None:
        taken = take_up(beginning, self._model)
        session, past = taken.session, beginning.past
        if taken.error is not None:
            self._parts.metrics.snapshots_refused.labels(self.camera).inc()
            self._log.warning("stream.snapshot_refused", error=str(taken.error))
        if session is None or past is None:
            return None
        if session.succeeds is not None:
            ends = [rows.end_index for rows in past.features if rows.run == session.run]
            reason = session.owed[-1].reason if session.owed else Reason.GAP
            self._mark_end(session, range(max(ends, default=0)), reason)
        elif not past.features:  # an older snapshot holds them itself
            rows = rows_of(session, session.features, self._model.feature_id)
            self._new_features.extend(rows)
        is_other_model = session.succeeds not in {None, self._model.spec.model_id}
        if is_other_model and taken.error is None and not beginning.is_over:
            now = self._model.description
            self._log.info("stream.model_changed", before=session.succeeds, model=now)
        self._log.info("stream.restored", run=session.run, offset=session.place.offset)
        return session

    def _current_session(self) -> StreamSession:
        if self._session is None:
            raise AssertionError("a chunk is processed inside its run")
        return self._session

    def _count_duplicate(self, chunk: VideoChunk) -> None:
        self._parts.metrics.duplicate_chunks.labels(self.camera).inc()
        self._log.warning("chunk.duplicate", sequence=chunk.sequence, run=chunk.run)

    async def _begin_run(self, chunk: VideoChunk, offset: int) -> list[ActionEvent]:
        """End the run before, if there is one; stream time starts anew."""
        revisions: list[ActionEvent] = []
        before, place = self._session, Place()
        if before is not None:
            if not before.place.is_over:
                revisions = await self._end(Reason.GAP)
                before.settle()
                revisions = stamped(before.place, before.watermark_us, before.rung, revisions)
            place = with_ended(before.place, producer_run_of(before), before.seen_us)
        run = name_of_run(place, chunk, offset)
        self._session = StreamSession(
            self.camera,
            run,
            self._model.spec,
            self._model.class_indices,
            camera_mean=before.camera_mean if before is not None else None,
            feature_id=self._model.feature_id,
        )
        self._session.place = Place(
            producer_run=chunk.run if run != chunk.run else None,
            ended_runs=place.ended_runs,
            ended_us=place.ended_us,
        )
        self._condition.run_began()
        self._log.info("stream.opened", run=run)
        return revisions

    async def _end_run(self, chunk: VideoChunk) -> list[ActionEvent]:
        session = self._current_session()
        session.place = replace(session.place, sequence=chunk.sequence, is_over=True)
        return await self._end(Reason.END)

    async def _break_at(self, chunk: VideoChunk) -> list[ActionEvent]:
        """The run's next chunk cannot be used."""
        session = self._current_session()
        session.place = replace(session.place, sequence=chunk.sequence)
        return await self._break(session, "corrupt chunk")

    async def _break_if_chunks_are_missing(self, chunk: VideoChunk) -> list[ActionEvent]:
        session = self._current_session()
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
        self._condition.footage_is_missing(session, reason)
        revisions = await self._stages.localize(session, self._end_segment(session, Reason.GAP))
        return revisions + session.close(Reason.GAP)

    async def _end(self, reason: Reason) -> list[ActionEvent]:
        session = self._session
        if session is None:
            return []
        revisions = await self._stages.localize(session, self._end_segment(session, reason))
        revisions += session.close(reason)
        self._log.info("stream.ended", run=session.run, reason=reason.value)
        return revisions

    def _drop(
        self,
        delivery: Delivery,
        error: StreamError | None,
        revisions: Sequence[ActionEvent] = (),
    ) -> tuple[list[ActionEvent], tuple[DeadLetter, ...]]:
        letter = DeadLetter(
            camera=self.camera,
            partition=delivery.position.partition,
            offset=delivery.position.offset,
            error=type(error).__name__,
            reason=cut(str(error)),  # it may quote what it does not like, however long
            payload=delivery.own_bytes,
            key=delivery.key,
            headers=delivery.headers,
        )
        self._parts.metrics.corrupt_chunks.labels(self.camera, letter.error).inc()
        self._log.warning(
            "chunk.dropped",
            partition=letter.partition,
            offset=letter.offset,
            error=letter.error,
            reason=letter.reason,
        )
        return list(revisions), (letter,)
