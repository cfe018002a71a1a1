"""Potential actions and backgrounds: ambiguous snippets that are drawn to what they resemble.

Snippets whose actionness says clearly that they act, or that they rest, are discriminative. Of
those in between, the ones that resemble the discriminative action most, and not the background,
are potential action; the ones that do so least, potential background. A contrast draws each to
its kind and away from the other's.

N, L: bags and their positions; D: dimensions of an embedding; M: modalities.

Source: our reading of SDANet's potential feature mining (IEEE TMM 2025,
10.1109/TMM.2025.3535336), of which only the abstract is known to us. The contrast is CoLA's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from training.networks.snippet_losses import highest, snippet_contrast, top_places

_CLEAR = 8  # one of so many snippets of a bag is discriminative action, as many are background
_POTENTIAL = 20  # and one of so many potential action, if there are enough ambiguous ones
_MIDDLE = 0.5  # share of a bag around its median actionness that is ambiguous
_AGREED = 0.5  # modalities on two sides of it disagree


@dataclass(frozen=True, slots=True)
class Mined:
    """Four disjoint sets of snippets, bool (N, L) each."""

    action: Tensor
    background: Tensor
    potential_action: Tensor
    potential_background: Tensor


def mined(embedding: Tensor, actionness: Tensor, each: Tensor, valid: Tensor) -> Mined:
    """Sort the snippets of bags.

    Args:
        embedding: (N, L, D).
        actionness: (N, L), in [0, 1].
        each: That of each modality, (N, L, M).
        valid: bool (N, L).

    Returns:
        The sets; none of them has a gradient.
    """
    counts = valid.sum(dim=1, keepdim=True)  # (N, 1)
    clear = (counts // _CLEAR).clamp(min=1)
    action = highest(actionness, valid, clear)
    background = highest(-actionness, valid & ~action, clear)
    median = actionness.detach().masked_fill(~valid, torch.nan).nanmedian(dim=1, keepdim=True)
    near = top_places(-(actionness - median.values).abs(), valid, _MIDDLE)
    disagree = (each.amin(dim=-1) < _AGREED) & (each.amax(dim=-1) > _AGREED)
    ambiguous = valid & (near | disagree) & ~action & ~background
    units = F.normalize(embedding.detach(), dim=-1)
    likeness = _near(units, action) - _near(units, background)  # (N, L)
    wanted = (counts // _POTENTIAL).clamp(min=1)
    potential_action = highest(likeness, ambiguous, wanted)
    rest = ambiguous & ~potential_action
    return Mined(action, background, potential_action, highest(-likeness, rest, wanted))


def potential_loss(
    embedding: Tensor, sets: Mined, is_tagged: Tensor, temperature: float
) -> Tensor:
    """Contrast potential with discriminative snippets.

    Args:
        embedding: (N, L, D); the gradient flows through all of the sets.
        sets: Of ``mined``.
        is_tagged: bool (N,); in bags without a tag nothing acts, so nothing is contrasted.
        temperature: Of the contrast.

    Returns:
        The mean over tagged bags that have a potential snippet, action and background added; a
        scalar ().
    """
    pairs = (
        (sets.potential_action, sets.action, sets.background),
        (sets.potential_background, sets.background, sets.action),
    )
    total = embedding.sum() * 0  # a zero that the graph knows: backward() works
    for potential, kind, other in pairs:
        query, key = _mean(embedding, potential), _mean(embedding, kind)  # (N, D)
        costs = snippet_contrast(query, key, embedding, other, temperature)  # (N,)
        counts = (is_tagged & potential.any(dim=1)).to(costs.dtype)
        total = total + (costs * counts).sum() / counts.sum().clamp(min=1)
    return total


def _mean(embedding: Tensor, chosen: Tensor) -> Tensor:
    """Average the chosen (N, L) of (N, L, D): (N, D)."""
    share = chosen.to(embedding.dtype)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("nl,nld->nd", share, embedding)


def _near(units: Tensor, chosen: Tensor) -> Tensor:
    """Return the cosine of each of (N, L, D) with the mean of the chosen: (N, L)."""
    return torch.einsum("nld,nd->nl", units, F.normalize(_mean(units, chosen), dim=-1))
