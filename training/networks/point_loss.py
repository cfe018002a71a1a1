"""The loss of clicks, the same for every network: a click says what happens at one moment.

B, T: sequences and their positions; C: classes; P: clicks; G: gaps between neighbouring clicks.
"""

import torch
from torch import Tensor

_TINY = 1e-6  # keeps logarithms of probabilities finite


def point_loss(cas: Tensor, points: Tensor, bags: Tensor, focus: float) -> Tensor:
    """Want a class where it was clicked, and at least one rest between two of its clicks.

    Whoever clicks does so once for each time that an action happens. So where a class was
    clicked, its score shall be 1; and somewhere between neighbouring clicks of the class in one
    bag it rests: there, at its lowest score, it shall be 0. The loss is the mean focal
    cross-entropy (1 - q)^focus · -log q of all clicks, q being the score that is wanted, plus that
    of all gaps.

    Args:
        cas: float32 (B, T, C) in [0, 1], differentiable.
        points: bool (B, T, C), true where clicked.
        bags: int64 (B, T), the bag of each position; -1 on padding.
        focus: Of the focal form; 0 is the plain cross-entropy.

    Returns:
        A scalar (); 0 if nothing was clicked.

    Source: Lee, Byun, Learning Action Completeness from Points (ICCV 2021), point-level loss,
    with its pseudo background between points kept to the one snippet that is surest.
    """
    clicked = cas[points]  # (P,)
    resting = 1 - lowest_between(cas, points, bags)  # (G,)
    return _focal(clicked, focus) + _focal(resting, focus)


def lowest_between(cas: Tensor, points: Tensor, bags: Tensor) -> Tensor:
    """Return the lowest score between each two neighbouring clicks of a class within one bag.

    Args:
        cas: float32 (B, T, C).
        points: bool (B, T, C).
        bags: int64 (B, T), the bag of each position; -1 on padding.

    Returns:
        (G,), without the gaps that have no position in them.
    """
    n_sequences, length, n_classes = cas.shape
    place = torch.arange(length, device=cas.device)[None, :, None].expand_as(cas)
    before = torch.where(points, place, -1).cummax(dim=1).values  # the last click so far
    after = torch.where(points, place, length).flip(1).cummin(dim=1).values.flip(1)
    is_between = (before >= 0) & (after < length) & ~points & (bags >= 0).unsqueeze(-1)
    own = bags.unsqueeze(-1).expand_as(cas)
    is_between &= own.gather(1, before.clamp(min=0)) == own.gather(1, after.clamp(max=length - 1))
    lane = torch.arange(n_sequences * n_classes, device=cas.device).reshape(-1, 1, n_classes)
    gaps = (lane * length + before)[is_between]  # a number for each gap, of each position in one
    _, numbers = gaps.unique(return_inverse=True)
    found = cas.new_ones(int(numbers.max()) + 1 if len(numbers) else 0)
    return found.scatter_reduce(0, numbers, cas[is_between], "amin", include_self=False)


def _focal(wanted: Tensor, focus: float) -> Tensor:
    """Return the mean focal cross-entropy of the wanted outcomes' scores (P,); 0 of none."""
    q = wanted.clamp(_TINY, 1)
    return ((1 - q) ** focus * -q.log()).sum() / max(len(q), 1)
