"""How well one camera is seen: how dense its footage is, what no snippet shows, how late it is.

What is found is counted and named here, and decides at how much of what follows is looked.
"""

import logging
from collections.abc import Iterator

from daemon.stream.ladder import Ladder
from daemon.stream.pace import Pace
from daemon.stream.stages import WorkerParts
from daemon.stream.status import StreamFacts
from engine.grid import US_PER_S
from engine.session import StreamSession
from engine.spec import ModelSpec, Rung
from engine.types import FrameBatch


class Condition:
    """What a worker has noticed of its camera since it began.

    Args:
        camera: The camera.
        parts: What all cameras share.
        spec: The model's.
    """

    def __init__(self, camera: str, parts: WorkerParts, spec: ModelSpec) -> None:
        self._camera = camera
        self._parts = parts
        self._log = parts.log.bind(camera=camera)
        self._pace = Pace(spec.grid)
        self._ladder = Ladder(spec.economy.of(camera))
        self._n_gaps = 0
        self._newest_us: int | None = None  # stream time of the newest frame that was finished
        self._sparse_run: str | None = None  # the run that was told to have too few frames

    @property
    def rung(self) -> Rung:
        """How much of the next chunk to look at."""
        return self._ladder.rung

    def facts(self, session: StreamSession | None, model_id: str) -> StreamFacts:
        """What others are told of the camera; its session is None before its first run."""
        if session is None:
            return StreamFacts("", model_id, self._n_gaps)
        return StreamFacts(
            session.run,
            model_id,
            self._n_gaps,
            session.watermark_us,
            session.anchor_us,
            newest_us=self._newest_us,
            fps=self._pace.fps,
            snippets_per_minute=self._pace.snippets_a_minute(self._parts.clock.monotonic_s()),
            n_open=len(session.open_events),
            rung=self._ladder.rung,
            degraded=tuple(self._degraded()),
        )

    def _degraded(self) -> Iterator[str]:
        if self._pace.is_sparse:
            yield "low_fps"
        if self._ladder.is_lowered:
            yield "overload"

    def run_began(self) -> None:
        """Another run: of its density and its clock nothing is known."""
        self._newest_us = None
        self._pace.broke()
        self._ladder.began()

    def footage_is_missing(self, session: StreamSession, reason: str) -> None:
        """Count and name a gap between two chunks."""
        self._pace.broke()
        self._count_gaps(session, 1, reason)

    def pictures_are_unused(self, session: StreamSession, n_gaps: int, n_late: int) -> None:
        """Count and name those of a chunk's pictures that no snippet can show."""
        if n_gaps:
            self._count_gaps(session, n_gaps, "pictures too far apart")
        if n_late:
            self._parts.metrics.late_frames.labels(self._camera).inc(n_late)
            self._log.warning("stream.late_frames", frames=n_late, run=session.run)

    def _count_gaps(self, session: StreamSession, n_gaps: int, reason: str) -> None:
        self._parts.metrics.gaps.labels(self._camera).inc(n_gaps)
        self._n_gaps += n_gaps
        self._log.warning("stream.gap", reason=reason, run=session.run)

    def finished(self, session: StreamSession, frames: FrameBatch, n_snippets: int) -> None:
        """Take note of a chunk that went through every stage."""
        self._newest_us = int(frames.pts_us[-1])
        now_s = self._parts.clock.monotonic_s()
        self._pace.saw(int(frames.pts_us[0]), frames.n_decoded, n_snippets, now_s)
        self._tell_if_sparse(session)
        self._weigh_load(session, self._newest_us)
        self._parts.metrics.chunks.labels(self._camera).inc()  # now that it was of use

    def _tell_if_sparse(self, session: StreamSession) -> None:
        """Say once a run that the footage has fewer frames than the model wants."""
        if not self._pace.is_sparse or self._sparse_run == session.run:
            return
        self._sparse_run = session.run
        self._parts.metrics.low_fps_runs.labels(self._camera).inc()
        fps, wanted = round(self._pace.fps or 0, 2), session.spec.grid.fps
        self._log.warning("stream.low_fps", run=session.run, fps=fps, wanted=wanted)

    def _weigh_load(self, session: StreamSession, newest_us: int) -> None:
        """Look at less of what follows if footage comes faster than it can be looked at."""
        if session.anchor_us is None:
            return
        clock, before = self._parts.clock, self._ladder.rung
        lag_s = (clock.unix_us() - session.anchor_us - newest_us) / US_PER_S
        self._ladder.saw(lag_s, self._parts.device.busy_s, clock.monotonic_s())
        self._tell_rung(before)

    def fell_silent(self, spec: ModelSpec) -> None:
        """Nothing comes, so nothing of it is late."""
        before = self._ladder.rung
        self._ladder = Ladder(spec.economy.of(self._camera))
        self._tell_rung(before)

    def _tell_rung(self, before: Rung) -> None:
        if self._ladder.rung is not before:
            level = logging.WARNING if self._ladder.is_lowered else logging.INFO
            self._log.log(level, "stream.rung", before=before.value, rung=self._ladder.rung.value)

    def model_changed(self, spec: ModelSpec, *, is_other_bundle: bool) -> None:
        """Go on under another model; one of another bundle may want other snippets."""
        if is_other_bundle:
            self._pace = Pace(spec.grid)
        self._ladder = Ladder(spec.economy.of(self._camera))
