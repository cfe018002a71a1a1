"""What a trained network gives for whole videos: scores, proposals, mAP."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engine.grid import Grid
from engine.proposals import localize_whole_video
from engine.scores import ScoredSnippets
from engine.spec import ProposalSpec
from engine.types import FloatArray, Proposal
from training.evaluation.average_precision import MapResult, mean_average_precision
from training.evaluation.matching import Detections, Truth
from training.learning.checkpoints import TrainedNetwork
from training.learning.scoring import score_video
from training.live_defaults import PROPOSALS, PUBLISHED_PROPOSALS
from training.records import FeatureSet, VideoRecord


def propose_whole_video(
    run: TrainedNetwork,
    record: VideoRecord,
    camera_mean: FloatArray | None = None,
    proposals: ProposalSpec | None = None,
) -> list[Proposal]:
    """Find the scored intervals of a whole video, those of every class after soft-NMS.

    Args:
        run: What was trained.
        record: The video, T rows.
        camera_mean: float32 (D,); None takes what the run knows of the record's camera.
        proposals: How scores become intervals; None takes what suits the data it was trained on.

    Raises:
        DataError: The video holds no snippet.
    """
    suited = PROPOSALS if run.config.data.kind == "clips" else PUBLISHED_PROPOSALS
    scores = attended_scores(run, record, camera_mean)
    return proposals_of(record, scores, run.grid, proposals or suited)


def attended_scores(
    run: TrainedNetwork, record: VideoRecord, camera_mean: FloatArray | None = None
) -> FloatArray:
    """Return class activation times actionness over the whole video, float32 (T, C).

    Args:
        run: What was trained.
        record: The video, T rows.
        camera_mean: float32 (D,); None takes what the run knows of the record's camera.

    Raises:
        DataError: The video holds no snippet.
    """
    known = run.camera_mean(record.camera) if camera_mean is None else camera_mean
    cas, attention = score_video(run.network, record, known)
    return np.asarray(cas * attention[:, None], np.float32)


def proposals_of(
    record: VideoRecord,
    scores: FloatArray,
    grid: Grid,
    spec: ProposalSpec,
    class_indices: Sequence[int] | None = None,
) -> list[Proposal]:
    """Find intervals of a whole video from its scores; no interval bridges a gap in its snippets.

    Args:
        record: The video whose T rows were scored.
        scores: float32 (T, C).
        grid: The grid of its snippets.
        spec: How scores become intervals.
        class_indices: Classes to look for; None for all.
    """
    found: list[Proposal] = []
    wanted = range(scores.shape[1]) if class_indices is None else class_indices
    cuts = np.flatnonzero(np.diff(record.indices) != 1) + 1
    for rows in np.split(np.arange(len(record.indices)), cuts):
        track = ScoredSnippets(int(record.indices[rows[0]]), 0, scores[rows])
        for class_index in wanted:
            found.extend(localize_whole_video(track, class_index, grid, spec))
    return found


def score_run(
    run: TrainedNetwork, videos: FeatureSet, proposals: ProposalSpec | None = None
) -> MapResult:
    """Measure a run's mAP on videos whose intervals are known, at tIoU .1 to .7, exact seconds."""
    return mean_average_precision(*scored(run, videos, proposals), len(videos.class_names))


def scored(
    run: TrainedNetwork, videos: FeatureSet, proposals: ProposalSpec | None = None
) -> tuple[Truth, Detections]:
    """Return the truth and a run's detections, for ``mean_average_precision``."""
    known = [record for record in videos.records if record.truth is not None]
    truth = Truth.of(known)
    found = {record.name: propose_whole_video(run, record, None, proposals) for record in known}
    return truth, Detections.of(found, truth.videos)


def judge_of(videos: FeatureSet) -> Callable[[TrainedNetwork], Mapping[str, float]]:
    """Return the judge that ``ablate`` asks about every run: a run → its mAPs in percent."""

    def judge(run: TrainedNetwork) -> Mapping[str, float]:
        result = score_run(run, videos)
        return {
            "mAP .1:.7": 100 * result.average,
            "mAP .3": 100 * float(result.per_tiou[2]),
            "mAP .5": 100 * float(result.per_tiou[4]),
            "mAP .7": 100 * float(result.per_tiou[6]),
        }

    return judge
