"""A trained network and a video → its scores, those of the whole clip at once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from engine.errors import DataError
from engine.types import FloatArray
from training.learning.batches import Bag, bag_of, clip_batch, moved
from training.networks.base import Network, Scores
from training.records import VideoRecord


def score_video(
    network: Network, record: VideoRecord, camera_mean: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Score a whole video.

    Args:
        network: It is put into evaluation mode.
        record: The video, T rows.
        camera_mean: float32 (D,), its camera's mean.

    Returns:
        cas float32 (T, C) and attention float32 (T,), one row for each row of the record.

    Raises:
        DataError: The video holds no snippet.
    """
    bag = _whole_bag(record, camera_mean)
    scores = scored(network, [bag])
    return scores.cas[0, bag.places].cpu().numpy(), scores.attention[0, bag.places].cpu().numpy()


def video_scores(network: Network, record: VideoRecord, camera_mean: FloatArray) -> FloatArray:
    """Score a video as a whole, float32 (C,); arguments as of ``score_video``.

    Raises:
        DataError: The video holds no snippet.
    """
    scores = scored(network, [_whole_bag(record, camera_mean)])
    return np.asarray(scores.video_scores[0].cpu().numpy(), np.float32)


def _whole_bag(record: VideoRecord, camera_mean: FloatArray) -> Bag:
    if not len(record.indices):
        raise DataError(f"{record.name}: holds no whole snippet: leave it out")
    return bag_of(replace(record, tags=None), camera_mean, 0)


def scored(network: Network, bags: Sequence[Bag]) -> Scores:
    """Score bags, one in a sequence: B is their number."""
    device = next(network.parameters()).device
    batch = moved(clip_batch(bags, 1), device)
    with torch.no_grad():
        return network.eval()(batch.features, batch.valid)
