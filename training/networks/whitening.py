"""PCA whitening, fitted once on the training snippets and kept in the network.

Few videos say little about weak directions: what varies there is mostly their own scenery. Plain
whitening blows it up to the size of the strongest, and a network learns it by heart. So each
direction is also weighed by how far it can be trusted. n videos without anything in common spread
their total variance over some n directions, a share s of an n-th in each. A direction of variance
v is weighed by v / (v + s), the gain of a Wiener filter for a signal of v in noise of s. With many
videos s goes to 0, and it is plain whitening again.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from engine.errors import DataError

# Directions weaker than this share of the strongest hold rounding noise and no features, so they
# are not blown up to unit variance.
_FLOOR = 1e-6


class Whitening(nn.Module):
    """It projects D features on the k strongest directions, at unit variance and then weighed.

    The weight of a direction of variance v is v / (v + s), divided by the root mean square of all
    k such weights: the mean variance is 1, and what follows gets values of one size whatever s is.

    Args:
        feature_dim: D.
        n_dims: k; 0 leaves the features as they are.
        shrink: s in units of the features' total variance divided by the number of videos; 0 is
            plain whitening.

    Raises:
        DataError: More directions are asked for than there are features.
    """

    def __init__(self, feature_dim: int, n_dims: int, shrink: float = 0.0) -> None:
        super().__init__()
        if not 0 <= n_dims <= feature_dim:
            raise DataError(
                f"trunk.whitening_dims is {n_dims}, but the features have {feature_dim}"
                f" dimensions: take 0 (no whitening) to {feature_dim}"
            )
        self._is_used = n_dims > 0
        self._shrink = shrink
        self.n_dims = n_dims or feature_dim
        self.register_buffer("mean", torch.zeros(feature_dim if n_dims else 0))
        self.register_buffer("matrix", torch.eye(feature_dim, n_dims))

    def fit(self, rows: Tensor, n_videos: int) -> None:
        """Take mean and directions from ``rows`` float32 (N, D) of ``n_videos`` videos.

        It is videos that are counted, for snippets of one video are much alike.

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
        share = self._shrink * float(values.clamp(min=0).sum()) / n_videos
        # The k strongest come first: (k,), (D, k).
        values, vectors = values.flip(0)[: self.n_dims], vectors.flip(1)[:, : self.n_dims]
        # An eigenvector's sign differs between libraries, so the largest entry is made positive.
        largest = vectors.abs().argmax(dim=0)  # (k,)
        vectors = vectors * vectors.gather(0, largest.unsqueeze(0)).sign()
        values = values.clamp(min=max(float(values[0]) * _FLOOR, 1e-12))
        gains = values / (values + share)  # (k,)
        scale = values.rsqrt() * gains / (gains**2).mean().sqrt()  # (k,)
        self.mean.copy_(mean.to(self.mean.dtype))
        self.matrix.copy_((vectors * scale).to(self.matrix.dtype))

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Whiten (B, T, D) to (B, T, k)."""
        return (features - self.mean) @ self.matrix if self._is_used else features
