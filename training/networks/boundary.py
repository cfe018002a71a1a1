"""Boundary-guided loss: class responses shall change where the features do, and nowhere else.

N, L: bags and their positions; C: classes; D: feature dimensions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

_SIDE = 2  # snippets compared on either side of a possible boundary
_WANTED_STEP = 0.4  # a response that changes by this much is sharp enough
_PEAK_DEVIATIONS = 0.5  # standard deviations above the mean at which evidence is a peak


def boundary_evidence(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how much the features just before a position differ from those from it on.

    b_t = ½(1 - cos(mean u_{t-2..t-1}, mean u_{t..t+1})), min-max normalised in each bag.

    Args:
        features: u, (N, L, D).
        valid: bool (N, L); valid positions come first.

    Returns:
        Evidence (N, L) in [0, 1], without a gradient, and bool (N, L): where it is defined.
    """
    inside = valid & _moved(valid, -_SIDE) & _moved(valid, _SIDE)
    u = features.detach()
    before = sum(_moved(u, -step) for step in range(1, _SIDE + 1))  # (N, L, D), 2 x the mean
    after = sum(_moved(u, step) for step in range(_SIDE))
    raw = (1 - F.cosine_similarity(before, after, dim=-1)) / 2  # (N, L)
    lowest = raw.masked_fill(~inside, torch.inf).amin(dim=1, keepdim=True)  # (N, 1)
    highest = raw.masked_fill(~inside, -torch.inf).amax(dim=1, keepdim=True)
    scaled = (raw - lowest) / (highest - lowest).clamp(min=1e-6)
    return torch.where(inside, scaled, torch.zeros_like(raw)), inside


def boundary_loss(features: Tensor, responses: Tensor, tags: Tensor, valid: Tensor) -> Tensor:
    """Want responses that jump at the features' boundaries and are constant elsewhere.

    With r_t the mean response of the bag's classes and b_t the boundary evidence, the loss is the
    mean over peaks b_t > μ + ½σ of b_t [0.4 - |r_{t+2} - r_{t-2}|]₊, plus the mean of
    (1 - b_t) |r_t - r_{t-1}|. Bags without tags do not count.

    Args:
        features: Output of the interaction unit, (N, L, D); it is evidence only and gets no
            gradient.
        responses: Semantic responses, (N, L, C) in [0, 1]; the gradient flows through them.
        tags: float32 (N, C), 1 where the bag is tagged with the class.
        valid: bool (N, L); valid positions come first.

    Returns:
        The loss, a scalar ().

    Source: our reading of the boundary-guided loss of S2Net (Wang, Kong, Li, ACM TOMM,
    10.1145/3807956), of which only the abstract is known to us.
    """
    evidence, inside = boundary_evidence(features, valid)
    inside = inside & (tags.sum(dim=1, keepdim=True) > 0)
    mask = inside.to(responses.dtype)
    counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
    curve = torch.einsum("nlc,nc->nl", responses, tags) / tags.sum(dim=1, keepdim=True).clamp(1)
    # Mean and standard deviation of each bag's evidence: (N, 1).
    mean = (evidence * mask).sum(dim=1, keepdim=True) / counts
    spread = (((evidence - mean) ** 2 * mask).sum(dim=1, keepdim=True) / counts).sqrt()
    peaks = mask * (evidence > mean + _PEAK_DEVIATIONS * spread)
    step = (_moved(curve, _SIDE) - _moved(curve, -_SIDE)).abs()
    sharp = (peaks * evidence * (_WANTED_STEP - step).relu()).sum() / peaks.sum().clamp(min=1)
    change = (curve - _moved(curve, -1)).abs()
    return sharp + (mask * (1 - evidence) * change).sum() / mask.sum().clamp(min=1)


def _moved(values: Tensor, steps: int) -> Tensor:
    """Shift (N, L, ...) so that each position holds what lies ``steps`` later on axis 1.

    Negative ``steps`` look earlier. Beyond the ends there is zero or False.
    """
    moved = torch.roll(values, -steps, dims=1)
    if steps > 0:
        moved[:, -steps:] = 0
    elif steps < 0:
        moved[:, :-steps] = 0
    return moved
