"""Temporal interaction at the level of embeddings.

Short-term attention (STA) reads the neighbouring positions, long-term attention (LTA) reads the
most active segments of the whole sequence, and an adaptive fusion mixes the two.

B, T: sequences and positions; d: embedding dimensions; H: heads; K: offsets; J: segments;
R: segments attended to.

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
from training.networks.normalization import LayerNorm
from training.networks.prototypes import Prototypes
from training.networks.s2net_config import InteractionConfig

_MAX_BUCKET = 7  # distances of 2^7 snippets (82 s at 0.64 s a snippet) and more are one bucket


class ShortTermAttention(nn.Module):
    """Multi-head attention in several windows that share queries, keys and values.

    Each offset of the widest window gets one logit. Each window takes a softmax over its own
    offsets, and a learned mixture adds the windows up.

    Args:
        config: It says the windows and the number of heads.
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
        """Read from the neighbours: (B, T, d), mask (B, T, 1) → (B, T, d)."""
        offsets = offsets_of(self._windows)
        query, heads = self.query(y), (self._heads, -1)
        near = [  # K times (B, T, H)
            (query * other).unflatten(-1, heads).sum(dim=-1)
            for other in shifted_copies(self.key(y), offsets)
        ]
        scale = (y.shape[-1] / self._heads) ** -0.5
        logits = scale * torch.stack(near, dim=2) + self.offset_bias  # (B, T, K, H)
        weights = window_weights(logits, mask, self._windows, self.window_mixture)
        # One offset at a time: all of them at once would hold K copies of the values.
        moved = shifted_copies(self.value(y), offsets)
        # Each share is (B, T, H, 1).
        shares = [weights[:, :, index].unsqueeze(-1) for index in range(len(moved))]
        read = shares[0] * moved[0].unflatten(-1, heads)  # (B, T, H, d / H)
        for share, other in zip(shares[1:], moved[1:], strict=True):
            read = read + share * other.unflatten(-1, heads)
        return self.out(read.flatten(2))  # (B, T, d)


class LongTermAttention(nn.Module):
    """Every position attends to the r most active segments and to one learned null token.

    The null token lets a position of background attend to nothing. A segment's value is
    multiplied by its score, so that the gradient of what is read reaches the scores that select.

    Args:
        config: It says the segment length, r and the number of heads.
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
        """Read from the best segments.

        Args:
            y: (B, T, d), the positions that read.
            means: (B, J, d), the mean embedding of each segment.
            scores: (B, J) in [0, 1]; the highest are read.
            seen: float32 (B, J, 1), 1 where a segment has any snippet.

        Returns:
            (B, T, d).
        """
        heads = (self._heads, -1)
        best = top_segments(scores, seen, self._grid[1])
        # The null token is the last of R + 1 tokens: (B, R + 1, d).
        tokens = torch.cat([best.chosen(means), self.null.expand(y.shape[0], -1, -1)], dim=1)
        gates = F.pad(scores.gather(1, best.places) * best.kept, (0, 1), value=1.0)  # (B, R + 1)
        kept = F.pad(best.kept, (0, 1), value=1.0).unsqueeze(1).unsqueeze(-1)  # (B, 1, R + 1, 1)
        # (B, T, H, d / H) and (B, R + 1, H, d / H).
        query, key = self.query(y).unflatten(-1, heads), self.key(tokens).unflatten(-1, heads)
        value = (self.value(tokens) * gates.unsqueeze(-1)).unflatten(-1, heads)
        # (B, T, R + 1, H); the null token has no distance and gets no bias.
        logits = torch.einsum("bthx,brhx->btrh", query, key) / query.shape[-1] ** 0.5
        logits = logits + F.pad(self._bias(y, best.places), (0, 0, 0, 1))
        weights = (logits * kept + OUT * (1 - kept)).softmax(dim=2) * kept
        return self.out(torch.einsum("btrh,brhx->bthx", weights, value).flatten(2))  # (B, T, d)

    def _bias(self, y: Tensor, places: Tensor) -> Tensor:
        """Look up a bias for each distance: (B, T, d), segments int64 (B, R) → (B, T, R, H).

        Distances between a position and a segment's centre are put into buckets by the whole part
        of log2 of their number of snippets, 0.._MAX_BUCKET.
        """
        length = self._grid[0]
        times = torch.cumsum(y[:, :, :1] * 0 + 1, dim=1) - 1  # (B, T, 1), 0, 1, 2 …
        centres = (places.to(y.dtype) * length + (length - 1) / 2).unsqueeze(1)  # (B, 1, R)
        distance = (times - centres).abs()  # (B, T, R)
        # Comparisons instead of a logarithm give the same bucket in every runtime.
        reached = [(distance >= 2.0**power).long() for power in range(1, _MAX_BUCKET + 1)]
        return F.embedding(torch.stack(reached).sum(dim=0), self.distance_bias)


class FeatureInteraction(nn.Module):
    """u = e + β₁ STA(y) + β₂ LTA(y) with y = LN(e); the βs are a softmax over the parts in use.

    Args:
        config: It says which parts are in use; at least one is.
        width: d.
    """

    def __init__(self, config: InteractionConfig, width: int) -> None:
        super().__init__()
        self._grid = (config.segment_snippets, config.max_segments)
        self.norm = LayerNorm(width)
        self.short_term = ShortTermAttention(config, width) if config.sta else None
        self.long_term = LongTermAttention(config, width) if config.lta else None
        n_parts = config.sta + config.lta
        is_fused = config.fusion and n_parts > 1
        self.fusion = nn.Linear((n_parts + 1) * width, n_parts) if is_fused else None

    @override
    def forward(
        self, embedding: Tensor, actionness: Tensor, mask: Tensor, prototypes: Prototypes | None
    ) -> Tensor:
        """Let positions read from each other.

        Args:
            embedding: e, (B, T, d).
            actionness: (B, T) in [0, 1], for the choice of segments.
            mask: float32 (B, T, 1), 1 where valid.
            prototypes: If given, a segment that looks like a class is chosen before others.

        Returns:
            u, (B, T, d).
        """
        y = self.norm(embedding)
        parts = []
        if self.short_term is not None:
            parts.append(self.short_term(y, mask))
        if self.long_term is not None:
            parts.append(self.long_term(y, *self._segments(y, actionness, mask, prototypes)))
        if self.fusion is None:
            return embedding + torch.stack(parts).mean(dim=0)
        shares = self.fusion(torch.cat([y, *parts], dim=-1)).softmax(dim=-1)  # (B, T, parts)
        mixed = [shares[..., i : i + 1] * part for i, part in enumerate(parts)]
        return embedding + torch.stack(mixed).sum(dim=0)

    def _segments(
        self, y: Tensor, actionness: Tensor, mask: Tensor, prototypes: Prototypes | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Average y (B, T, d) over segments, and score each segment.

        Returns:
            Means (B, J, d); scores (B, J), the mean actionness times, if there are prototypes, the
            likeness to the class that is most alike; float32 (B, J, 1), 1 where a segment has any
            snippet.
        """
        means, seen = segment_means(y, mask, *self._grid)
        acting, _ = segment_means(actionness.unsqueeze(-1), mask, *self._grid)
        scores = acting.squeeze(-1)  # (B, J)
        if prototypes is not None:
            relevance = prototypes(means).max(dim=-1).values.sigmoid()  # (B, J)
            scores = prototypes.blended(scores, scores * relevance)
        return means, scores, seen


def _zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """Make a linear map that gives zeros at first, so that its module starts as the identity."""
    linear = nn.Linear(n_in, n_out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
