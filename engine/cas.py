"""Feature windows → class activation sequences."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.backends.base import EngineBackend
from engine.errors import BundleError
from engine.types import CasWindow, FeatureWindow, FloatArray

_GIVEN = ("cas", "attention", "video_scores")


class Localizer(Protocol):
    """Scores the snippets of windows; an answer does not depend on other windows of the call."""

    def localize(self, windows: Sequence[FeatureWindow]) -> list[CasWindow]:
        """One answer for each window, in order; no answers for no windows.

        Raises:
            DeviceError: The runtime failed.
        """


class BackendLocalizer:
    """Runs a network that keeps the contract of every ``localizer.onnx``.

    It takes ``features`` float32 (B, T, D) and ``valid`` float32 (B, T), 1 where a snippet was
    seen. It may also take ``background`` float32 (B, D), the camera means. It gives, in float32,
    ``cas`` (B, T, C) and ``attention`` (B, T) in [0, 1], zero where nothing was seen, and
    ``video_scores`` (B, C).

    Args:
        backend: The compiled network; called from one thread.

    Raises:
        BundleError: The network does not keep the contract.
    """

    def __init__(self, backend: EngineBackend) -> None:
        self._backend = backend
        self._takes_camera_mean = any(s.name == "background" for s in backend.signature.inputs)
        names = {spec.name for spec in backend.signature.outputs}
        if not names.issuperset(_GIVEN):
            raise BundleError(
                f"{backend.description}: the localizer gives {sorted(names)}, wanted {_GIVEN}"
            )

    def localize(self, windows: Sequence[FeatureWindow]) -> list[CasWindow]:
        """One answer for each window, in order."""
        if not windows:
            return []
        given: dict[str, FloatArray] = {
            "features": np.stack([window.features for window in windows]),
            "valid": np.stack([window.valid for window in windows]).astype(np.float32),
        }
        if self._takes_camera_mean:
            given["background"] = np.stack([window.camera_mean for window in windows])
        answers = self._backend.run(given)
        rows = zip(*(answers[name].astype(np.float32, copy=False) for name in _GIVEN), strict=True)
        return [
            CasWindow(window.first_index, window.segment, cas, attention, scores, window.valid)
            for window, (cas, attention, scores) in zip(windows, rows, strict=True)
        ]
