"""A camera's life as the feature log keeps it, and the events that were published meanwhile.

The life is put through a session in the way the daemon's worker does it, without video or broker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from daemon.journal.base import FeatureRows
from daemon.replay.period import LoggedRows
from engine.cas import Localizer
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import ActionEvent, FeatureWindow, FloatArray, Reason, SnippetFeature

FEATURE_ID = "backbone"


@dataclass(slots=True)
class LoggedLife:
    """What one camera's daemon did so far.

    Attributes:
        logged: The feature log.
        published: The events.
    """

    spec: ModelSpec
    localizer: Localizer
    camera: str = "gate"
    anchor_us: int | None = 1_780_000_000_000_000
    feature_id: str = FEATURE_ID
    logged: list[LoggedRows] = field(default_factory=list)
    published: list[ActionEvent] = field(default_factory=list)
    _session: StreamSession | None = None
    _n_runs: int = 0
    _next_index: int = 0
    _segment: int = 0

    def begin_run(self) -> None:
        """A new run; a run that was not ended is ended as by a gap."""
        before = self._session
        if before is not None:
            self.close(Reason.GAP)
        self._n_runs += 1
        self._session = self._new_session(before)
        self._next_index, self._segment = 0, 0

    def see(self, colours: FloatArray, n_lost: int = 0) -> None:
        """A chunk whose features are ``colours``, (N, 3); before it, so many snippets are lost."""
        session = self._current
        if n_lost:
            self._next_index += n_lost
            self._segment += 1
        vectors = colours.astype(np.float16)
        features = [
            SnippetFeature(self._next_index + i, self._segment, row.astype(np.float32))
            for i, row in enumerate(vectors)
        ]
        session.anchor_us = self.anchor_us
        self._log(vectors)
        self._next_index += len(vectors)
        self._track(session.buffer(features))

    def close(self, reason: Reason) -> None:
        """The segment ends, as the producer, a gap, silence or another model has it."""
        session = self._current
        if session.kept_features:
            self._log(np.zeros((0, 3), np.float16), reason)
        self._track(session.break_segment())
        self.published += session.close(reason)
        self._segment += 1
        if reason is Reason.MODEL:
            self._session, self._segment = self._new_session(session), 0

    def _new_session(self, before: StreamSession | None) -> StreamSession:
        mean = before.camera_mean if before else None
        run = f"run-{self._n_runs}"
        return StreamSession(self.camera, run, self.spec, None, mean, self.feature_id)

    @property
    def _current(self) -> StreamSession:
        if self._session is None:
            self.begin_run()
        assert self._session is not None
        return self._session

    def _track(self, windows: Sequence[FeatureWindow]) -> None:
        self.published += self._current.track(self.localizer.localize(windows))

    def _log(self, vectors: "np.typing.NDArray[np.float16]", closed: Reason | None = None) -> None:
        grid = self.spec.grid
        rows = FeatureRows(
            camera=self.camera,
            run=self._current.run,
            segment=self._segment if closed is None else 0,
            first_index=self._next_index,
            vectors=vectors,
            feature_id=self.feature_id,
            anchor_us=self.anchor_us,
            closed=closed,
        )
        moment_us = (self.anchor_us or 0) + grid.snippet_end_us(self._next_index + len(vectors))
        self.logged.append(LoggedRows(rows, moment_us + 2_000_000))
