"""A run's answer to whole videos, offline: scores, proposals, mAP."""

from collections.abc import Callable, Mapping

import numpy as np

from engine.proposals import localize_offline
from engine.scores import ScoredSnippets
from engine.spec import ProposalSpec
from engine.types import FloatArray, Proposal
from training.checkpoints import TrainedNetwork
from training.evaluation import Detections, MapResult, Truth, mean_average_precision
from training.live_defaults import PROPOSALS, PUBLISHED_PROPOSALS
from training.records import FeatureSet, VideoRecord
from training.train import score_video


def propose_offline(
    run: TrainedNetwork,
    record: VideoRecord,
    background: FloatArray | None = None,
    proposals: ProposalSpec | None = None,
) -> list[Proposal]:
    """Scored intervals of a whole video, every class's after soft-NMS.

    Args:
        run: What was trained.
        record: The video, T rows; each run of rows without a gap is searched by itself.
        background: float32 (D,); None: what the run knows of the record's camera.
        proposals: Post-processing; None: what suits the data it was trained on.

    Raises:
        DataError: The video holds no snippet.
    """
    known = run.background(record.camera) if background is None else background
    suited = PROPOSALS if run.config.data.kind == "clips" else PUBLISHED_PROPOSALS
    spec = proposals or suited
    cas, attention = score_video(run.network, record, known)
    scores = np.asarray(cas * attention[:, None], np.float32)  # (T, C)
    found: list[Proposal] = []
    starts = np.flatnonzero(np.diff(record.indices, prepend=record.indices[0] - 2) != 1)
    for first, end in zip(starts, [*starts[1:], len(scores)], strict=True):
        track = ScoredSnippets(int(record.indices[first]), 0, scores[first:end])
        for label in range(scores.shape[1]):
            found.extend(localize_offline(track, label, run.timeline, spec))
    return found


def score_run(
    run: TrainedNetwork, videos: FeatureSet, proposals: ProposalSpec | None = None
) -> MapResult:
    """MAP of a run on videos whose intervals are known, at tIoU .1 to .7, in exact seconds."""
    return mean_average_precision(*scored(run, videos, proposals), len(videos.class_names))


def scored(
    run: TrainedNetwork, videos: FeatureSet, proposals: ProposalSpec | None = None
) -> tuple[Truth, Detections]:
    """Truth and detections of a run, for ``mean_average_precision``."""
    known = [record for record in videos.records if record.truth is not None]
    truth = Truth.of(known)
    found = {record.name: propose_offline(run, record, None, proposals) for record in known}
    return truth, Detections.of(found, truth.videos)


def judge_of(videos: FeatureSet) -> Callable[[TrainedNetwork], Mapping[str, float]]:
    """What ``ablate`` asks of every run: percent of mAP, and of video tags."""

    def judge(run: TrainedNetwork) -> Mapping[str, float]:
        result = score_run(run, videos)
        return {
            "mAP .1:.7": 100 * result.average,
            "mAP .3": 100 * float(result.per_tiou[2]),
            "mAP .5": 100 * float(result.per_tiou[4]),
            "mAP .7": 100 * float(result.per_tiou[6]),
        }

    return judge
