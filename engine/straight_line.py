"""A video file → its events: the stages in a straight line; the reference implementation.

The daemon must give the same events for the same footage, however it arrives. The tracker that
runs here is the live one, so what a file gives is what a camera would have given.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.cas import Localizer
from engine.features import FeatureExtractor
from engine.judging.histories import histories
from engine.scores import ScoreTrack
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import (
    ActionEvent,
    CasWindow,
    FeatureWindow,
    FloatArray,
    FrameBatch,
    Int64Array,
    Proposal,
    Reason,
    Span,
)


@dataclass(frozen=True, slots=True)
class Localization:
    """What a video gave.

    Attributes:
        revisions: Every revision, in the order in which a daemon would have emitted them.
        indices: int64 (N,), snippet indices that were scored, rising.
        scores: float32 (N, C), their scores after all context had been seen.
        contrasts: float32 (N, C), how much the best interval that lay over each of them stood out
            from its surroundings, as it was weighed for an event; 0 where none did.
        attention: float32 (N,), their attention, from the same windows as the scores.
        n_frames: Frames decoded.
    """

    revisions: tuple[ActionEvent, ...]
    indices: Int64Array
    scores: FloatArray
    contrasts: FloatArray
    attention: FloatArray
    n_frames: int

    @property
    def final(self) -> tuple[ActionEvent, ...]:
        """The last revision of every event that was not retracted, by start."""
        events = sorted(histories(self.revisions), key=lambda one: one.place)
        return tuple(event.last for event in events if event.is_kept)


@dataclass(slots=True, eq=False)
class _Row:
    """One snippet: scores (C,), contrasts (C,), attention."""

    scores: FloatArray
    contrasts: FloatArray
    attention: float


class Curves:
    """Collects each snippet's final score, and what stood out there, while windows overlap.

    Args:
        spec: The model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._grid = spec.grid
        self._n_classes = len(spec.class_names)
        self._track = ScoreTrack(spec.window)
        self._rows: dict[int, _Row] = {}

    def add(self, window: CasWindow) -> None:
        """Take in a window; windows come in order."""
        fresh = self._track.update(window)
        attention = window.attention[-len(fresh.scores) :]
        for offset, scores in enumerate(fresh.scores):
            row = self._rows.setdefault(
                fresh.first_index + offset, _Row(scores, np.zeros_like(scores), 0.0)
            )
            row.scores, row.attention = scores, float(attention[offset])

    def weigh(self, proposals: Sequence[Proposal]) -> None:
        """Take in what was weighed for an event, after the window that it follows from."""
        for proposal in proposals:
            for index in self._indices_in(proposal.span):
                if row := self._rows.get(index):
                    best = max(row.contrasts[proposal.class_index], proposal.score)
                    row.contrasts[proposal.class_index] = best

    def _indices_in(self, span: Span) -> range:
        """The snippets whose middle lies in a span; the nearest one if none does."""
        half_us = self._grid.snippet_us // 2
        first = -(-(span.start_us - half_us) // self._grid.stride_us)
        end = -(-(span.end_us - half_us) // self._grid.stride_us)
        return range(max(first, 0), max(end, first + 1, 1))

    def arrays(self) -> "CurveArrays":
        """What was collected."""
        indices = sorted(self._rows)
        rows = [self._rows[index] for index in indices]
        shape = (len(rows), self._n_classes)
        return CurveArrays(
            np.array(indices, np.int64),
            np.array([row.scores for row in rows], np.float32).reshape(shape),
            np.array([row.contrasts for row in rows], np.float32).reshape(shape),
            np.array([row.attention for row in rows], np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class CurveArrays:
    """As of ``Localization``: indices (N,), scores (N, C), contrasts (N, C), attention (N,)."""

    indices: Int64Array
    scores: FloatArray
    contrasts: FloatArray
    attention: FloatArray


def localize_frames(
    batches: Iterable[FrameBatch],
    session: StreamSession,
    extractor: FeatureExtractor,
    localizer: Localizer,
    on_progress: Callable[[int, list[ActionEvent]], None] = lambda _time_us, _records: None,
) -> Localization:
    """Run the stages over frames already decoded.

    Args:
        batches: The whole video, in order.
        session: A fresh session; it is closed at the end.
        extractor: Snippets → features.
        localizer: Windows → CAS.
        on_progress: Called after each batch with its newest stream time and revisions.
    """
    revisions: list[ActionEvent] = []
    curves = Curves(session.spec)
    n_frames = 0

    def track(windows: list[FeatureWindow]) -> list[ActionEvent]:
        cas_windows = localizer.localize(windows)
        revisions = []
        for window in cas_windows:
            curves.add(window)
            revisions += session.track([window], curves.weigh)
        return revisions

    for batch in batches:
        snippets = session.sample(batch)
        features = session.look(snippets, extractor.extract)
        fresh = track(session.buffer(features))
        revisions.extend(fresh)
        n_frames += batch.n_decoded
        if len(batch.pts_us):
            on_progress(int(batch.pts_us[-1]), fresh)
    last = session.buffer(session.release())
    revisions.extend(track([*last, *session.break_segment()]))
    revisions.extend(session.close(Reason.END))
    drawn = curves.arrays()
    return Localization(
        tuple(revisions), drawn.indices, drawn.scores, drawn.contrasts, drawn.attention, n_frames
    )
