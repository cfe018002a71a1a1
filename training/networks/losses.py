"""Losses of weakly supervised localization, shared by every network of the table.

All functions are pure, and each loss is a scalar (). B, T: sequences and their positions;
N, L: bags and their positions; C: classes; D: feature dimensions. ``valid`` (N, L) is true where
there is a snippet; what lies elsewhere never counts. ``tags`` float32 (N, C) is 1 where a bag is
tagged with a class. Class logits with a background column have it last (C + 1).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

_TINY = 1e-6  # keeps a quotient of sums of probabilities finite
_BELOW_ALL = -1e4  # below any logit, and finite in half precision


class BagLayout:
    """It knows where each bag's positions lie, and turns (B, T, K) into one padded row a bag.

    Args:
        bags: int64 (B, T), the bag of each position; -1 on padding.
        n_bags: N.

    Attributes:
        valid: bool (N, L), false beyond a bag's end; L is the longest bag's length.
    """

    def __init__(self, bags: Tensor, n_bags: int) -> None:
        owners = bags.reshape(-1)  # (B * T,)
        self._kept = torch.nonzero(owners >= 0).squeeze(1)  # (P,), the positions that are in a bag
        owners = owners[self._kept]
        lengths = torch.bincount(owners, minlength=n_bags)
        order = torch.argsort(owners, stable=True)
        starts = lengths.cumsum(0) - lengths
        places = torch.empty_like(owners)
        places[order] = torch.arange(len(owners), device=bags.device) - starts[owners[order]]
        self._rows = (owners, places)
        self._shape = (n_bags, int(lengths.max()) if len(owners) else 0)
        self.valid = torch.zeros(self._shape, dtype=torch.bool, device=bags.device)
        self.valid[self._rows] = True

    def arranged(self, values: Tensor) -> Tensor:
        """Turn (B, T, K) into (N, L, K), in order of time, with zeros beyond a bag's end."""
        flat = values.reshape(-1, values.shape[-1])[self._kept]  # (P, K)
        empty = torch.zeros(*self._shape, values.shape[-1], dtype=flat.dtype, device=flat.device)
        return empty.index_put(self._rows, flat)


def weighed(terms: dict[str, Tensor], weights: object) -> dict[str, Tensor]:
    """Each term, a scalar (), times the weight of its name; a weight of 0 leaves it out."""
    return {n: getattr(weights, n) * term for n, term in terms.items() if getattr(weights, n)}


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of ``values`` (N, L) over all valid positions; 0 if there is none."""
    mask = valid.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def top_k_mean(values: Tensor, valid: Tensor, ratio: int, by: Tensor | None = None) -> Tensor:
    """Return the mean of each class's k largest values, k = max(1, valid positions // ratio).

    It sorts instead of calling ``topk`` because k differs from row to row, and this form can be
    traced.

    Args:
        values: (N, L, C).
        valid: (N, L).
        ratio: r of the source: one of so many positions is pooled.
        by: (N, L, C), by which the largest are chosen instead of by ``values``.

    Returns:
        (N, C); 0 for a row without any valid position.

    Source: Paul et al., W-TALC (ECCV 2018), k-max multiple-instance learning.
    """
    mask = valid.to(values.dtype)
    counts = mask.sum(dim=1, keepdim=True)  # (N, 1)
    keep = torch.minimum(torch.floor(counts / ratio).clamp(min=1), counts)  # k, (N, 1)
    ranking = values if by is None else by
    last = ranking.masked_fill(mask.unsqueeze(-1) == 0, _BELOW_ALL)
    best = last.sort(dim=1, descending=True)
    ordered = best.values if by is None else values.gather(1, best.indices)
    ranks = torch.cumsum(mask * 0 + 1, dim=1) - 1  # (N, L): 0, 1, 2 … in any traced length
    taken = (ranks < keep).to(values.dtype).unsqueeze(-1)  # (N, L, 1)
    return (ordered * taken).sum(dim=1) / keep.clamp(min=1)


def linear_softmax_mean(probabilities: Tensor, valid: Tensor) -> Tensor:
    """Pool snippets to a bag: the mean of their probabilities weighted by themselves, Σp² / Σp.

    Args:
        probabilities: (N, L, C) in [0, 1].
        valid: (N, L).

    Returns:
        (N, C) in [0, 1].

    Source: Wang, Li, Metze, A comparison of five multiple instance learning pooling functions
    (ICASSP 2019), "linear softmax".
    """
    seen = probabilities * valid.to(probabilities.dtype).unsqueeze(-1)
    return (seen * seen).sum(dim=1) / (seen.sum(dim=1) + _TINY)


def bag_cross_entropy(probabilities: Tensor, tags: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of bag probabilities (N, C) against tags (N, C).

    A bag without tags is a bag in which nothing happens, and counts as such.
    """
    return F.binary_cross_entropy(probabilities.clamp(0, 1), tags)


def multiple_instance_loss(bag_logits: Tensor, tags: Tensor, *, background: float) -> Tensor:
    """Return the cross-entropy of softmax scores against normalised tags.

    L = -Σ_c ỹ_c log softmax(v)_c with ỹ = [y, b] / (Σ + 1e-4), as the mean over bags.

    Args:
        bag_logits: v, (N, C + 1), background last.
        tags: y, (N, C).
        background: b: 1 if the bags hold background, 0 where it was suppressed.

    Source: Hong et al., CO2-Net (ACM MM 2021), eq. of the video-level loss.
    """
    wanted = torch.cat([tags, torch.full_like(tags[:, :1], background)], dim=1)  # (N, C + 1)
    shares = wanted / (wanted.sum(dim=1, keepdim=True) + 1e-4)
    return -(shares * bag_logits.log_softmax(dim=1)).sum(dim=1).mean()


def shared_cross_entropy(probabilities: Tensor, tags: Tensor, *, background: float) -> Tensor:
    """Return the cross-entropy of bag probabilities against tags that share a sum of 1.

    L = -Σ_c ỹ_c log p_c with ỹ = [y, b] / Σ, as the mean over bags. A bag without any tag and
    with b = 0 costs nothing. It is ``multiple_instance_loss`` for scores that are no softmax of
    one vector of logits, such as the mean of two.

    Args:
        probabilities: p, (N, C + 1) in [0, 1], background last.
        tags: y, (N, C).
        background: b: 1 if the bags hold background, 0 where it was suppressed.

    Source: Wang et al., Two-Stream Networks for Weakly-Supervised Temporal Action Localization
    with Semantic-Aware Mechanisms (CVPR 2023), classification losses after late fusion.
    """
    wanted = torch.cat([tags, torch.full_like(tags[:, :1], background)], dim=1)  # (N, C + 1)
    shares = wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1)
    return -(shares * probabilities.clamp(min=_TINY).log()).sum(dim=1).mean()


def tag_cross_entropy(bag_logits: Tensor, tags: Tensor) -> Tensor:
    """Return the cross-entropy of softmax scores (N, C), no background among them, against tags.

    Tags (N, C) share a target of 1; a bag without any costs nothing.
    """
    shares = tags / tags.sum(dim=1, keepdim=True).clamp(min=1)
    return -(shares * bag_logits.log_softmax(dim=1)).sum(dim=1).mean()


def uniformity_loss(bag_logits: Tensor) -> Tensor:
    """Want no class to stand out: KL(uniform || softmax(v)) of bags (N, C), as their mean.

    Source: Lee et al., UM (AAAI 2021), background entropy loss.
    """
    n_classes = bag_logits.shape[1]
    return -bag_logits.log_softmax(dim=1).mean() - math.log(n_classes)


def suppressed(logits: Tensor, attention: Tensor) -> Tensor:
    """Pull logits to each snippet's lowest one where nothing acts: a(S - min S) + min S.

    Args:
        logits: S, (N, L, C + 1).
        attention: a, (N, L) in [0, 1].

    Returns:
        (N, L, C + 1).

    Source: Hong et al., CO2-Net (ACM MM 2021); the form with the minimum is that of its
    published code.
    """
    lowest = logits.min(dim=-1, keepdim=True).values  # (N, L, 1)
    return attention.unsqueeze(-1) * (logits - lowest) + lowest


def sparsity_loss(attention: Tensor, valid: Tensor) -> Tensor:
    """Return the mean actionness of (N, L), because actions are rare.

    Source: Nguyen et al., STPN (CVPR 2018).
    """
    return masked_mean(attention, valid)


def guide_loss(attention: Tensor, logits: Tensor, valid: Tensor) -> Tensor:
    """Want actionness and background class to be opposites: mean |1 - a - softmax(S)_bg|.

    Args:
        attention: a, (N, L); the gradient flows through it and through ``logits``.
        logits: S, (N, L, C + 1), background last.
        valid: (N, L).

    Source: Islam et al., HAM-Net (AAAI 2021), guide loss.
    """
    return masked_mean((1 - attention - logits.softmax(dim=-1)[..., -1]).abs(), valid)


def mutual_loss(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Let two modalities' actionness (N, L) teach each other: ½ MSE(a, sg b) + ½ MSE(b, sg a).

    sg stops the gradient. Source: Hong et al., CO2-Net (ACM MM 2021), mutual learning loss.
    """
    forth = masked_mean((first - second.detach()) ** 2, valid)
    back = masked_mean((second - first.detach()) ** 2, valid)
    return (forth + back) / 2


def co_activity_loss(features: Tensor, logits: Tensor, tags: Tensor, valid: Tensor) -> Tensor:
    """Want two bags of one class to look alike where it acts, and unlike each other's rest.

    With w = softmax_t(S_c), H = Σ w x and Lo = Σ (1 - w) x / (L - 1), the term of bags i, j of
    class c is ½[d(H_i,H_j) - d(H_i,Lo_j) + ½]₊ + ½[d(H_i,H_j) - d(H_j,Lo_i) + ½]₊, d = 1 - cos.
    The loss is the mean over every pair of bags and every class they share. It is 0 where no pair
    shares one (the published code divides 0 by 0 there).

    Args:
        features: x, (N, L, D).
        logits: S, (N, L, C) or (N, L, C + 1).
        tags: (N, C).
        valid: (N, L).

    Source: Paul et al., W-TALC (ECCV 2018), co-activity similarity loss.
    """
    mask = valid.unsqueeze(-1)
    scores = logits[..., : tags.shape[1]].masked_fill(~mask, _BELOW_ALL)
    shares = scores.softmax(dim=1) * mask  # (N, L, C)
    rest = (1 - shares) * mask / (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    high = F.normalize(torch.einsum("nlc,nld->ncd", shares, features), dim=-1)  # (N, C, D)
    low = F.normalize(torch.einsum("nlc,nld->ncd", rest, features), dim=-1)  # (N, C, D)
    both = torch.triu(torch.einsum("ic,jc->cij", tags, tags), diagonal=1)  # (C, N, N), i < j
    class_index, i, j = torch.nonzero(both, as_tuple=True)  # (pairs,) each
    if len(class_index) == 0:
        return features.sum() * 0  # a zero that the graph knows: backward() works
    alike = _distance(high[i, class_index], high[j, class_index])  # (pairs,)
    there = alike - _distance(high[i, class_index], low[j, class_index])
    here = alike - _distance(high[j, class_index], low[i, class_index])
    return ((there + 0.5).relu() + (here + 0.5).relu()).mean() / 2


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - cosine of unit rows, (P, D) and (P, D) → (P,)."""
    return 1 - (first * second).sum(dim=-1)


def frame_cross_entropy(probabilities: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Compare snippet scores (B, T, C) with pseudo labels (B, T, C) in [0, 1].

    It is the mean binary cross-entropy over classes and valid positions (B, T), for the second
    round of training.
    """
    terms = F.binary_cross_entropy(probabilities.clamp(0, 1), targets, reduction="none")
    return masked_mean(terms.mean(dim=-1), valid)
