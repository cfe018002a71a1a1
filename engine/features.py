"""Snippets → backbone features, each number rounded to half precision where it is made.

Whoever stores features may store them as float16 and loses nothing: what is read back is what was
used, to the bit, in training, over a file and live.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.backends.base import EngineBackend
from engine.errors import BundleError
from engine.rounding import as_logged
from engine.types import Snippet, SnippetFeature


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
