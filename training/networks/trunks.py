"""From features to embeddings: the light trunk and the two-modality filter.

B, T: sequences and positions; D, d: feature and embedding dimensions; k: dimensions after
whitening. ``mask`` is float32 (B, T, 1), 1 where valid. Whatever a bias leaves where the mask is
0 is cleared before the next convolution looks at it, so that padding is the same as the end of
the sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from training.networks.s2net_config import TrunkConfig
from training.networks.whitening import Whitening

_SLOPE = 0.2  # of the leaky rectifiers, as in CO2-Net


@dataclass(frozen=True, slots=True)
class Embedded:
    """A trunk's answer.

    Attributes:
        embedding: (B, T, d), zero where the mask is.
        attentions: The actionness (B, T) of each modality; empty if the trunk learns none.
    """

    embedding: Tensor
    attentions: tuple[Tensor, ...]


class Convolution(nn.Module):
    """A convolution over time of channels-last values; the length stays as it is.

    Args:
        n_in: Values a position.
        n_out: Values a position of the answer.
        kernel: Number of positions that one answer sees, odd.
        causal: False sees as many later positions as earlier ones, True only earlier ones.
        ahead: See so many later positions, and the rest of the kernel earlier; None: as
            ``causal`` says.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int, *, causal: bool = False, ahead: int | None = None
    ) -> None:
        super().__init__()
        later = 0 if causal and ahead is None else ahead
        is_centred = later is None
        self._pads = (0, 0) if later is None else (kernel - 1 - later, later)
        self.inner = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2 if is_centred else 0)

    @override
    def forward(self, values: Tensor) -> Tensor:
        """Convolve (B, T, n_in) to (B, T, n_out)."""
        channels = values.transpose(1, 2)  # (B, n_in, T)
        if any(self._pads):
            channels = F.pad(channels, self._pads)
        return self.inner(channels).transpose(1, 2)


class LightTrunk(nn.Module):
    """Whitening and one convolution; one linear unit gives the actionness, if it is wanted."""

    def __init__(self, config: TrunkConfig, feature_dim: int, *, actionness: bool) -> None:
        super().__init__()
        self.whitening = Whitening(feature_dim, config.whitening_dims, config.whitening_shrink)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.convolution = Convolution(self.whitening.n_dims, config.width, config.kernel)
        self.actionness = nn.Linear(config.width, 1) if actionness else None

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Embedded:
        """Embed features (B, T, D) under a mask (B, T, 1)."""
        whitened = self.input_dropout(self.whitening(features) * mask)  # (B, T, k)
        embedding = self.convolution(whitened).relu() * mask  # (B, T, d)
        if self.actionness is None:
            return Embedded(embedding, ())
        return Embedded(embedding, ((self.actionness(embedding).sigmoid() * mask).squeeze(-1),))


class CrossFilter(nn.Module):
    """One modality m, filtered by what the other, n, shows here and what m shows overall.

    m̂ = sigmoid(local(n) ⊙ global(mean_t m)) ⊙ m; the actionness comes from m̂.

    Source: Hong et al., CO2-Net (ACM MM 2021), cross-modal consensus module. It differs in two
    things. There is no dropout before the sigmoid, which would force one half on dropped
    snippets. The kernel-3 convolution of the one mean position is a linear map, because only its
    centre tap sees anything.
    """

    def __init__(self, feature_dim: int, dropout: float) -> None:
        super().__init__()
        self.local_map = Convolution(feature_dim, feature_dim, 3)
        self.global_map = nn.Linear(feature_dim, feature_dim)
        width = max(feature_dim // 2, 1)  # 512 for I3D
        self.first = Convolution(feature_dim, width, 3)
        self.second = Convolution(width, width, 3)
        self.actionness = nn.Linear(width, 1)
        self.rectify = nn.LeakyReLU(_SLOPE)
        self.dropout = nn.Dropout(dropout)

    @override
    def forward(self, main: Tensor, other: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Filter ``main`` (B, T, D) by ``other`` (B, T, D); D is one modality's part here.

        Returns:
            m̂ (B, T, D) and its actionness (B, T).
        """
        # The mean over time is (B, 1, D).
        mean = (main * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        local = self.rectify(self.local_map(other))  # (B, T, D)
        overall = self.rectify(self.global_map(mean))  # (B, 1, D)
        filtered = torch.sigmoid(local * overall) * main * mask  # (B, T, D)
        hidden = self.dropout(self.rectify(self.first(filtered))) * mask  # (B, T, D / 2)
        hidden = self.rectify(self.second(hidden))
        return filtered, (self.actionness(hidden).sigmoid() * mask).squeeze(-1)


class FilterTrunk(nn.Module):
    """It filters each modality by the other, or the only one by itself; a linear map follows.

    Raises:
        DataError: The features cannot be parted evenly.
    """

    def __init__(self, config: TrunkConfig, feature_dim: int) -> None:
        super().__init__()
        self.whitening = Whitening(
            feature_dim, config.whitening_dims, config.whitening_shrink, config.modalities
        )
        self._part = self.whitening.n_dims // config.modalities
        self._n_parts = config.modalities
        self.filters = nn.ModuleList(
            CrossFilter(self._part, config.input_dropout) for _ in range(config.modalities)
        )
        self.join = nn.Linear(self.whitening.n_dims, config.width)
        self.rectify = nn.LeakyReLU(_SLOPE)
        self.dropout = nn.Dropout(config.dropout)
        start_evenly(self)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Embedded:
        """Embed features (B, T, D) under a mask (B, T, 1)."""
        whitened = self.whitening(features) * mask  # (B, T, k)
        parts = [  # (B, T, k / modalities) each
            whitened[..., i * self._part : (i + 1) * self._part] for i in range(self._n_parts)
        ]
        pairs = zip(self.filters, parts, reversed(parts), strict=True)
        answers = [block(main, other, mask) for block, main, other in pairs]
        joined = torch.cat([filtered for filtered, _ in answers], dim=-1)  # (B, T, k)
        embedding = self.dropout(self.rectify(self.join(joined))) * mask  # (B, T, d)
        return Embedded(embedding, tuple(attention for _, attention in answers))


class LinearClassifier(nn.Module):
    """Dropout and one linear map to class logits."""

    def __init__(self, config: TrunkConfig, n_logits: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Linear(config.width, n_logits)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Classify (B, T, d) to (B, T, n_logits); the mask is not needed here."""
        del mask
        return self.logits(self.dropout(features))


class ConvolutionClassifier(nn.Module):
    """Two layers to class logits; the first one sees three snippets, or the three latest.

    Args:
        width: d.
        n_logits: The number of classes, and of a background if there is one.
        dropout: Share dropped before each layer.
        causal: Whether it sees no later snippets.
    """

    def __init__(self, width: int, n_logits: int, dropout: float, *, causal: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = Convolution(width, width, 3, causal=causal)
        self.rectify = nn.LeakyReLU(_SLOPE)
        self.logits = nn.Linear(width, n_logits)
        start_evenly(self)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Classify (B, T, d) to (B, T, n_logits) under a mask (B, T, 1)."""
        hidden = self.rectify(self.hidden(self.dropout(features * mask)))
        return self.logits(self.dropout(hidden))


def start_evenly(module: nn.Module) -> None:
    """Draw Kaiming-uniform weights and set biases to zero, as CO2-Net starts."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            nn.init.kaiming_uniform_(part.weight)
            nn.init.zeros_(part.bias)
