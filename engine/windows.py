"""Snippet features → a feature window at every hop. Pure.

Windows end at fixed snippet indices, so which windows a camera gives does not depend on how its
features arrived. A gap ends the segment: what came after the last regular window is still given
out, in one last window, and the next segment starts from nothing.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from engine.camera_mean import CameraMean
from engine.spec import WindowSpec
from engine.types import FeatureWindow, FloatArray, SnippetFeature


class SnippetBuffer:
    """Ring of the newest T features of one camera's current segment.

    Args:
        spec: Window sizes.
        feature_dim: D.
        camera_mean: Learns from every feature before a window shows it, and a gap leaves it as it
            is. None where the model has none.
    """

    def __init__(
        self, spec: WindowSpec, feature_dim: int, camera_mean: CameraMean | None = None
    ) -> None:
        self._spec = spec
        self._feature_dim = feature_dim
        self._camera_mean = camera_mean
        self._ring: deque[SnippetFeature] = deque(maxlen=spec.window_snippets)
        self._n_unseen = 0  # features no window has shown yet

    def push(self, feature: SnippetFeature) -> list[FeatureWindow]:
        """Take one feature; give the windows it completes: 0, 1, or 2 at a change of segment.

        Raises:
            ValueError: The feature has the wrong width or does not follow the last one.
        """
        windows = []
        if self._ring and self._ring[-1].segment != feature.segment:
            windows.extend(self.flush())
        self._check(feature)
        if self._camera_mean is not None:
            self._camera_mean.update(feature.vector)
        self._ring.append(feature)
        self._n_unseen += 1
        if (feature.index + 1) % self._spec.hop_snippets == 0:
            windows.append(self._window())
        return windows

    def flush(self) -> list[FeatureWindow]:
        """End the segment; give a last window if some feature was in none yet."""
        windows = [self._window()] if self._n_unseen else []
        self._ring.clear()
        return windows

    def state(self) -> tuple[int, int, int, FloatArray]:
        """What to keep: first index, segment, features in no window yet, features (N, D)."""
        if not self._ring:
            return 0, 0, 0, np.zeros((0, self._feature_dim), np.float32)
        features = np.stack([feature.vector for feature in self._ring])
        return self._ring[0].index, self._ring[0].segment, self._n_unseen, features

    def restore(self, first_index: int, segment: int, n_unseen: int, features: FloatArray) -> None:
        """Go on from ``state``; ``features`` are float32 (N, D)."""
        self._ring.clear()
        for offset, vector in enumerate(features):
            self._ring.append(SnippetFeature(first_index + offset, segment, vector))
        self._n_unseen = n_unseen

    def _check(self, feature: SnippetFeature) -> None:
        if feature.vector.shape != (self._feature_dim,):
            raise ValueError(
                f"feature {feature.index} is {feature.vector.shape}, wanted ({self._feature_dim},)"
            )
        if self._ring and feature.index != self._ring[-1].index + 1:
            raise ValueError(
                f"feature {feature.index} follows {self._ring[-1].index} in one segment"
            )

    def _window(self) -> FeatureWindow:
        self._n_unseen = 0
        camera_mean = None if self._camera_mean is None else self._camera_mean.vector
        return window_of(self._ring, self._spec.window_snippets, self._feature_dim, camera_mean)


def window_of(
    features: Sequence[SnippetFeature],
    n_snippets: int,
    dim: int,
    camera_mean: FloatArray | None = None,
) -> FeatureWindow:
    """The window that ends with ``features``, zero where nothing was seen.

    Args:
        features: 1..T consecutive features of one segment.
        n_snippets: T.
        dim: D.
        camera_mean: float32 (D,); None is zero.
    """
    if camera_mean is None:
        camera_mean = np.zeros(dim, np.float32)
    n_missing = n_snippets - len(features)
    rows = np.zeros((n_snippets, dim), np.float32)
    rows[n_missing:] = [feature.vector for feature in features]
    valid = np.arange(n_snippets) >= n_missing
    newest = features[-1]
    return FeatureWindow(newest.index - n_snippets + 1, newest.segment, rows, valid, camera_mean)
