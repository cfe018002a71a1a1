"""The plainest model there is, which a network must beat: a regression on mean features.

N: videos; D: feature dimensions; C: classes.
"""

from collections.abc import Sequence

import numpy as np
import torch

from engine.types import Float64Array, FloatArray
from training.records import VideoRecord

_STEPS = 100


def linear_scores(
    known: FloatArray | Float64Array,
    tags: FloatArray | Float64Array,
    asked: FloatArray | Float64Array,
    *,
    ridge: float = 1.0,
) -> Float64Array:
    """Fit a logistic regression for each class, and ask it.

    Columns are standardised by those of ``known``.

    Args:
        known: (N, D), numbers of each known thing, such as a video's mean feature.
        tags: (N, C), 1 where tagged.
        asked: (M, D).
        ridge: Weight of the penalty on the squares of the weights, against one thing's.

    Returns:
        float64 (M, C), log odds.
    """
    mean, scale = known.mean(axis=0), known.std(axis=0) + 1e-6
    rows = torch.from_numpy(np.asarray((known - mean) / scale, np.float64))
    wanted = torch.from_numpy(np.asarray(tags, np.float64))
    weights = torch.zeros(rows.shape[1], tags.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(tags.shape[1], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        odds = rows @ weights + bias
        fit = torch.nn.functional.binary_cross_entropy_with_logits(odds, wanted, reduction="sum")
        total = fit + 0.5 * ridge * (weights**2).sum()
        total.backward()
        return total

    search.step(loss)
    with torch.no_grad():
        questions = torch.from_numpy(np.asarray((asked - mean) / scale, np.float64))
        return np.asarray((questions @ weights + bias).numpy(), np.float64)


def mean_features(records: Sequence[VideoRecord]) -> FloatArray:
    """Each video's mean feature, float32 (N, D)."""
    return np.stack([record.features.mean(axis=0, dtype=np.float64) for record in records]).astype(
        np.float32
    )
