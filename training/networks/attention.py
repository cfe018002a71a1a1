"""Attention with several heads, and what a snippet may attend to.

B, T: sequences and positions; K: positions attended to; e: dimensions; H: heads.
"""

import torch
from torch import Tensor, nn

from training.networks.neighbourhood import OUT


def visible(mask: Tensor, *, causal: bool) -> Tensor:
    """Return which positions each may attend to: all that are valid, or the earlier of them.

    Args:
        mask: float32 (B, T, 1), 1 where valid.
        causal: Whether those that come later are left out.

    Returns:
        float32 (B, 1, 1 or T, T), 1 where allowed.
    """
    allowed = mask.transpose(1, 2)  # (B, 1, T)
    if causal:
        places = torch.cumsum(mask.squeeze(-1) * 0 + 1, dim=1)  # (B, T): 1, 2, 3 …, traceable
        earlier = places.unsqueeze(2) >= places.unsqueeze(1)  # (B, T, T)
        allowed = allowed * earlier.to(mask.dtype)
    return allowed.unsqueeze(1)


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    *,
    allowed: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: nn.Module | None = None,
) -> Tensor:
    """Attend, with logits scaled by 1 / √(width of a head).

    Args:
        query: (B, T, e).
        key: (B or 1, K, e).
        value: (B or 1, K, e or another width).
        heads: H, a divisor of both widths.
        allowed: float (B, 1, T or 1, K), 1 where a query may look; None: everywhere.
        bias: (B, 1, T or 1, K), added to the logits.
        dropout: Of the weights.

    Returns:
        (B, T, width of a value); 0 where a query may look at nothing.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    logits = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5  # (B, H, T, K)
    if bias is not None:
        logits = logits + bias
    if allowed is not None:
        logits = logits * allowed + OUT * (1 - allowed)
    weights = logits.softmax(dim=-1)
    if allowed is not None:
        weights = weights * allowed
    weights = weights if dropout is None else dropout(weights)
    return (weights @ v).transpose(1, 2).flatten(2)
