"""What the trainer, the exporter and the tests know of a network."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import override

from engine.errors import DataError


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
        points: bool (B, T, C), true where somebody clicked the class, or None if nobody did.
    """

    features: Tensor
    valid: Tensor
    bags: Tensor
    tags: Tensor
    targets: Tensor | None = None
    points: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a network answers for a batch of B sequences of T snippets.

    Attributes:
        cas: float32 (B, T, C), the class activation sequence, in [0, 1]; 0 where not valid.
        attention: float32 (B, T), the actionness, in [0, 1]; 0 where not valid.
        video_scores: float32 (B, C), in [0, 1], one score a class for each sequence as a whole.
        parts: Other tensors that the network's own losses need, by name.
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

    def fit_input(self, rows: Tensor, tags: Tensor, n_videos: int) -> None:
        """Fit what is fitted once, before the first step: a whitening, or the classes' means.

        Args:
            rows: float32 (N, D), the training snippets minus their cameras' means.
            tags: float32 (N, C), 1 where the video that a row is from is tagged with the class.
            n_videos: Number of videos that the rows are from.
        """

    @override
    @abstractmethod
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score every snippet for every class.

        Args:
            features: float32 (B, T, D), minus the camera mean.
            valid: float32 or bool (B, T), 1 where there is a snippet.
        """

    @abstractmethod
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Return the weighted loss terms by name; a training step minimises their sum.

        Args:
            scores: What ``forward`` gave for the batch.
            batch: The batch.
            step: Number of the step, from 0.

        Returns:
            Name → scalar tensor ().
        """

    def after_step(self, scores: Scores, batch: BagBatch, step: int) -> None:
        """Update what learns without a gradient, such as prototypes, after the optimiser's step.

        Args:
            scores: What ``forward`` gave for the batch.
            batch: The batch.
            step: Number of the step, from 0.
        """


def part_of(feature_dim: int, modalities: int) -> int:
    """Each modality's share of the feature dimensions.

    Raises:
        DataError: They cannot be parted evenly.
    """
    if feature_dim % modalities:
        raise DataError(
            f"modalities is {modalities}, but {feature_dim} feature dimensions cannot be parted "
            "so: set it to 1"
        )
    return feature_dim // modalities


def masked(values: Tensor, valid: Tensor) -> Tensor:
    """Return ``values`` (B, T, ...) with zeros where ``valid`` (B, T) is false."""
    mask = valid.to(values.dtype)
    return values * mask.reshape(mask.shape + (1,) * (values.dim() - 2))  # (B, T, 1, ...)
