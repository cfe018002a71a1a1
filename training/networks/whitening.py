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
from training.networks.base import part_of

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
        n_parts: The features are so many parts of one width side by side, such as modalities, and
            each is whitened by itself: the j-th n_parts-th of the answer comes from the j-th part.

    Raises:
        DataError: More directions are asked for than there are features, or they cannot be parted.
    """

    def __init__(
        self, feature_dim: int, n_dims: int, shrink: float = 0.0, n_parts: int = 1
    ) -> None:
        super().__init__()
        if not 0 <= n_dims <= feature_dim:
            raise DataError(
                f"trunk.whitening_dims is {n_dims}, but the features have {feature_dim}"
                f" dimensions: take 0 (no whitening) to {feature_dim}"
            )
        part_of(feature_dim, n_parts)
        self._n_own = part_of(n_dims or feature_dim, n_parts)
        self._is_used = n_dims > 0
        self._n_parts = n_parts
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
        parts = zip(
            rows.double().chunk(self._n_parts, dim=1),
            self.mean.chunk(self._n_parts),
            self.matrix.chunk(self._n_parts, dim=0),
            strict=True,
        )
        for index, (exact, mean, matrix) in enumerate(parts):
            own_mean, own_matrix = _directions(exact, self._n_own, self._shrink, n_videos)
            mean.copy_(own_mean)
            matrix.zero_().split(self._n_own, dim=1)[index].copy_(own_matrix)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Whiten (B, T, D) to (B, T, k)."""
        return (features - self.mean) @ self.matrix if self._is_used else features


def _directions(rows: Tensor, n_dims: int, shrink: float, n_videos: int) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and scaled directions (D, k) of ``rows`` float64 (N, D)."""
    mean = rows.mean(dim=0)  # (D,)
    covariance = (rows - mean).T @ (rows - mean) / (len(rows) - 1)  # (D, D)
    values, vectors = torch.linalg.eigh(covariance)  # rising: (D,), columns of (D, D)
    share = shrink * float(values.clamp(min=0).sum()) / n_videos
    # The k strongest come first: (k,), (D, k).
    values, vectors = values.flip(0)[:n_dims], vectors.flip(1)[:, :n_dims]
    # An eigenvector's sign differs between libraries, so the largest entry is made positive.
    largest = vectors.abs().argmax(dim=0)  # (k,)
    vectors = vectors * vectors.gather(0, largest.unsqueeze(0)).sign()
    values = values.clamp(min=max(float(values[0]) * _FLOOR, 1e-12))
    gains = values / (values + share)  # (k,)
    scale = values.rsqrt() * gains / (gains**2).mean().sqrt()  # (k,)
    return mean, vectors * scale
