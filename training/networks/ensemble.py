"""Several trained networks as one: the mean of their scores. It is exported, and never trained."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from training.networks.base import BagBatch, Network, Scores, masked


class Ensemble(Network):
    """Its ``cas`` is the mean of its members' class activation times their actionness.

    ``attention`` is 1 where valid, for it is in there already. ``video_scores`` are means too.

    Args:
        members: Trained networks of the same features and classes.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @override
    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Score features (B, T, D) under valid (B, T); see the base class."""
        found = [member(features, valid) for member in self.members]
        cas = torch.stack([one.cas * one.attention.unsqueeze(-1) for one in found]).mean(dim=0)
        attention = masked(torch.ones_like(found[0].attention), valid)
        video_scores = torch.stack([one.video_scores for one in found]).mean(dim=0)
        return Scores(cas, attention, video_scores, {})

    @override
    def losses(self, scores: Scores, batch: BagBatch, step: int) -> dict[str, Tensor]:
        """Refuse: there are no scalar terms (), because each member was trained by itself."""
        raise NotImplementedError
