"""Semantic prototypes: what each class, and the background, looks like across videos.

N, L: bags and positions; C: classes; d: embedding dimensions; H: heads; K: C or C + 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from training.networks.normalization import LayerNorm
from training.networks.s2net_config import PrototypeConfig


class Prototypes(nn.Module):
    """C + 1 unit vectors of d dimensions, the background's last.

    Moving averages start from the first bag of their class and not from noise, because random
    vectors pull every snippet the same way. Until then a class has no prototype, and its response
    is 0.

    Args:
        config: It says their source, momentum and temperature.
        n_classes: C.
        width: d.
    """

    def __init__(self, config: PrototypeConfig, n_classes: int, width: int) -> None:
        super().__init__()
        self._config = config
        is_learned = config.source == "learned"
        if is_learned:
            self.vectors = nn.Parameter(F.normalize(torch.randn(n_classes + 1, width), dim=-1))
        else:
            self.register_buffer("vectors", torch.zeros(n_classes + 1, width))
        self.register_buffer("counts", torch.full((n_classes + 1,), float(is_learned)))
        # 0 during warm-up, then 1. It is a factor because a traced network has no branches.
        self.register_buffer("active", torch.tensor(float(config.warm_up_steps == 0)))

    @property
    def seen(self) -> Tensor:
        """Which prototypes there are: float32 (C + 1,), 1 where there is one."""
        return (self.counts > 0).to(self.vectors.dtype)

    def unit(self) -> Tensor:
        """Return the prototypes (C + 1, d) as unit rows; a row without a prototype is zero."""
        return F.normalize(self.vectors, dim=-1)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Return the semantic responses (cos(u, p_c) - cos(u, p_background)) / τ.

        Args:
            features: u, (..., d).

        Returns:
            (..., C), 0 for a class without a prototype.
        """
        cosines = F.normalize(features, dim=-1) @ self.unit().T  # (..., C + 1)
        return (cosines[..., :-1] - cosines[..., -1:]) / self._config.temperature * self.seen[:-1]

    @torch.no_grad()
    def update(self, vectors: Tensor, present: Tensor) -> None:
        """Move each prototype towards the mean direction of the bags that show its class.

        p ← unit(m p + (1 - m) unit(mean_b unit(v_b))); the first time p ← unit(mean_b unit(v_b)).
        Learned prototypes stay as they are.

        Args:
            vectors: v, (N, C + 1, d), one vector a bag and class.
            present: (N, C + 1), 1 where the bag shows the class.
        """
        if self._config.source != "ema":
            return
        weights = present.to(vectors.dtype)
        mean = torch.einsum("nc,ncd->cd", weights, F.normalize(vectors, dim=-1))  # (C + 1, d)
        target = F.normalize(mean, dim=-1)
        kept = self._config.momentum * self.seen.unsqueeze(-1)  # (C + 1, 1)
        moved = F.normalize(kept * self.vectors + (1 - kept) * target, dim=-1)
        hit = weights.sum(dim=0) > 0  # (C + 1,)
        self.vectors.copy_(torch.where(hit.unsqueeze(-1), moved, self.vectors))
        self.counts.add_(weights.sum(dim=0))

    def blended(self, without: Tensor, guided: Tensor) -> Tensor:
        """Return ``without`` (B, ...) during warm-up, and ``guided`` (B, ...) after it."""
        return without + self.active * (guided - without)

    def end_warm_up_at(self, step: int) -> None:
        """Let prototypes be read from now on if ``step`` steps (counted from 1) are enough."""
        if step >= self._config.warm_up_steps:
            self.active.fill_(1.0)


class SemanticReader(nn.Module):
    """It reads prototypes into embeddings: e = z + gate ⊙ W_o Σ_c A_c W_v p_c.

    A is a softmax over classes and comes from z. The gate is a sigmoid and comes from z and from
    what was read. W_o starts at zero, so that at first the module changes nothing.

    Args:
        width: d.
        heads: Attention heads; a divisor of d.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @override
    def forward(self, embedding: Tensor, prototypes: Prototypes) -> Tensor:
        """Add to each embedding what it reads from the prototypes: (B, T, d) → (B, T, d)."""
        y = self.norm(embedding)
        rows = prototypes.unit()  # (C + 1, d)
        heads = (self._heads, -1)
        query = self.query(y).unflatten(-1, heads)  # (B, T, H, d / H)
        # Both are (C + 1, H, d / H).
        key, value = self.key(rows).unflatten(-1, heads), self.value(rows).unflatten(-1, heads)
        logits = torch.einsum("bthx,chx->bthc", query, key) / query.shape[-1] ** 0.5
        weights = (logits - 1e4 * (1 - prototypes.seen)).softmax(dim=-1)  # (B, T, H, C + 1)
        read = torch.einsum("bthc,chx->bthx", weights, value).flatten(2)  # (B, T, d)
        gate = self.gate(torch.cat([y, read], dim=-1)).sigmoid()
        return prototypes.blended(embedding, embedding + gate * self.out(read))


def bag_vectors(features: Tensor, weights: Tensor, valid: Tensor, ratio: int) -> Tensor:
    """Average each bag's embeddings for each class, over the snippets that show it most.

    v = Σ π u / Σ π over the k = max(1, positions // ratio) largest π.

    Args:
        features: u, (N, L, d).
        weights: π, (N, L, K) ≥ 0, zero where not valid.
        valid: bool (N, L).
        ratio: One of so many positions is pooled.

    Returns:
        v, (N, K, d).
    """
    ranks = weights.argsort(dim=1, descending=True).argsort(dim=1)  # (N, L, K)
    keep = (valid.sum(dim=1) // ratio).clamp(min=1).reshape(-1, 1, 1)  # k, (N, 1, 1)
    held = weights * (ranks < keep)
    total = held.sum(dim=1).unsqueeze(-1).clamp(min=1e-6)  # (N, K, 1)
    return torch.einsum("nlk,nld->nkd", held, features) / total


def prototype_contrast(
    vectors: Tensor, tags: Tensor, prototypes: Prototypes, temperature: float
) -> Tensor:
    """Want bag vectors near their class's prototype, far from other classes and the background.

    For each bag b and each class c it is tagged with, the term is -log of the share that
    exp(v̂·p_c/τ) has among itself and the same of the prototypes of classes the bag is not tagged
    with, of the background's prototype and of the bag's own background vector ĥ. The loss is the
    mean of these terms plus the cross-entropy of ĥ to the background's prototype.

    Args:
        vectors: (N, C + 1, d), the last a bag's background vector h; the gradient flows through
            them.
        tags: (N, C).
        prototypes: They get no gradient unless they are learned.
        temperature: τ.

    Returns:
        The loss, a scalar ().

    Source: our reading of the prototype contrastive loss of S2Net (ACM TOMM, 10.1145/3807956),
    of which only the abstract is known to us; InfoNCE form of van den Oord et al. (2018).
    """
    unit = F.normalize(vectors, dim=-1)
    seen = prototypes.seen
    # (N, C + 1, C + 1): each vector of each bag against each prototype.
    cosines = torch.einsum("ncd,kd->nck", unit, prototypes.unit()) / temperature
    cosines = cosines - 1e4 * (1 - seen)  # classes without a prototype are in no denominator
    with_own = (unit[:, :-1] * unit[:, -1:]).sum(dim=-1, keepdim=True) / temperature  # (N, C, 1)
    bag, class_index = torch.nonzero(tags * seen[:-1], as_tuple=True)  # (pairs,) each
    is_other_tag = F.pad(tags[bag], (0, 1)).bool()  # (pairs, C + 1)
    is_other_tag[torch.arange(len(bag)), class_index] = False
    among = cosines[bag, class_index].masked_fill(is_other_tag, -1e4)
    among = torch.cat([among, with_own[bag, class_index]], dim=-1)  # (pairs, C + 2)
    background = torch.full((len(tags),), tags.shape[1], device=tags.device)
    loss = F.cross_entropy(cosines[:, -1], background) * seen[-1]
    return loss + F.cross_entropy(among, class_index) if len(class_index) else loss


def bag_contrast(vectors: Tensor, tags: Tensor, temperature: float) -> Tensor:
    """Want vectors of one class near each other, far from the others in the batch.

    For each vector with a partner of the same class, the term is the mean over partners of -log of
    the partner's share. The loss is the mean of these terms, and 0 if no vector has a partner.

    Args:
        vectors: (N, C + 1, d); the last, a bag's background, is every class's opponent.
        tags: (N, C).
        temperature: τ.

    Returns:
        The loss, a scalar ().

    Source: Khosla et al., Supervised contrastive learning (NeurIPS 2020), eq. 2.
    """
    shown = F.pad(tags, (0, 1), value=1.0)  # (N, C + 1)
    bag, class_index = torch.nonzero(shown, as_tuple=True)  # (P,) each
    unit = F.normalize(vectors[bag, class_index], dim=-1)  # (P, d)
    # Everything from here on is (P, P) or, summed over partners, (P,).
    itself = torch.eye(len(bag), dtype=torch.bool, device=tags.device)
    logs = (unit @ unit.T / temperature).masked_fill(itself, -1e4).log_softmax(dim=-1)
    partners = (class_index.unsqueeze(0) == class_index.unsqueeze(1)) & ~itself
    counts = partners.sum(dim=1)
    has_any = counts > 0
    terms = -(logs * partners).sum(dim=1) / counts.clamp(min=1)
    return (terms * has_any).sum() / has_any.sum().clamp(min=1)
