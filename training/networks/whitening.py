"""PCA whitening, fitted once on the training snippets and kept in the network."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from engine.errors import DataError

# Directions weaker than this share of the strongest hold rounding noise and no features, so they
# are not blown up to unit variance.
_FLOOR = 1e-6


class Whitening(nn.Module):
    """It projects D features on the k strongest directions, each scaled to unit variance.

    Args:
        feature_dim: D.
        n_dims: k; 0 leaves the features as they are.

    Raises:
        DataError: More directions are asked for than there are features.
    """

    def __init__(self, feature_dim: int, n_dims: int) -> None:
        super().__init__()
        if not 0 <= n_dims <= feature_dim:
            raise DataError(
                f"trunk.whitening_dims is {n_dims}, but the features have {feature_dim}"
                f" dimensions: take 0 (no whitening) to {feature_dim}"
            )
        self._is_used = n_dims > 0
        self.n_dims = n_dims or feature_dim
        self.register_buffer("mean", torch.zeros(feature_dim if n_dims else 0))
        self.register_buffer("matrix", torch.eye(feature_dim, n_dims))

    def fit(self, rows: Tensor) -> None:
        """Take mean and directions from ``rows`` float32 (N, D).

        Raises:
            DataError: There are fewer than two rows.
        """
        if not self._is_used:
            return
        if len(rows) < 2:  # noqa: PLR2004 - a variance needs two
            raise DataError(f"whitening needs 2 or more training snippets, there are {len(rows)}")
        exact = rows.double()
        mean = exact.mean(dim=0)  # (D,)
        covariance = (exact - mean).T @ (exact - mean) / (len(rows) - 1)  # (D, D)
        values, vectors = torch.linalg.eigh(covariance)  # rising: (D,), columns of (D, D)
        # The k strongest come first: (k,), (D, k).
        values, vectors = values.flip(0)[: self.n_dims], vectors.flip(1)[:, : self.n_dims]
        # An eigenvector's sign differs between libraries, so the largest entry is made positive.
        largest = vectors.abs().argmax(dim=0)  # (k,)
        vectors = vectors * vectors.gather(0, largest.unsqueeze(0)).sign()
        scale = values.clamp(min=max(float(values[0]) * _FLOOR, 1e-12)).rsqrt()  # (k,)
        self.mean.copy_(mean.to(self.mean.dtype))
        self.matrix.copy_((vectors * scale).to(self.matrix.dtype))

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Whiten (B, T, D) to (B, T, k)."""
        return (features - self.mean) @ self.matrix if self._is_used else features
