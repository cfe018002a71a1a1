"""Normalization that every runtime computes."""

import torch
from torch import Tensor, nn
from typing_extensions import override


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the last axis, in sums and products.

    OpenVINO 2026's own kernel for it reads beyond a row on CPUs whose widest vectors are AVX2's,
    unless the width is a multiple of 16, and ends the process. It takes nothing here for that.
    """

    @override
    def forward(self, values: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        width = values.shape[-1]
        centred = values - values.sum(-1, keepdim=True) / width
        variance = (centred * centred).sum(-1, keepdim=True) / width
        return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias
