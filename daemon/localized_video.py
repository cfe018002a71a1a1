"""One video file → what happened in it, and the page that shows it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.models.reading import OpenModel
from daemon.timeline.lanes import Lane
from daemon.timeline.nearest import nearest
from daemon.timeline.page import CurveSet, Mistakes, Thumbnail, render_timeline
from engine.errors import UnreadableVideoError
from engine.judging.truth import TruthSpan
from engine.session import StreamSession
from engine.straight_line import Localization, localize_frames
from engine.types import ActionEvent, FrameBatch
from engine.video.frames import VideoFacts, probe_video, read_video
from engine.video.losses import Losses
from engine.video.pixels import encode_jpeg

N_THUMBNAILS = 12
# A file has no producer run; its events still need one name for their stream time.
FILE_RUN = "file"


@dataclass(frozen=True, slots=True)
class LocalizedVideo:
    """What was found in one file.

    Attributes:
        path: The video.
        camera: Name of the camera in its events.
        result: Revisions of events, and score curves.
        duration_us: Stream time of the last frame, in microseconds.
        spent_s: Seconds that it took.
        thumbnails: A few frames, in order of time.
        losses: What was left out of it.
    """

    path: Path
    camera: str
    result: Localization
    duration_us: int
    spent_s: float
    thumbnails: tuple[Thumbnail, ...]
    losses: Losses

    @property
    def real_time_factor(self) -> float:
        """Seconds of video a second of work; above 1 is faster than a camera."""
        return self.duration_us / 1e6 / max(self.spent_s, 1e-9)


class _ThumbnailTaker:
    """Keeps about ``N_THUMBNAILS`` evenly spaced frames, though the length is only a guess."""

    def __init__(self, duration_us: int | None) -> None:
        self._every_us = max((duration_us or 60_000_000) // N_THUMBNAILS, 1)
        self._next_us = 0
        self.taken: list[Thumbnail] = []

    def watch(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        """Pass batches through, keeping a frame now and then."""
        for batch in batches:
            for pts_us, rgb in zip(batch.pts_us.tolist(), batch.rgb, strict=True):
                if pts_us >= self._next_us:
                    self.taken.append(Thumbnail(pts_us, encode_jpeg(rgb)))
                    self._next_us = pts_us + self._every_us
            yield batch


def localize_video(
    path: Path, camera: str, model: OpenModel, on_time: Callable[[int], None] = lambda _us: None
) -> LocalizedVideo:
    """Run every stage over one file.

    Args:
        path: The video.
        camera: Its name in events.
        model: Looks at it.
        on_time: Told how far it is, in microseconds of stream time.

    Raises:
        UnreadableVideoError: It cannot be opened or holds no video.
        DeviceError: The backend failed.
    """
    facts = facts_of(path)
    thumbnails = _ThumbnailTaker(facts.duration_us)
    started_s = time.perf_counter()
    last_us = 0

    def on_progress(time_us: int, _records: list[ActionEvent]) -> None:
        nonlocal last_us
        last_us = time_us
        on_time(time_us)

    losses = Losses()
    frames = read_video(path, model.spec.geometry, model.spec.grid, losses=losses)
    batches = thumbnails.watch(frames)
    session = StreamSession(camera, FILE_RUN, model.spec, model.class_indices)
    result = localize_frames(batches, session, model.extractor, model.localizer, on_progress)
    spent_s = time.perf_counter() - started_s
    taken = tuple(thumbnails.taken)
    return LocalizedVideo(path, camera, result, last_us, spent_s, taken, losses)


def facts_of(path: Path) -> VideoFacts:
    """What a file says of itself.

    Raises:
        UnreadableVideoError: It cannot be opened or holds no video.
    """
    if path.exists() and not path.is_file():
        raise UnreadableVideoError(f"{path}: is no regular file")  # a pipe would be waited for
    return probe_video(path)


def timeline_of(
    video: LocalizedVideo,
    model: OpenModel,
    *,
    title: str | None = None,
    events: Sequence[ActionEvent] | None = None,
    truth: Sequence[TruthSpan[str]] = (),
    mistakes: Mistakes | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The HTML page of one video.

    Args:
        video: The curves and pictures to draw.
        model: The model that made the curves.
        title: The page's title; None: the file's name.
        events: Revisions of the events to draw; None: those of ``video``.
        truth: What is known to have happened.
        mistakes: Which events and truth to mark as false or missed.
        notes: More facts for the page's head.
    """
    spec, result = model.spec, video.result
    return render_timeline(
        title=video.path.name if title is None else title,
        subtitle=model.description,
        duration_us=max(video.duration_us, 1),
        events=result.revisions if events is None else events,
        curves=_curves_of(video, model),
        thumbnails=video.thumbnails,
        truth=truth,
        mistakes=mistakes,
        open_score=spec.tracker.open_score,
        class_open_scores=_open_scores(model, video.camera),
        notes=(
            f"{result.n_frames} frames, {len(result.indices)} snippets",
            f"localized at {video.real_time_factor:.1f}x real time",
            *([video.losses.told] if video.losses.told else []),
            *notes,
        ),
    )


def _shown_classes(model: OpenModel) -> list[int]:
    return sorted(model.class_indices or range(len(model.spec.class_names)))


def _open_scores(model: OpenModel, camera: str) -> dict[str, float]:
    spec, life = model.spec, model.spec.tracker_of(camera)
    return {spec.class_names[index]: life.open_score_of(index) for index in _shown_classes(model)}


def _curves_of(video: LocalizedVideo, model: OpenModel) -> CurveSet:
    spec, result, shown = model.spec, video.result, _shown_classes(model)
    return CurveSet(
        times_us=result.indices * spec.grid.stride_us + spec.grid.snippet_us // 2,
        scores=result.scores[:, shown],
        contrasts=result.contrasts[:, shown],
        class_names=tuple(spec.class_names[index] for index in shown),
        breaks=tuple((np.flatnonzero(np.diff(result.indices) > 1) + 1).tolist()),
        attention=result.attention,
    )


def nearest_to_an_event(video: LocalizedVideo, model: OpenModel) -> Lane | None:
    """The class that came nearest to an event; None for a video too short to be scored."""
    scores = _open_scores(model, video.camera)
    return nearest(_curves_of(video, model), scores.__getitem__)
