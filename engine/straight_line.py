"""A video file → its events: the stages in a straight line; the reference implementation.

The daemon must give the same events for the same footage, however it arrives. The tracker that
runs here is the live one, so what a file gives is what a camera would have given.
"""

from collections.abc import Callable, Iterable
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
    Reason,
)


@dataclass(frozen=True, slots=True)
class Localization:
    """What a video gave.

    Attributes:
        revisions: Every revision, in the order in which a daemon would have emitted them.
        indices: int64 (N,), snippet indices that were scored, rising.
        scores: float32 (N, C), their scores after all context had been seen.
        attention: float32 (N,), their attention, from the same windows as the scores.
        n_frames: Frames decoded.
    """

    revisions: tuple[ActionEvent, ...]
    indices: Int64Array
    scores: FloatArray
    attention: FloatArray
    n_frames: int

    @property
    def final(self) -> tuple[ActionEvent, ...]:
        """The last revision of every event that was not retracted, by start."""
        events = sorted(histories(self.revisions), key=lambda one: one.place)
        return tuple(event.last for event in events if event.is_kept)


class Curves:
    """Collects each snippet's final score while windows overlap.

    Args:
        spec: The model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._track = ScoreTrack(spec.window)
        self._rows: dict[int, tuple[FloatArray, float]] = {}  # index → scores (C,), attention

    def add(self, window: CasWindow) -> None:
        """Take in a window; windows come in order."""
        fresh = self._track.update(window)
        attention = window.attention[-len(fresh.scores) :]
        for offset, row in enumerate(fresh.scores):
            self._rows[fresh.first_index + offset] = (row, float(attention[offset]))

    def arrays(self, n_classes: int) -> tuple[Int64Array, FloatArray, FloatArray]:
        """Indices (N,), scores (N, C) and attention (N,), as of ``Localization``."""
        indices = np.array(sorted(self._rows), np.int64)
        rows = [self._rows[index] for index in indices.tolist()]
        scores = np.array([row for row, _ in rows], np.float32).reshape(len(rows), n_classes)
        return indices, scores, np.array([attention for _, attention in rows], np.float32)


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
        for window in cas_windows:
            curves.add(window)
        return session.track(cas_windows)

    for batch in batches:
        snippets = session.sample(batch)
        features = extractor.extract(snippets)
        fresh = track(session.buffer(features))
        revisions.extend(fresh)
        n_frames += batch.n_decoded
        if len(batch.pts_us):
            on_progress(int(batch.pts_us[-1]), fresh)
    revisions.extend(track(session.break_segment()))
    revisions.extend(session.close(Reason.END))
    indices, scores, attention = curves.arrays(len(session.spec.class_names))
    return Localization(tuple(revisions), indices, scores, attention, n_frames)
