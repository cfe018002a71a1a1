"""Stored features through the daemon's own session, or through the same model as whole videos.

Only the curve takes annotations, and it just hands them on to be measured.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from engine.camera_mean import CameraMean, CameraMeanState
from engine.cas import Localizer
from engine.proposals import localize_whole_video
from engine.scores import ScoredSnippets
from engine.session import StreamSession
from engine.spec import ModelSpec
from engine.types import (
    ActionEvent,
    CasWindow,
    FeatureWindow,
    Proposal,
    Reason,
    SnippetFeature,
)
from engine.windows import window_of
from training.evaluation.streaming import StreamingResult, streaming_metrics
from training.records import VideoRecord

_BATCH = 64  # features buffered at once: how many windows a localizer gets in one call


def stream_video(
    record: VideoRecord,
    spec: ModelSpec,
    localizer: Localizer,
    camera: str = "",
    camera_mean: CameraMeanState | None = None,
) -> list[ActionEvent]:
    """Return the revisions that the daemon would have emitted for this video, in order.

    Args:
        record: Its rows are given to the daemon's own session, one after the other.
        spec: The model.
        localizer: The model's localizer.
        camera: Name of the camera; if empty, the record's camera or else the record's name.
        camera_mean: What the camera had seen before, as ``camera_mean_after`` gives it; None
            takes what the model knows of the camera.
    """
    session = _session_of(record, spec, camera, camera_mean)
    records = []
    for windows in _localized(session, record, localizer):
        records.extend(session.track(windows))
    return [*records, *session.close(Reason.END)]


def whole_video_detections(
    record: VideoRecord,
    spec: ModelSpec,
    localizer: Localizer,
    camera: str = "",
    camera_mean: CameraMeanState | None = None,
) -> list[Proposal]:
    """Find what the same model gives if it may see the whole video at once.

    Each segment, a stretch of snippets without a gap, is one window; every class gets its
    proposals after soft-NMS. The camera mean is what a live camera has at the video's end. The
    arguments are those of ``stream_video``.
    """
    after = camera_mean_after([record], spec, camera or _camera_of(record), camera_mean)
    proposals: list[Proposal] = []
    for window in localizer.localize(_whole_windows(record, spec, after)):
        scores = window.cas * window.attention[:, None]  # (T, C), as in a live stream's track
        track = ScoredSnippets(window.first_index, window.segment, scores)
        for class_index in range(scores.shape[1]):
            proposals.extend(localize_whole_video(track, class_index, spec.grid, spec.proposals))
    return proposals


def camera_mean_after(
    records: Sequence[VideoRecord],
    spec: ModelSpec,
    camera: str,
    before: CameraMeanState | None = None,
) -> CameraMeanState | None:
    """Return the camera mean after the camera saw these videos; None if the model has none.

    Args:
        records: The videos, in the order they are seen.
        spec: The model.
        camera: Name of the camera.
        before: What the camera had seen before; None takes what the model knows of it.
    """
    if spec.camera_mean is None:
        return None
    camera_mean = CameraMean.of_camera(spec.camera_mean, camera)
    if before is not None:
        camera_mean.restore(before)
    for record in records:
        for row in record.features:
            camera_mean.update(row)
    return camera_mean.state()


def with_freeze(spec: ModelSpec, freeze_us: int) -> ModelSpec:
    """Return the same model with another look-ahead after an event's end before it freezes."""
    return replace(spec, tracker=replace(spec.tracker, freeze_us=freeze_us))


def snippet_features(record: VideoRecord) -> list[SnippetFeature]:
    """Turn a record's rows into a stream's; the segment rises by one at every missing index."""
    segments = np.cumsum(np.diff(record.indices, prepend=record.indices[:1] - 1) != 1)
    return [
        SnippetFeature(index, segment, vector)
        for index, segment, vector in zip(
            record.indices.tolist(), segments.tolist(), record.features, strict=True
        )
    ]


def _camera_of(record: VideoRecord) -> str:
    return record.camera or record.name


def _session_of(
    record: VideoRecord, spec: ModelSpec, camera: str, camera_mean: CameraMeanState | None
) -> StreamSession:
    return StreamSession(camera or _camera_of(record), record.name, spec, camera_mean=camera_mean)


def _localized(
    session: StreamSession, record: VideoRecord, localizer: Localizer
) -> Iterator[list[CasWindow]]:
    # A window's answer does not depend on the others in the call: batches change no event.
    features = snippet_features(record)
    for at in range(0, len(features), _BATCH):
        yield localizer.localize(session.buffer(features[at : at + _BATCH]))
    yield localizer.localize(session.break_segment())


def _whole_windows(
    record: VideoRecord, spec: ModelSpec, camera_mean: CameraMeanState | None
) -> list[FeatureWindow]:
    vector = None if camera_mean is None else camera_mean.mean.astype(np.float32)
    runs = itertools.groupby(snippet_features(record), lambda feature: feature.segment)
    segments = [list(run) for _, run in runs]
    return [window_of(run, len(run), spec.feature_dim, vector) for run in segments]


@dataclass(frozen=True, slots=True, eq=False)
class CurvePoint:
    """One setting of the tracker, and what it gave.

    Attributes:
        freeze_us: Microseconds of look-ahead after an event's end before it freezes.
        open_score: The opening score of all classes; None: those of the model.
        result: What was measured.
    """

    freeze_us: int
    open_score: float | None
    result: StreamingResult


def delay_accuracy_curve(
    records: Sequence[VideoRecord],
    spec: ModelSpec,
    localizer: Localizer,
    freezes_us: Sequence[int],
    open_scores: Sequence[float | None] = (None,),
    quiet: Sequence[VideoRecord] = (),
    camera_means: Mapping[str, CameraMeanState] = MappingProxyType({}),
) -> list[CurvePoint]:
    """Measure every pair of look-ahead and opening score; the network runs once on each video.

    Args:
        records: Videos whose actions are known, as for ``streaming_metrics``.
        spec: The model.
        localizer: The model's localizer.
        freezes_us: Look-aheads to try, in microseconds.
        open_scores: Opening scores of all classes to try; None stands for those of ``spec``.
        quiet: More videos, in which nothing happens, as for ``streaming_metrics``.
        camera_means: Camera → what it had seen before each of these videos.
    """
    videos = {record.name: record for record in (*records, *quiet)}

    def session_of(record: VideoRecord, setting: ModelSpec) -> StreamSession:
        return _session_of(record, setting, "", camera_means.get(_camera_of(record)))

    windows = {
        name: list(_localized(session_of(record, spec), record, localizer))
        for name, record in videos.items()
    }
    points = []
    for freeze_us, open_score in itertools.product(freezes_us, open_scores):
        setting = with_freeze(spec, freeze_us)
        setting = setting if open_score is None else setting.with_open_score(open_score)
        events = {
            name: _tracked(session_of(record, setting), windows[name])
            for name, record in videos.items()
        }
        result = streaming_metrics(records, events, len(spec.class_names), quiet)
        points.append(CurvePoint(freeze_us, open_score, result))
    return points


def _tracked(session: StreamSession, windows: Sequence[list[CasWindow]]) -> list[ActionEvent]:
    records = [record for some in windows for record in session.track(some)]
    return [*records, *session.close(Reason.END)]
