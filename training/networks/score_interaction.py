"""Temporal interaction at the level of class scores: the light form of STA and LTA.

STA and LTA are short-term and long-term attention, see `training.networks.feature_interaction`.
Positions that look alike share their class logits; the embeddings stay as they are. On short
tagged clips this gains a point of mAP where interaction of embeddings costs five or more.

B, T: sequences and positions; d: embedding dimensions; k: dimensions of a key; C: logits, the
background's among them; K: offsets; J: segments; R: segments attended to.
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
from training.networks.s2net_config import InteractionConfig

_SHARPNESS = 5.0  # factor of a cosine before the softmax
# Logits of the shares of the snippet's own score, of STA and of LTA before anything is learned.
_OWN, _SHORT, _LONG = 1.0, 0.0, -1.0


class ScoreInteraction(nn.Module):
    """S' = β₀ S + β₁ A S + β₂ L S; the βs are a softmax over the parts in use.

    With keys e = unit(W u), A_ts ∝ exp(5 cos(e_t, e_s) + b_{s-t}) within windows. L_tj ∝
    exp(5 cos(e_t, e_j)) reads the best segments j, whose keys and logits are means.

    Args:
        config: It says which parts are in use.
        width: d of the embeddings u.
        is_background_last: Whether the last logit is the background's, which picks no segment.
        ahead: STA looks at most so many snippets ahead, and further back instead; None: as far
            ahead as back.
    """

    def __init__(
        self,
        config: InteractionConfig,
        width: int,
        *,
        is_background_last: bool,
        ahead: int | None = None,
    ) -> None:
        super().__init__()
        self._config, self._ahead = config, ahead
        self._is_background_last = is_background_last
        starts = [_OWN] + [_SHORT] * config.sta + [_LONG] * config.lta
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.keys = nn.Linear(width, config.key_dims, bias=False)
        if config.sta:
            self.offset_bias = nn.Parameter(torch.zeros(len(offsets_of(config.windows, ahead))))
            self.window_mixture = nn.Parameter(torch.zeros(len(config.windows)))
        self.fusion = nn.Linear(width, len(starts)) if config.fusion else None
        if self.fusion is not None:
            nn.init.zeros_(self.fusion.weight)
            nn.init.zeros_(self.fusion.bias)

    @override
    def forward(self, features: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        """Mix logits of positions that look alike.

        Args:
            features: u, (B, T, d).
            logits: S, (B, T, C).
            mask: float32 (B, T, 1), 1 where valid.

        Returns:
            S', (B, T, C).
        """
        keys = F.normalize(self.keys(features), dim=-1)  # (B, T, k)
        parts = [logits]
        if self._config.sta:
            parts.append(self._short_term(keys, logits, mask))
        if self._config.lta:
            parts.append(self._long_term(keys, logits, mask))
        learned = 0.0 if self.fusion is None else self.fusion(features)
        shares = (learned + self.starts).softmax(dim=-1)  # (B, T, parts) or, if fixed, (parts,)
        mixed = [shares[..., i : i + 1] * part for i, part in enumerate(parts)]
        return torch.stack(mixed).sum(dim=0)

    def _short_term(self, keys: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        """Compute A S of keys (B, T, k), logits (B, T, C) and mask (B, T, 1): (B, T, C)."""
        offsets = offsets_of(self._config.windows, self._ahead)
        # K times (B, T).
        near = [(keys * other).sum(dim=-1) for other in shifted_copies(keys, offsets)]
        scores = _SHARPNESS * torch.stack(near, dim=2) + self.offset_bias  # (B, T, K)
        weights = window_weights(  # (B, T, K, 1)
            scores.unsqueeze(-1), mask, self._config.windows, self.window_mixture, self._ahead
        )
        moved = torch.stack(shifted_copies(logits * mask, offsets), dim=2)  # (B, T, K, C)
        return (weights * moved).sum(dim=2)

    def _long_term(self, keys: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        """Compute L S of keys (B, T, k), logits (B, T, C) and mask (B, T, 1): (B, T, C)."""
        grid = (self._config.segment_snippets, self._config.max_segments)
        segment_keys, seen = segment_means(keys, mask, *grid)  # (B, J, k), (B, J, 1)
        segment_logits, _ = segment_means(logits, mask, *grid)  # (B, J, C)
        classes = segment_logits[..., :-1] if self._is_background_last else segment_logits
        best = top_segments(classes.max(dim=-1).values.sigmoid(), seen, grid[1])
        tokens = F.normalize(best.chosen(segment_keys), dim=-1)  # (B, R, k)
        near = _SHARPNESS * keys @ tokens.transpose(1, 2)  # (B, T, R)
        kept = best.kept.unsqueeze(1)  # (B, 1, R)
        weights = (near * kept + OUT * (1 - kept)).softmax(dim=-1) * kept
        return weights @ best.chosen(segment_logits)
