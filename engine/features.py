"""Snippets → backbone features."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.backends.base import EngineBackend
from engine.errors import BundleError
from engine.types import Snippet, SnippetFeature


class FeatureExtractor(Protocol):
    """Knows no stream: snippets of many cameras may share a call."""

    @property
    def feature_dim(self) -> int:
        """D."""

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        """One feature a snippet, in order; none for none.

        Raises:
            DeviceError: The runtime failed.
        """


class BackendFeatureExtractor:
    """A network that takes ``snippets`` uint8 (B, L, H, W, 3) and gives ``features`` (B, D).

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
        """D."""
        return self._feature_dim

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        """One feature a snippet, in order."""
        if not snippets:
            return []
        rgb = np.stack([snippet.rgb for snippet in snippets])  # (B, L, H, W, 3)
        vectors = self._backend.run({"snippets": rgb})["features"].astype(np.float32, copy=False)
        return [
            SnippetFeature(snippet.index, snippet.segment, vector)
            for snippet, vector in zip(snippets, vectors, strict=True)
        ]
