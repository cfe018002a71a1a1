"""The heads that `training.benchmarks.heads` times: those we ship, and a published peer's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from training.networks.base import BagBatch, Network, Scores
from training.networks.s2net import S2Net
from training.networks.s2net_config import S2NetConfig, light_config, paper_config

TWO_STREAM, RGB = 2048, 1024
PEER = "CoLA, re-stated"
# Medians in milliseconds at T = 320, 750 and 2000, of the official code in torch on two cores of
# another machine.
PUBLISHED_PEERS_MS: Mapping[str, tuple[int, int, int]] = {
    "CO2-Net": (65, 142, 362),
    "SAL": (52, 101, 225),
    "CoLA": (44, 106, 245),
    "TSC-Net": (341, 952, 2383),
    "DDG-Net": (148, 304, 1193),
}
PUBLISHED_SOURCE = "their own code in torch fp32, two cores of another machine"


class ColaHead(Network):
    """The layers of CoLA's head as it runs at test time, for its cost alone; it is never trained.

    It is a convolution of kernel 3 over 2048 channels, a ReLU, a convolution of kernel 1 to the
    classes, their sum as actionness, and a top-k mean over time: 12.63 M parameters. The published
    forward pass also sorts out hard and easy snippets, which only its loss needs. That is left
    out, in the peer's favour.

    Source: Zhang et al., CoLA (CVPR 2021), ``Actionness_Module`` of its published code.

    Args:
        feature_dim: D.
        n_classes: C.
    """

    _POOL_RATIO = 5

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(feature_dim, feature_dim, kernel_size=3, padding=1)
        self.classifier = nn.Conv1d(feature_dim, n_classes, kernel_size=1, bias=False)

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class."""
        embedded = self.embedding(features.transpose(1, 2)).relu()  # (B, D, T)
        cas = self.classifier(embedded).transpose(1, 2) * valid.unsqueeze(2)  # (B, T, C)
        actionness = cas.sum(dim=2)  # (B, T)
        k = torch.clamp_min(torch.scalar_tensor(features.shape[1]) // self._POOL_RATIO, 1)
        top = cas.sort(dim=1, descending=True).values
        is_top = (torch.arange(features.shape[1]) < k).to(cas.dtype)  # (T,)
        pooled = (top * is_top.view(1, -1, 1)).sum(dim=1) / k  # (B, C)
        return Scores(cas, actionness, pooled.softmax(dim=1), {})

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Refuse: there are no scalar terms (), because this head is never trained."""
        raise NotImplementedError


class Co2Head(Network):
    """The layers of CO2-Net's head, for its cost alone; it is never trained.

    Each modality is filtered by what the other one's convolution and its own mean say, and gives
    an attention; both together are fused and classified. A convolution that the published code
    makes and never calls is left out: 34.1 of 46.7 M parameters.

    Source: Hong et al., CO2-Net (ACM MM 2021), its published code.

    Args:
        feature_dim: D, of two modalities.
        n_classes: C.
    """

    _POOL_RATIO, _SLOPE = 7, 0.2

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        part, inner = feature_dim // 2, feature_dim // 4
        self._part = part
        self.filters = nn.ModuleList(nn.Conv1d(part, part, 3, padding=1) for _ in range(2))
        self.channels = nn.ModuleList(nn.Conv1d(part, part, 3, padding=1) for _ in range(2))
        self.attentions = nn.ModuleList(
            nn.Sequential(
                *self._layer(part, inner, 3, 0.5),
                *self._layer(inner, inner, 3, 0.0),
                nn.Conv1d(inner, 1, 1),
                nn.Sigmoid(),
            )
            for _ in range(2)
        )
        self.fusion = nn.Sequential(*self._layer(feature_dim, feature_dim, 1, 0.7))
        self.classifier = nn.Sequential(
            *self._layer(feature_dim, feature_dim, 3, 0.7),
            nn.Conv1d(feature_dim, n_classes + 1, 1),
        )

    def _layer(self, n_in: int, n_out: int, kernel: int, dropout: float) -> list[nn.Module]:
        convolution = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2)
        return [convolution, nn.LeakyReLU(self._SLOPE), nn.Dropout(dropout)]

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class."""
        halves = features.transpose(1, 2).split(self._part, dim=1)  # twice (B, D / 2, T)
        filtered, attended = [], []
        for number, own in enumerate(halves):
            gate = self.channels[number](own.mean(dim=2, keepdim=True))  # (B, D / 2, 1)
            gate = F.leaky_relu(gate, self._SLOPE)
            look = F.leaky_relu(self.filters[number](halves[1 - number]), self._SLOPE)
            filtered.append((F.dropout(look, 0.5, self.training) * gate).sigmoid() * own)
            attended.append(self.attentions[number](filtered[-1]))
        cas = self.classifier(self.fusion(torch.cat(filtered, dim=1))).transpose(1, 2)
        attention = (attended[0] + attended[1]).squeeze(1) / 2 * valid  # (B, T)
        k = max(features.shape[1] // self._POOL_RATIO, 1)
        pooled = (cas * attention.unsqueeze(2)).topk(k, dim=1).values.mean(dim=1)
        return Scores(cas[..., :-1], attention, pooled.softmax(dim=1)[:, :-1], {})

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Refuse: there are no scalar terms (), because this head is never trained."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Head:
    """One head to be timed.

    Attributes:
        name: Name of its row.
        feature_dim: D.
        build: ``build(feature_dim, n_classes)`` gives the network.
    """

    name: str
    feature_dim: int
    build: Callable[[int, int], Network]


def default_heads() -> tuple[Head, ...]:
    """Return the S2Nets that we ship, and the peer."""
    return (
        Head("S2Net light, RGB (live default)", RGB, _s2net(light_config())),
        Head("S2Net light, two-stream", TWO_STREAM, _s2net(light_config())),
        Head("S2Net paper, width 512", TWO_STREAM, _s2net(paper_config(width=512))),
        Head("S2Net paper, width 1024", TWO_STREAM, _s2net(paper_config(width=1024))),
        Head(PEER, TWO_STREAM, ColaHead),
    )


def _s2net(config: S2NetConfig) -> Callable[[int, int], Network]:
    def build(feature_dim: int, n_classes: int) -> Network:
        return S2Net(config, feature_dim=feature_dim, n_classes=n_classes)

    return build
