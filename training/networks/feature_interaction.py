"""Temporal interaction at the level of embeddings: STA, LTA and their adaptive fusion.

B, T: sequences and positions; d: embedding dimensions; H: heads; K: offsets; R: segments.

Source: our reading of the sparse temporal interaction unit of S2Net (Wang, Kong, Li, ACM TOMM,
10.1145/3807956), of which only the abstract is known to us: windows, biases, the rule for r and
the gate are our choices.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from training.networks.neighbourhood import (
    OUT,
    offsets_of,
    segment_means,
    shifted_copies,
    top_segments,
    window_weights,
)
from training.networks.prototypes import Prototypes
from training.networks.s2net_config import InteractionConfig

_MAX_BUCKET = 7  # distances of 2^7 snippets (82 s at 0.64 s a snippet) and more are one bucket


class ShortTermAttention(nn.Module):
    """Multi-head attention in several windows that share queries, keys and values.

    One logit for each offset of the widest window; a softmax for each window; a learned mixture.

    Args:
        config: Windows and heads.
        width: d.
    """

    def __init__(self, config: InteractionConfig, width: int) -> None:
        super().__init__()
        self._windows, self._heads = config.windows, config.heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.offset_bias = nn.Parameter(torch.zeros(len(offsets_of(config.windows)), config.heads))
        self.window_mixture = nn.Parameter(torch.zeros(len(config.windows)))
        self.out = _zero_linear(width, width)

    @override
    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d), (B, T, 1) → (B, T, d)."""
        offsets = offsets_of(self._windows)
        query, heads = self.query(y), (self._heads, -1)
        near = [
            (query * other).unflatten(-1, heads).sum(dim=-1)
            for other in shifted_copies(self.key(y), offsets)
        ]
        scale = (y.shape[-1] / self._heads) ** -0.5
        logits = scale * torch.stack(near, dim=2) + self.offset_bias  # (B, T, K, H)
        weights = window_weights(logits, mask, self._windows, self.window_mixture)
        # One offset at a time: all of them at once would hold K copies of the values.
        moved = shifted_copies(self.value(y), offsets)
        shares = [weights[:, :, index].unsqueeze(-1) for index in range(len(moved))]
        read = shares[0] * moved[0].unflatten(-1, heads)  # (B, T, H, d / H)
        for share, other in zip(shares[1:], moved[1:], strict=True):
            read = read + share * other.unflatten(-1, heads)
        return self.out(read.flatten(2))


class LongTermAttention(nn.Module):
    """Every position attends to the r most active segments and to one learned null token.

    The null token lets background attend to nothing. A segment's value is multiplied by its
    score, so that what selects is taught by what is read.

    Args:
        config: Segment length, r and heads.
        width: d.
    """

    def __init__(self, config: InteractionConfig, width: int) -> None:
        super().__init__()
        self._heads = config.heads
        self._grid = (config.segment_snippets, config.max_segments)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.null = nn.Parameter(torch.zeros(1, 1, width))
        self.distance_bias = nn.Parameter(torch.zeros(_MAX_BUCKET + 1, config.heads))
        self.out = _zero_linear(width, width)
        nn.init.normal_(self.null, std=0.02)

    @override
    def forward(self, y: Tensor, means: Tensor, scores: Tensor, seen: Tensor) -> Tensor:
        """Read from segments.

        Args:
            y: (B, T, d).
            means: (B, J, d).
            scores: (B, J) in [0, 1].
            seen: float32 (B, J, 1), 1 where a segment has any snippet.
        """
        heads = (self._heads, -1)
        best = top_segments(scores, seen, self._grid[1])
        tokens = torch.cat([best.chosen(means), self.null.expand(y.shape[0], -1, -1)], dim=1)
        gates = F.pad(scores.gather(1, best.places) * best.kept, (0, 1), value=1.0)  # (B, R + 1)
        kept = F.pad(best.kept, (0, 1), value=1.0).unsqueeze(1).unsqueeze(-1)
        query, key = self.query(y).unflatten(-1, heads), self.key(tokens).unflatten(-1, heads)
        value = (self.value(tokens) * gates.unsqueeze(-1)).unflatten(-1, heads)
        logits = torch.einsum("bthx,brhx->btrh", query, key) / query.shape[-1] ** 0.5
        logits = logits + F.pad(self._bias(y, best.places), (0, 0, 0, 1))
        weights = (logits * kept + OUT * (1 - kept)).softmax(dim=2) * kept
        return self.out(torch.einsum("btrh,brhx->bthx", weights, value).flatten(2))

    def _bias(self, y: Tensor, places: Tensor) -> Tensor:
        """(B, T, R, H), by ⌊log2 of the distance in snippets⌋, 0.._MAX_BUCKET."""
        length = self._grid[0]
        times = torch.cumsum(y[:, :, :1] * 0 + 1, dim=1) - 1  # (B, T, 1), 0, 1, 2 …
        centres = (places.to(y.dtype) * length + (length - 1) / 2).unsqueeze(1)  # (B, 1, R)
        distance = (times - centres).abs()
        # Comparisons, not a logarithm: the same bucket in every runtime.
        reached = [(distance >= 2.0**power).long() for power in range(1, _MAX_BUCKET + 1)]
        return F.embedding(torch.stack(reached).sum(dim=0), self.distance_bias)


class FeatureInteraction(nn.Module):
    """u = e + β₁ STA(y) + β₂ LTA(y), y = LN(e); the βs a softmax over the parts switched on.

    Args:
        config: Which parts there are, at least one.
        width: d.
    """

    def __init__(self, config: InteractionConfig, width: int) -> None:
        super().__init__()
        self._grid = (config.segment_snippets, config.max_segments)
        self.norm = nn.LayerNorm(width)
        self.short_term = ShortTermAttention(config, width) if config.sta else None
        self.long_term = LongTermAttention(config, width) if config.lta else None
        n_parts = config.sta + config.lta
        is_fused = config.fusion and n_parts > 1
        self.fusion = nn.Linear((n_parts + 1) * width, n_parts) if is_fused else None

    @override
    def forward(
        self, embedding: Tensor, actionness: Tensor, mask: Tensor, prototypes: Prototypes | None
    ) -> Tensor:
        """(B, T, d), (B, T), (B, T, 1) → (B, T, d)."""
        y = self.norm(embedding)
        parts = []
        if self.short_term is not None:
            parts.append(self.short_term(y, mask))
        if self.long_term is not None:
            parts.append(self.long_term(y, *self._segments(y, actionness, mask, prototypes)))
        if self.fusion is None:
            return embedding + torch.stack(parts).mean(dim=0)
        shares = self.fusion(torch.cat([y, *parts], dim=-1)).softmax(dim=-1)
        mixed = [shares[..., i : i + 1] * part for i, part in enumerate(parts)]
        return embedding + torch.stack(mixed).sum(dim=0)

    def _segments(
        self, y: Tensor, actionness: Tensor, mask: Tensor, prototypes: Prototypes | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Segment means, scores by mean actionness times relevance to any class, existence."""
        means, seen = segment_means(y, mask, *self._grid)
        acting, _ = segment_means(actionness.unsqueeze(-1), mask, *self._grid)
        scores = acting.squeeze(-1)
        if prototypes is not None:
            relevance = prototypes(means).max(dim=-1).values.sigmoid()
            scores = prototypes.blended(scores, scores * relevance)
        return means, scores, seen


def _zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear map that starts as nothing, so that its module starts as the identity."""
    linear = nn.Linear(n_in, n_out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
