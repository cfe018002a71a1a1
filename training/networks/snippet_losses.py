"""Losses of single snippets: which of a bag's are meant, held to labels or to each other.

N, L: bags and their positions; D: dimensions of an embedding. Like `losses`, all are pure.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

_TINY = 1e-6  # keeps quotients and roots of probabilities finite
_BELOW_ALL = -1e4  # below any logit, and finite in half precision


def generalised_cross_entropy(
    probabilities: Tensor, acts: Tensor, weights: Tensor, q: float = 0.5
) -> Tensor:
    """Hold probabilities to labels that may be wrong: (1 - p^q) / q, which grows less than -log p.

    In each row it is the weighted mean over what is labelled to act, plus that of (1 - (1-p)^q)/q
    over the rest; the loss is the mean over rows.

    Args:
        probabilities: p, (N, L) in [0, 1].
        acts: bool (N, L).
        weights: (N, L), 0 where not valid.
        q: 0 would be the cross-entropy, 1 the absolute error.

    Source: Zhang, Sabuncu, Generalized Cross Entropy Loss (NeurIPS 2018).
    """
    rows = probabilities.new_zeros(len(probabilities))  # (N,)
    for p, chosen in ((probabilities, acts), (1 - probabilities, ~acts)):
        share = weights * chosen.to(weights.dtype)
        # The root's slope at 0 is infinite, and 0 times it no number.
        cost = (1 - p.clamp(min=_TINY) ** q) / q
        rows = rows + (share * cost).sum(dim=1) / share.sum(dim=1).clamp(min=_TINY)
    return rows.mean()


def snippet_contrast(
    query: Tensor, key: Tensor, negatives: Tensor, is_negative: Tensor, temperature: float
) -> Tensor:
    """Want a query nearer to its key than to what it shall not be taken for (InfoNCE).

    -log e^{q·k/τ} / (e^{q·k/τ} + Σ e^{q·n/τ}) of unit vectors.

    Args:
        query: (N, D).
        key: (N, D).
        negatives: (N, L, D).
        is_negative: bool (N, L), which of them count.
        temperature: τ.

    Returns:
        The loss of each row, (N,).

    Source: Zhang et al., CoLA (CVPR 2021), snippet contrast loss.
    """
    q, k, n = (F.normalize(vectors, dim=-1) for vectors in (query, key, negatives))
    own = (q * k).sum(dim=-1, keepdim=True) / temperature  # (N, 1)
    others = torch.einsum("nd,nld->nl", q, n) / temperature
    every = torch.cat([own, others.masked_fill(~is_negative, _BELOW_ALL)], dim=1)
    return every.logsumexp(dim=1) - own.squeeze(1)


def top_places(values: Tensor, valid: Tensor, share: float, *, extra: int = 0) -> Tensor:
    """Return which positions are the highest, floor(share · valid positions) + ``extra`` a row.

    Args:
        values: (N, L).
        valid: bool (N, L).
        share: In [0, 1].
        extra: So many more.

    Returns:
        bool (N, L), without a gradient; of equal values, the earlier.
    """
    counts = valid.sum(dim=1, keepdim=True)  # (N, 1)
    return highest(values, valid, torch.floor(counts * share) + extra)


def highest(values: Tensor, among: Tensor, counts: Tensor) -> Tensor:
    """Return which positions of (N, L) are the ``counts`` (N, 1) highest of those in ``among``.

    Returns:
        bool (N, L), without a gradient; of equal values, the earlier; all, if there are fewer.
    """
    last = values.detach().masked_fill(~among, -torch.inf)
    order = last.argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(dim=1)
    return (ranks < counts) & among
