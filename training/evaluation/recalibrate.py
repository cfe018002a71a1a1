"""A bundle's opening scores, fitted on videos of one's own and stored in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.bundle.model_bundle import BackboneReference, ModelBundle, write_bundle
from engine.bundle.room import make_room
from engine.cas import Localizer
from engine.spec import ModelSpec
from training.evaluation.opening_scores import (
    event_outcomes,
    false_alarms_per_hour,
    opening_thresholds,
    quiet_thresholds,
)
from training.evaluation.stream_runs import stream_video
from training.records import VideoRecord

BOUNDS = (0.2, 0.9)
HOURS_A_DAY = 24
LEAST_CAMERA_HOURS = 1.0  # of one camera: less says little of what it will see


@dataclass(frozen=True, slots=True)
class Fit:
    """Opening scores, and what they gave on the videos they were fitted on.

    Attributes:
        scores: C scores, one for each class.
        false_alarms_per_hour: C rates, false alarms of each class in a camera-hour.
        hours: Camera-hours the scores were fitted on.
        cameras: Cameras with enough footage of their own → their C scores.
    """

    scores: tuple[float, ...]
    false_alarms_per_hour: tuple[float, ...]
    hours: float
    cameras: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def fit_opening_scores(
    records: Sequence[VideoRecord], spec: ModelSpec, localizer: Localizer, wanted_per_hour: float
) -> Fit:
    """Find the lowest opening scores that keep to a rate of false alarms.

    Args:
        records: Videos whose actions, or at least tags, are known.
        spec: The model.
        localizer: The model's localizer.
        wanted_per_hour: False alarms of all classes together in a camera-hour; each class gets
            the same share.
    """
    n_classes = len(spec.class_names)
    open_to_all = spec.with_open_score(BOUNDS[0])
    events = {record.name: stream_video(record, open_to_all, localizer) for record in records}
    hours = _hours_of(records)
    outcomes = event_outcomes(records, events)
    scores = opening_thresholds(
        outcomes,
        hours,
        n_classes,
        wanted_per_hour / n_classes,
        fallback=spec.tracker.open_score,
        bounds=BOUNDS,
    )
    return Fit(scores, false_alarms_per_hour(outcomes, hours, scores), hours)


def fit_on_quiet(
    records: Sequence[VideoRecord], spec: ModelSpec, localizer: Localizer, wanted_per_day: float
) -> Fit:
    """Raise the opening scores until footage in which nothing happens gives few enough events.

    A camera with an hour of it or more gets scores of its own, so that one before which trees
    move costs the others nothing; what all footage together asks for holds for every other.

    Args:
        records: Videos in which nothing happens, whatever their tags say.
        spec: The model.
        localizer: The model's localizer.
        wanted_per_day: False alarms of all classes together in a day of a camera.
    """
    quiet = [replace(record, tags=(), truth=None) for record in records]
    were = {camera: spec.tracker_of(camera) for camera in ("", *spec.camera_open_scores)}
    every = range(len(spec.class_names))
    open_to_all = spec.with_open_score(
        min(life.open_score_of(index) for life in were.values() for index in every)
    )
    events = {record.name: stream_video(record, open_to_all, localizer) for record in quiet}

    def fitted(some: Sequence[VideoRecord], camera: str = "") -> Fit:
        lowest = tuple(map(were.get(camera, were[""]).open_score_of, every))
        hours = _hours_of(some)
        outcomes = event_outcomes(some, events)
        n_allowed = math.floor(wanted_per_day / HOURS_A_DAY * hours)
        scores = quiet_thresholds(outcomes, n_allowed, lowest, BOUNDS[1])
        return Fit(scores, false_alarms_per_hour(outcomes, hours, scores), hours)

    cameras = dict(spec.camera_open_scores)
    for camera in sorted({record.camera for record in quiet} - {""}):
        own = [record for record in quiet if record.camera == camera]
        if _hours_of(own) >= LEAST_CAMERA_HOURS:
            cameras[camera] = fitted(own, camera).scores
    return replace(fitted(quiet), cameras=cameras)


def _hours_of(records: Sequence[VideoRecord]) -> float:
    return sum(record.duration_us for record in records) / 3.6e9


def with_opening_scores(bundle: ModelBundle, fit: Fit, out: Path) -> Path:
    """Write a copy of a bundle that opens events at fitted scores.

    Returns:
        The new bundle's folder.

    Raises:
        BundleError: There is not one score for each class.
    """
    make_room(out)
    tracker = replace(bundle.card.tracker, class_open_scores=_rounded(fit.scores))
    cameras = {camera: _rounded(scores) for camera, scores in fit.cameras.items()}
    backbone = (
        BackboneReference(bundle.backbone_model)
        if bundle.backbone_model is not None
        else bundle.backbone_path.read_bytes()
    )
    return write_bundle(
        out,
        replace(bundle.card, tracker=tracker, camera_open_scores=cameras),
        backbone=backbone,
        localizer=bundle.localizer_path.read_bytes(),
        camera_mean=bundle.spec.camera_mean,
        tolerance=bundle.tolerance,
        original=bundle.original,
    )


def _rounded(scores: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(score, 3) for score in scores)
