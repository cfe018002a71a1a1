"""A bank of semantics: what the snippets of a whole data set look like, as a few unit vectors.

N: rows; K: vectors of the bank; D: feature dimensions.

Source: TSC-Net's bank of Gaussian means. Its published recipe fits the snippets of one video, and
what was fitted otherwise is known as a file alone. So this is spherical k-means over all videos,
which runs on any data.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from engine.errors import DataError
from engine.files.npz import NPZ_DAMAGE
from engine.files.whole import write_whole
from engine.types import FloatArray

_MAX_ROWS = 10_000  # that are clustered; more change the means no more
_ROUNDS = 50


def fit_bank(rows: Tensor, n_vectors: int, seed: int = 0) -> Tensor:
    """Cluster the directions of snippets.

    Args:
        rows: float (N, D), evenly thinned if there are more than ten thousand.
        n_vectors: K.
        seed: Seed of the first vectors (k-means++); equal rows and seeds give equal banks.

    Returns:
        (K, D), unit vectors.

    Raises:
        DataError: There are fewer rows than vectors.
    """
    if len(rows) < n_vectors:
        raise DataError(
            f"a bank of {n_vectors} vectors needs as many snippets, there are {len(rows)}: "
            "train on more footage, or ask for a smaller bank"
        )
    units = F.normalize(rows[:: -(-len(rows) // _MAX_ROWS)], dim=1)  # (N, D)
    vectors = _far_apart(units, n_vectors, torch.Generator().manual_seed(seed))
    owners = torch.full((len(units),), -1)
    for _ in range(_ROUNDS):
        nearest = (units @ vectors.T).argmax(dim=1)  # (N,)
        if torch.equal(nearest, owners):
            break
        owners = nearest
        sums = torch.zeros_like(vectors).index_add_(0, owners, units)
        # A vector that nothing is nearest to stays where it is.
        is_used = torch.bincount(owners, minlength=n_vectors).unsqueeze(1) > 0
        vectors = torch.where(is_used, F.normalize(sums, dim=1), vectors)
    return vectors


def _far_apart(units: Tensor, n_vectors: int, generator: torch.Generator) -> Tensor:
    """Draw K of (N, D) rows, each by its squared distance from those before it (k-means++)."""
    first = torch.randint(len(units), (1,), generator=generator)
    chosen = [int(first)]
    apart = torch.full((len(units),), torch.inf, dtype=units.dtype)
    for _ in range(n_vectors - 1):
        apart = torch.minimum(apart, (units - units[chosen[-1]]).square().sum(dim=1))
        # Where all rows are alike, any of them.
        chances = apart + 1e-12
        chosen.append(int(torch.multinomial(chances.float(), 1, generator=generator)))
    return units[chosen]


def check_new(path: Path) -> None:
    """Check that a bank may be written there.

    Raises:
        DataError: There is such a file already; a run that was trained with it names it.
    """
    if path.exists():
        raise DataError(f"{path} is there already, and a run may go by it: choose another --out")


def write_bank(vectors: FloatArray, path: Path) -> None:
    """Write vectors (K, D) as a file that is whole or not there, and that never changes.

    Raises:
        DataError: See ``check_new``; or it cannot be written.
    """
    check_new(path)
    content = io.BytesIO()
    np.save(content, np.asarray(vectors, np.float32))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue(), unfinished=f"{path.name}.part")
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}; choose another --out"
        ) from error


def read_bank(path: Path, n_vectors: int, feature_dim: int) -> FloatArray:
    """Read what ``write_bank`` wrote, float32 (K, D).

    Args:
        path: The file.
        n_vectors: The K that is wanted.
        feature_dim: The D that is wanted.

    Raises:
        DataError: It is missing, damaged, or of other features.
    """
    try:
        vectors = np.load(path, allow_pickle=False)
        shape, is_finite = tuple(vectors.shape), bool(np.isfinite(vectors).all())
    except FileNotFoundError as error:
        raise DataError(f"there is no bank {path}: s2net build-bank makes one") from error
    except NPZ_DAMAGE as error:
        raise DataError(f"bank {path} is damaged ({error}): build it again") from error
    if shape != (n_vectors, feature_dim) or not is_finite:
        raise DataError(
            f"bank {path} is {shape}, wanted {(n_vectors, feature_dim)} finite numbers: "
            "s2net build-bank makes one of these features"
        )
    return np.asarray(vectors, np.float32)
