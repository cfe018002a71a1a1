"""What the trainer, the exporter and the tests know of a network."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import override


@dataclass(frozen=True, slots=True)
class BagBatch:
    """Sequences of snippets whose tags are known by the bag, not by the snippet.

    A bag is one tagged video or clip. A sequence holds one bag, or several clips end to end.

    Attributes:
        features: float32 (B, T, D), minus the camera's mean; zero where not valid.
        valid: bool (B, T), False on padding.
        bags: int64 (B, T), the bag each position belongs to, 0..N-1; -1 on padding.
        tags: float32 (N, C), 1 where the bag's tags name the class.
        targets: float32 (B, T, C) pseudo labels of a second round, or None.
    """

    features: Tensor
    valid: Tensor
    bags: Tensor
    tags: Tensor
    targets: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A network's answer.

    Attributes:
        cas: float32 (B, T, C), class activation sequence, in [0, 1]; 0 where not valid.
        attention: float32 (B, T), actionness, in [0, 1]; 0 where not valid.
        video_scores: float32 (B, C), in [0, 1], of each sequence as a whole.
        parts: What the network's own losses need besides, by name.
    """

    cas: Tensor
    attention: Tensor
    video_scores: Tensor
    parts: dict[str, Tensor]


class Network(nn.Module, ABC):
    """One row of the table ``NETWORKS``.

    ``forward`` must be traceable by ``torch.onnx.export`` with dynamic B and T (eval mode), and
    an answer must not depend on what lies at positions that are not valid, nor on the other
    sequences of the batch.
    """

    def fit_input(self, rows: Tensor) -> None:
        """Fit what is fitted once, before training: whitening, for those that have one.

        Args:
            rows: float32 (N, D), the training snippets minus their cameras' means.
        """

    @override
    @abstractmethod
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Features float32 (B, T, D) minus the camera mean, valid float32 or bool (B, T)."""

    @abstractmethod
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is the objective of this step (0 is the first)."""

    def after_step(self, scores: Scores, batch: BagBatch, step: int) -> None:
        """What is updated without a gradient, after the optimiser's step: prototypes."""


def masked(values: Tensor, valid: Tensor) -> Tensor:
    """``values`` (B, T, ...) with zeros where ``valid`` (B, T) is not."""
    mask = valid.to(values.dtype)
    return values * mask.reshape(mask.shape + (1,) * (values.dim() - 2))
