"""Second-order semantics: which embedding dimensions act together over a whole sequence.

B, T: sequences and positions; d: embedding dimensions; r: dimensions that are paired, d or fewer.

Source: Li et al., SAL (Neural Networks 182:106905, 2025), multiple semantics. The low rank and the
running form are ours.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

_FLOOR = 1e-5  # of the published root; typical entries are near it, so it is part of the model


class SecondOrder(nn.Module):
    """v = unit(root(G)), where G = Σ_t f_t f_tᵀ / (T T₀) and root(g) = sign(g) √(|g| + 1e-5).

    Published is G = Σ f fᵀ / T² with one T = T₀ everywhere. As the root has a floor, another
    length would be another model. With T T₀ instead, the two agree where T = T₀ and every other
    length, a window of live footage too, sees what that length would.

    Args:
        width: d.
        rank: r, to which embeddings are projected before they are paired; 0 pairs all d.
        reference_length: T₀.
        half_life: Snippets after which the running form has forgotten half.
    """

    def __init__(self, width: int, *, rank: int, reference_length: int, half_life: int) -> None:
        super().__init__()
        self._reference, self._half_life = reference_length, half_life
        self.projection = nn.Linear(width, rank, bias=False) if rank else None
        self.n_dims = (rank or width) ** 2

    @override
    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Pool a sequence: embedding (B, T, d), mask (B, T, 1) → v (B, r²)."""
        paired = self._projected(embedding) * mask  # (B, T, r)
        count = mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, 1)
        second = paired.transpose(1, 2) @ paired / (count * self._reference)  # (B, r, r)
        return _rooted(second.flatten(1))

    def running(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Pool what was seen so far, the older the less: the same arguments → v (B, T, r²).

        G_t is a mean of f_s f_sᵀ over valid s ≤ t, with weights that halve every ``half_life``.
        """
        paired = self._projected(embedding) * mask  # (B, T, r)
        places = torch.cumsum(mask.squeeze(-1) * 0 + 1, dim=1)  # (B, T): 1, 2, 3 …, traceable
        age = places.unsqueeze(2) - places.unsqueeze(1)  # (B, T, T), of s as seen from t
        kept = torch.exp(age.clamp(min=0) * (-math.log(2) / self._half_life))
        weights = kept * (age >= 0).to(kept.dtype) * mask.transpose(1, 2)  # (B, T, T)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
        pairs = (paired.unsqueeze(3) * paired.unsqueeze(2)).flatten(2)  # (B, T, r²)
        return _rooted(weights @ pairs / self._reference)

    def _projected(self, embedding: Tensor) -> Tensor:
        """Project (B, T, d) to (B, T, r)."""
        return embedding if self.projection is None else self.projection(embedding)


def _rooted(second: Tensor) -> Tensor:
    """Take the signed root of (..., r²) and make its rows unit vectors."""
    return F.normalize(second.sign() * (second.abs() + _FLOOR).sqrt(), dim=-1)
