"""From features to embeddings: the light trunk and the two-modality filter.

B, T: sequences and positions; D, d: feature and embedding dimensions. ``mask`` is float32
(B, T, 1). Whatever a bias leaves where the mask is 0 is cleared before the next convolution
looks at it, so that padding is the same as the end of the sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from engine.errors import DataError
from training.networks.s2net_config import TrunkConfig
from training.networks.whitening import Whitening

_SLOPE = 0.2  # of the leaky rectifiers, as in CO2-Net


@dataclass(frozen=True, slots=True)
class Embedded:
    """A trunk's answer.

    Attributes:
        embedding: (B, T, d), zero where the mask is.
        attentions: Actionness (B, T) of each modality; none where the trunk learns none.
    """

    embedding: Tensor
    attentions: tuple[Tensor, ...]


class Convolution(nn.Module):
    """A convolution over time of channels-last values (B, T, D), same length."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        self.inner = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2)

    @override
    def forward(self, values: Tensor) -> Tensor:
        return self.inner(values.transpose(1, 2)).transpose(1, 2)


class LightTrunk(nn.Module):
    """Whitening, one convolution; actionness, if wanted, from one linear unit."""

    def __init__(self, config: TrunkConfig, feature_dim: int, *, actionness: bool) -> None:
        super().__init__()
        self.whitening = Whitening(feature_dim, config.whitening_dims)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.convolution = Convolution(self.whitening.n_dims, config.width, config.kernel)
        self.actionness = nn.Linear(config.width, 1) if actionness else None

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Embedded:
        whitened = self.input_dropout(self.whitening(features) * mask)
        embedding = self.convolution(whitened).relu() * mask
        if self.actionness is None:
            return Embedded(embedding, ())
        return Embedded(embedding, ((self.actionness(embedding).sigmoid() * mask).squeeze(-1),))


class CrossFilter(nn.Module):
    """One modality, filtered by what the other shows here and what it shows itself overall.

    m̂ = sigmoid(local(n) ⊙ global(mean_t m)) ⊙ m, then actionness from m̂.

    Source: Hong et al., CO2-Net (ACM MM 2021), cross-modal consensus module. Differences: no
    dropout before the sigmoid (it would force one half on dropped snippets), and the kernel-3
    convolution of the one mean position is the linear map that its centre tap is.
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
        """(B, T, D), (B, T, D), (B, T, 1) → filtered (B, T, D), actionness (B, T)."""
        mean = (main * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        local = self.rectify(self.local_map(other))
        overall = self.rectify(self.global_map(mean))
        filtered = torch.sigmoid(local * overall) * main * mask
        hidden = self.dropout(self.rectify(self.first(filtered))) * mask
        hidden = self.rectify(self.second(hidden))
        return filtered, (self.actionness(hidden).sigmoid() * mask).squeeze(-1)


class FilterTrunk(nn.Module):
    """Each modality filtered by the other, or the only one by itself; then one linear map.

    Raises:
        DataError: The features cannot be parted evenly.
    """

    def __init__(self, config: TrunkConfig, feature_dim: int) -> None:
        super().__init__()
        self.whitening = Whitening(feature_dim, config.whitening_dims)
        if self.whitening.n_dims % config.modalities:
            raise DataError(
                f"trunk.modalities is {config.modalities}, but {self.whitening.n_dims} feature"
                " dimensions cannot be parted so: set it to 1"
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
        whitened = self.whitening(features) * mask
        parts = [
            whitened[..., i * self._part : (i + 1) * self._part] for i in range(self._n_parts)
        ]
        pairs = zip(self.filters, parts, reversed(parts), strict=True)
        answers = [block(main, other, mask) for block, main, other in pairs]
        joined = torch.cat([filtered for filtered, _ in answers], dim=-1)
        embedding = self.dropout(self.rectify(self.join(joined))) * mask
        return Embedded(embedding, tuple(attention for _, attention in answers))


class LinearClassifier(nn.Module):
    """Dropout and one linear map to class logits."""

    def __init__(self, config: TrunkConfig, n_logits: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Linear(config.width, n_logits)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d) → (B, T, n_logits); the mask is not needed here."""
        del mask
        return self.logits(self.dropout(features))


class ConvolutionClassifier(nn.Module):
    """Two layers, the first over three snippets."""

    def __init__(self, config: TrunkConfig, n_logits: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = Convolution(config.width, config.width, 3)
        self.rectify = nn.LeakyReLU(_SLOPE)
        self.logits = nn.Linear(config.width, n_logits)
        start_evenly(self)

    @override
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d) → (B, T, n_logits)."""
        hidden = self.rectify(self.hidden(self.dropout(features * mask)))
        return self.logits(self.dropout(hidden))


def start_evenly(module: nn.Module) -> None:
    """Kaiming-uniform weights, zero biases: CO2-Net's start."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            nn.init.kaiming_uniform_(part.weight)
            nn.init.zeros_(part.bias)
