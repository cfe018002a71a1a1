"""Losses of weakly supervised localization, shared by every network of the table.

Pure functions. B, T: sequences and their positions; N, L: bags and their positions; C: classes;
D: feature dimensions. ``valid`` (N, L) is true where there is a snippet; what lies elsewhere
never counts. Class logits with a background have it last (C + 1).
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

_TINY = 1e-6  # keeps a quotient of sums of probabilities finite
_BELOW_ALL = -1e4  # below any logit, and finite in half precision


class BagLayout:
    """Where each bag's positions lie, to turn (B, T, K) into one padded row a bag.

    Args:
        bags: int64 (B, T), the bag of each position; -1 on padding.
        n_bags: N.

    Attributes:
        valid: bool (N, L), L being the longest bag's length.
    """

    def __init__(self, bags: Tensor, n_bags: int) -> None:
        owners = bags.reshape(-1)
        self._kept = torch.nonzero(owners >= 0).squeeze(1)
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
        """(B, T, K) → (N, L, K), in order of time, zero beyond a bag's end."""
        flat = values.reshape(-1, values.shape[-1])[self._kept]
        empty = torch.zeros(*self._shape, values.shape[-1], dtype=flat.dtype, device=flat.device)
        return empty.index_put(self._rows, flat)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``values`` (N, L) over all valid positions together; 0 if there is none."""
    mask = valid.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def top_k_mean(values: Tensor, valid: Tensor, ratio: int) -> Tensor:
    """Mean of each class's k largest values, k = max(1, valid positions // ratio).

    Sorts instead of calling ``topk``: k differs from row to row, and this form can be traced.

    Args:
        values: (N, L, C).
        valid: (N, L).
        ratio: r of the source, positions per pooled one.

    Returns:
        (N, C); 0 for a row without any valid position.

    Source: Paul et al., W-TALC (ECCV 2018), k-max multiple-instance learning.
    """
    mask = valid.to(values.dtype)
    counts = mask.sum(dim=1, keepdim=True)  # (N, 1)
    keep = torch.minimum(torch.floor(counts / ratio).clamp(min=1), counts)
    last = values.masked_fill(mask.unsqueeze(-1) == 0, _BELOW_ALL)
    ordered = last.sort(dim=1, descending=True).values
    ranks = torch.cumsum(mask * 0 + 1, dim=1) - 1  # 0, 1, 2 … in any traced length
    taken = (ranks < keep).to(values.dtype).unsqueeze(-1)
    return (ordered * taken).sum(dim=1) / keep.clamp(min=1)


def linear_softmax_mean(probabilities: Tensor, valid: Tensor) -> Tensor:
    """A bag's probability: the mean of its snippets' weighted by themselves, Σp² / Σp.

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
    """Binary cross-entropy of bag probabilities (N, C) against tags (N, C), mean of all.

    A bag without tags is a bag in which nothing happens, and counts as such.
    """
    return F.binary_cross_entropy(probabilities.clamp(0, 1), tags)


def multiple_instance_loss(bag_logits: Tensor, tags: Tensor, *, background: float) -> Tensor:
    """Cross-entropy of softmax scores against normalised tags.

    L = -Σ_c ỹ_c log softmax(v)_c, ỹ = [y, b] / (Σ + 1e-4), mean over bags.

    Args:
        bag_logits: v, (N, C + 1), background last.
        tags: y, (N, C).
        background: b: 1 if the bags hold background, 0 where it was suppressed.

    Source: Hong et al., CO2-Net (ACM MM 2021), eq. of the video-level loss.
    """
    wanted = torch.cat([tags, torch.full_like(tags[:, :1], background)], dim=1)
    shares = wanted / (wanted.sum(dim=1, keepdim=True) + 1e-4)
    return -(shares * bag_logits.log_softmax(dim=1)).sum(dim=1).mean()


def suppressed(logits: Tensor, attention: Tensor) -> Tensor:
    """Logits pulled to each snippet's lowest one where nothing acts: a(S - min S) + min S.

    Args:
        logits: S, (N, L, C + 1).
        attention: a, (N, L) in [0, 1].

    Source: Hong et al., CO2-Net (ACM MM 2021); the published code's form with the minimum.
    """
    lowest = logits.min(dim=-1, keepdim=True).values
    return attention.unsqueeze(-1) * (logits - lowest) + lowest


def sparsity_loss(attention: Tensor, valid: Tensor) -> Tensor:
    """Mean actionness (N, L): actions are rare. Source: Nguyen et al., STPN (CVPR 2018)."""
    return masked_mean(attention, valid)


def guide_loss(attention: Tensor, logits: Tensor, valid: Tensor) -> Tensor:
    """Actionness and background class must be opposites: mean |1 - a - softmax(S)_bg|.

    Args:
        attention: a, (N, L); gradient flows through both.
        logits: S, (N, L, C + 1), background last.
        valid: (N, L).

    Source: Islam et al., HAM-Net (AAAI 2021), guide loss.
    """
    return masked_mean((1 - attention - logits.softmax(dim=-1)[..., -1]).abs(), valid)


def mutual_loss(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Two modalities' actionness (N, L) teach each other: ½ MSE(a, sg b) + ½ MSE(b, sg a).

    Source: Hong et al., CO2-Net (ACM MM 2021), mutual learning loss.
    """
    forth = masked_mean((first - second.detach()) ** 2, valid)
    back = masked_mean((second - first.detach()) ** 2, valid)
    return (forth + back) / 2


def co_activity_loss(features: Tensor, logits: Tensor, tags: Tensor, valid: Tensor) -> Tensor:
    """Bags of one class look alike where it acts, and unlike the other's rest.

    With w = softmax_t(S_c), H = Σ w x and Lo = Σ (1 - w) x / (L - 1), for bags i, j of class c:
    ½[d(H_i,H_j) - d(H_i,Lo_j) + ½]₊ + ½[d(H_i,H_j) - d(H_j,Lo_i) + ½]₊, d = 1 - cos;
    mean over every pair of bags and class they share. 0 where no pair shares one (the published
    code divides 0 by 0 there).

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
    high = F.normalize(torch.einsum("nlc,nld->ncd", shares, features), dim=-1)
    low = F.normalize(torch.einsum("nlc,nld->ncd", rest, features), dim=-1)
    both = torch.triu(torch.einsum("ic,jc->cij", tags, tags), diagonal=1)
    class_index, i, j = torch.nonzero(both, as_tuple=True)
    if len(class_index) == 0:
        return features.sum() * 0
    alike = _distance(high[i, class_index], high[j, class_index])
    there = alike - _distance(high[i, class_index], low[j, class_index])
    here = alike - _distance(high[j, class_index], low[i, class_index])
    return ((there + 0.5).relu() + (here + 0.5).relu()).mean() / 2


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """1 - cosine of unit rows."""
    return 1 - (first * second).sum(dim=-1)


def frame_cross_entropy(probabilities: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of snippet scores (B, T, C) against pseudo labels (B, T, C) in [0, 1].

    Mean over classes and valid positions: the second round of training.
    """
    terms = F.binary_cross_entropy(probabilities.clamp(0, 1), targets, reduction="none")
    return masked_mean(terms.mean(dim=-1), valid)
