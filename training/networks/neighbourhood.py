"""What both forms of temporal interaction need: shifted copies, masks and segments.

B, T: sequences and positions; D: values a position; K: offsets -h..h; H: heads; J: segments;
R: segments attended to. Everything here can be traced with dynamic B and T. That is why there is
no ``zeros_like`` and the like, which the exporter may freeze at the traced shape.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

OUT = -1e4  # a masked logit; finite in half precision too, or an all-masked row would give NaN
EARLIER = 2.0**-20  # of scores in [0, 1]: what a segment loses to the one before it


def offsets_of(windows: tuple[int, ...], ahead: int | None = None) -> range:
    """Return every offset that the widest window holds, earliest first.

    Args:
        windows: Widths in snippets, odd.
        ahead: A window looks at most so many snippets ahead, and as many more back as it cannot
            look ahead; None: as far ahead as back.
    """
    widest = max(windows)
    back = _shift(widest, ahead) + widest // 2
    return range(-back, widest - back)


def _shift(window: int, ahead: int | None) -> int:
    """How many snippets a window lies further back than one that is centred."""
    return 0 if ahead is None else max(window // 2 - ahead, 0)


def shifted(values: Tensor, offset: int) -> Tensor:
    """Shift (B, T, D): position t then holds what lies at t + offset, zero beyond the ends."""
    return shifted_copies(values, range(offset, offset + 1))[0]


def shifted_copies(values: Tensor, offsets: range) -> list[Tensor]:
    """Return ``values`` (B, T, D) once for each offset, shifted by it.

    It takes one padding and K slices, which needs K times less memory than unfolding, and is
    plain in ONNX.
    """
    before, after = max(-offsets[0], 0), max(offsets[-1], 0)
    padded = F.pad(values, (0, 0, before, after))  # (B, before + T + after, D)
    length = values.shape[1]
    return [padded[:, before + offset : before + offset + length] for offset in offsets]


def window_weights(
    logits: Tensor,
    mask: Tensor,
    windows: tuple[int, ...],
    mixture: Tensor,
    ahead: int | None = None,
) -> Tensor:
    """Take a softmax over each window's neighbours, then the windows' weighted mean.

    Args:
        logits: (B, T, K, H), one for each offset of the widest window.
        mask: float32 (B, T, 1), 1 where valid.
        windows: Widths in snippets.
        mixture: (len(windows),), logits of the windows' shares.
        ahead: As of ``offsets_of``.

    Returns:
        (B, T, K, H), summing to 1 over K wherever any neighbour is valid.
    """
    offsets = offsets_of(windows, ahead)
    seen = torch.stack(shifted_copies(mask, offsets), dim=2)  # (B, T, K, 1)
    shares = mixture.softmax(dim=0)
    mixed = []
    for index, window in enumerate(windows):
        middle = -_shift(window, ahead)
        distances = torch.tensor([abs(at - middle) for at in offsets], device=logits.device)
        near = (distances <= window // 2).to(mask.dtype).reshape(1, 1, -1, 1)  # (1, 1, K, 1)
        held = seen * near  # (B, T, K, 1)
        weights = (logits * held + OUT * (1 - held)).softmax(dim=2) * held  # (B, T, K, H)
        mixed.append(shares[index] * weights)
    return torch.stack(mixed).sum(dim=0)


@dataclass(frozen=True, slots=True)
class Segments:
    """The top-r segments of each sequence.

    Attributes:
        places: int64 (B, R), their indices; R is fixed, so that the number can be traced.
        kept: float32 (B, R), 1 for those that count: r = min(R, max(2, valid segments // 4)).
    """

    places: Tensor
    kept: Tensor

    def chosen(self, values: Tensor) -> Tensor:
        """Pick these segments' rows: (B, J, D) → (B, R, D)."""
        return values.gather(1, self.places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def segment_means(
    values: Tensor, mask: Tensor, length: int, max_segments: int
) -> tuple[Tensor, Tensor]:
    """Average consecutive positions to segments.

    A constant padding makes any T give at least ``max_segments`` segments.

    Args:
        values: (B, T, D).
        mask: float32 (B, T, 1), 1 where valid.
        length: g, the positions of one segment.
        max_segments: R.

    Returns:
        Means of valid positions (B, J, D), and float32 (B, J, 1): 1 where a segment has any.
    """
    extra = length * max_segments
    padded = F.pad(torch.cat([values * mask, mask], dim=-1), (0, 0, 0, extra))
    means = F.avg_pool1d(padded.transpose(1, 2), length, length).transpose(1, 2)  # (B, J, D + 1)
    share = means[..., -1:]  # (B, J, 1), how much of a segment is valid
    return means[..., :-1] / share.clamp(min=1 / (2 * length)), (share > 0).to(mask.dtype)


def top_segments(scores: Tensor, seen: Tensor, max_segments: int) -> Segments:
    """Choose the best segments of each sequence; of equal ones the earlier.

    Args:
        scores: (B, J) in [0, 1]; J is at least ``max_segments``.
        seen: float32 (B, J, 1), 1 where a segment has any snippet.
        max_segments: R.

    Source: the top-r selection of S2Net; the rule for r is ours.
    """
    exists = seen.squeeze(-1)  # (B, J)
    # Where no prototype answers, scores are equal, and every runtime has its own order of those.
    places = torch.cumsum(exists * 0 + 1, dim=1) - 1  # (B, J): 0, 1, 2 … in any traced length
    ranked = scores * exists - (1 - exists) - EARLIER * places
    best = ranked.topk(max_segments, dim=1)  # (B, R)
    count = exists.sum(dim=1, keepdim=True)
    wanted = torch.minimum(torch.floor(count / 4).clamp(min=2), count)  # r, (B, 1)
    ranks = torch.arange(max_segments, device=scores.device)
    return Segments(best.indices, (ranks < wanted).to(scores.dtype))
