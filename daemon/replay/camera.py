"""One camera's logged features → windows for a localizer → the events that a daemon would give.

The same engine session runs that runs live. Where the log says that a segment was ended, and why,
it is ended here too; so the bundle that served gives the very same revisions again. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from daemon.errors import ConfigError
from daemon.journal.base import FeatureRows
from daemon.replay.period import LoggedRows, Period
from engine.camera_mean import CameraMeanState
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.straight_line import Curves
from engine.types import ActionEvent, CasWindow, FeatureWindow, Reason, Span


@dataclass(frozen=True, slots=True)
class ReplayModel:
    """What a replay needs to know of the bundle.

    Attributes:
        spec: The model.
        class_indices: Classes to report; None means all.
        feature_id: What made the features that its localizer understands.
    """

    spec: ModelSpec
    class_indices: frozenset[int] | None
    feature_id: str


@dataclass(slots=True, eq=False)
class ReplayedRun:
    """What followed from one run of a camera.

    Attributes:
        camera: The camera.
        run: The producer's run.
        curves: Scores of the snippets in the period.
        anchor_us: Unix time of stream time 0, as told last.
        pieces: Stretches of the period, in stream time, in which features follow one another.
        revisions: Of events, in order.
    """

    camera: str
    run: str
    curves: Curves
    anchor_us: int | None = None
    pieces: list[Span] = field(default_factory=list)
    revisions: list[ActionEvent] = field(default_factory=list)

    @property
    def covered(self) -> Span | None:
        """From the first footage in the period to the last; None: there is none."""
        return Span(self.pieces[0].start_us, self.pieces[-1].end_us) if self.pieces else None


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is next for a session: a window to localize and track, or the end of its segment.

    Attributes:
        of: The run.
        session: The session; its windows have been taken out, its events have not.
        anchor_us: Unix time of stream time 0, as known then.
        window: To be localized; None: the segment ends.
        reason: Why it ends, if it does.
        is_shown: The window lies in the period.
    """

    of: ReplayedRun
    session: StreamSession
    anchor_us: int | None
    window: FeatureWindow | None = None
    reason: Reason = Reason.GAP
    is_shown: bool = False

    def finish(self, answer: CasWindow | None) -> None:
        """Do it, in order; ``answer`` is the localizer's for the window."""
        if answer is None:
            self.of.revisions += self.session.close(self.reason)
            return
        if self.is_shown:
            self.of.curves.add(answer)
        self.session.anchor_us = self.anchor_us
        watch = self.of.curves.weigh if self.is_shown else None
        self.of.revisions += self.session.track([answer], watch)


class CameraReplay:
    """Puts one camera's rows through a session.

    Args:
        camera: The camera.
        model: The bundle.
        period: What is asked for. Before it, and after it, rows are only localized within a
            margin; the camera's mean learns from all.

    Attributes:
        runs: What followed, oldest first.
    """

    def __init__(self, camera: str, model: ReplayModel, period: Period) -> None:
        self._camera = camera
        self._model = model
        self._period = period
        self._localized = period.widened()
        self._session: StreamSession | None = None
        self._next_index = 0  # rows before it were seen: without transactions some come twice
        self._segment = 0
        self.runs: list[ReplayedRun] = []

    def push(self, logged: LoggedRows) -> list[Work]:
        """Take in the next rows; gives the work that follows, to be finished in order.

        Raises:
            ConfigError: Another backbone made rows of the period.
        """
        rows, moment_us = logged.rows, logged.moment_us(self._model.spec.grid)
        is_asked_for = self._period.holds(moment_us)
        works: list[Work] = []
        if not self._is_comparable(rows):
            if is_asked_for and len(rows.vectors):
                raise ConfigError(self._foreign(rows))
            works += self._end(Reason.MODEL)
            self._session = None
            return works
        if self._session is None or self._session.run != rows.run:
            works += self._end(Reason.GAP)
            self._begin(rows.run)
        rows = _unseen(rows, self._next_index)
        if rows.closed is not None:
            is_late = rows.first_index < self._next_index
            return works if is_late else [*works, *self._close(rows.closed, rows.anchor_us)]
        if not len(rows.vectors):
            return works
        return works + self._buffer(rows, moment_us, is_asked_for=is_asked_for)

    def _buffer(self, rows: FeatureRows, moment_us: int, *, is_asked_for: bool) -> list[Work]:
        works: list[Work] = []
        if rows.segment == self._segment and rows.first_index != self._next_index:
            works += self._close(Reason.GAP, self._of.anchor_us)  # rows are lost
        session = self._current
        windows = session.buffer(rows.features())
        self._of.anchor_us = rows.anchor_us
        if is_asked_for:
            self._cover(rows)
        self._next_index, self._segment = rows.end_index, rows.segment
        if self._localized.holds(moment_us):
            works += [
                Work(self._of, session, rows.anchor_us, window, is_shown=is_asked_for)
                for window in windows
            ]
        return works

    def _close(self, reason: Reason, anchor_us: int | None) -> list[Work]:
        session = self._current
        last = [
            Work(self._of, session, anchor_us, window, is_shown=bool(self._of.pieces))
            for window in session.break_segment()
        ]
        if reason is Reason.MODEL:  # live, the successor's segments count from 0 again
            self._session = self._new_session(session.run, session.camera_mean)
        self._segment = -1
        return [*last, Work(self._of, session, anchor_us, None, reason)]

    def _end(self, reason: Reason) -> list[Work]:
        return [] if self._session is None else self._close(reason, self._of.anchor_us)

    def _begin(self, run: str) -> None:
        before = self._session
        self._session = self._new_session(run, before.camera_mean if before else None)
        if not self.runs or self.runs[-1].run != run:
            self.runs.append(ReplayedRun(self._camera, run, Curves(self._model.spec)))
        self._next_index, self._segment = 0, -1

    def _new_session(self, run: str, camera_mean: CameraMeanState | None) -> StreamSession:
        model = self._model
        return StreamSession(
            self._camera, run, model.spec, model.class_indices, camera_mean, model.feature_id
        )

    @property
    def _current(self) -> StreamSession:
        if self._session is None:
            raise AssertionError("rows belong to a run")
        return self._session

    @property
    def _of(self) -> ReplayedRun:
        return self.runs[-1]

    def _cover(self, rows: FeatureRows) -> None:
        grid, pieces = self._model.spec.grid, self._of.pieces
        start_us = grid.snippet_start_us(rows.first_index)
        end_us = grid.snippet_end_us(rows.end_index - 1)
        follows = rows.segment == self._segment and rows.first_index == self._next_index
        if pieces and follows:
            pieces[-1] = Span(pieces[-1].start_us, end_us)
        else:
            pieces.append(Span(start_us, end_us))

    def _is_comparable(self, rows: FeatureRows) -> bool:
        is_wide = rows.vectors.shape[1] == self._model.spec.feature_dim
        return is_wide and rows.feature_id == self._model.feature_id

    def _foreign(self, rows: FeatureRows) -> str:
        return (
            f"camera {self._camera}: features of run {rows.run} were made by backbone and grid "
            f"{rows.feature_id[:12] or 'unknown'} ({rows.vectors.shape[1]} numbers), bundle "
            f"{self._model.spec.model_id} wants {self._model.feature_id[:12]} "
            f"({self._model.spec.feature_dim}): only a bundle with the same backbone can be "
            "replayed; choose another --bundle, or a period of its own features"
        )


def _unseen(rows: FeatureRows, next_index: int) -> FeatureRows:
    """The rows from ``next_index`` on."""
    n_seen = min(max(next_index - rows.first_index, 0), len(rows.vectors))
    if not n_seen:
        return rows
    return replace(rows, first_index=rows.first_index + n_seen, vectors=rows.vectors[n_seen:])


def runs_of(cameras: Sequence[CameraReplay]) -> list[ReplayedRun]:
    """The runs of which footage lies in the period, camera by camera."""
    return [run for camera in cameras for run in camera.runs if run.pieces]
