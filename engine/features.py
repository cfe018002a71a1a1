"""Snippets → backbone features, each number rounded to half precision where it is made.

Whoever stores features may store them as float16 and loses nothing: what is read back is what was
used, to the bit, in training, over a file and live.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.backends.base import EngineBackend
from engine.errors import BundleError
from engine.types import FloatArray, Snippet, SnippetFeature

_LARGEST = float(np.finfo(np.float16).max)  # 65504


class FeatureExtractor(Protocol):
    """Turns snippets into features; snippets of many cameras may share a call."""

    @property
    def feature_dim(self) -> int:
        """D, the width of a feature."""

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        """One feature for each snippet, in order; no features for no snippets.

        Every number of a feature is one that float16 has too (see ``as_logged``).

        Raises:
            DeviceError: The runtime failed.
        """


class BackendFeatureExtractor:
    """Runs a network from ``snippets`` uint8 (B, L, H, W, 3) to ``features`` float32 (B, D).

    Args:
        backend: The compiled network; called from one thread.
        feature_dim: D, as the bundle says.

    Raises:
        BundleError: The network takes or gives something else.
    """

    def __init__(self, backend: EngineBackend, feature_dim: int) -> None:
        self._backend = backend
        self._feature_dim = feature_dim
        given = {spec.name: spec for spec in backend.signature.outputs}
        if "features" not in given or given["features"].shape[-1] not in (None, feature_dim):
            raise BundleError(
                f"{backend.description}: the backbone gives {backend.signature.outputs}, "
                f"wanted features float32 (B, {feature_dim})"
            )

    @property
    def feature_dim(self) -> int:
        """D, the width of a feature."""
        return self._feature_dim

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        """One feature for each snippet, in order, rounded by ``as_logged``."""
        if not snippets:
            return []
        rgb = np.stack([snippet.rgb for snippet in snippets])  # (B, L, H, W, 3)
        answer = self._backend.run({"snippets": rgb})["features"]  # (B, D)
        vectors = as_logged(answer.astype(np.float32, copy=False))
        return [
            SnippetFeature(snippet.index, snippet.segment, vector)
            for snippet, vector in zip(snippets, vectors, strict=True)
        ]


def as_logged(features: FloatArray) -> FloatArray:
    """Features as a log in half precision keeps them: each number's nearest float16.

    The relative error is at most 2^-11 down to 2^-14, and below that the absolute one 2^-25. A
    finite number beyond 65504, the largest of float16, becomes that one, since a log must not make
    an infinity of it. NaN and infinity stay: they are a device's failure, which whoever looks for
    it must still see.

    Args:
        features: float32 (...).

    Returns:
        float32 (...), new, the caller's own; rounding it again changes nothing.
    """
    is_infinite = np.isinf(features)
    within = np.where(is_infinite, features, features.clip(-_LARGEST, _LARGEST))
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return within.astype(np.float16).astype(np.float32)
