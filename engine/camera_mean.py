"""What a camera sees when nothing happens, in feature space: a slow causal average. Pure.

A network that gets features minus this mean knows a new camera without having been trained
on it: the layout of the place is taken out, and what changes in it stays.

Source: the design study of the ``scenes`` task, which subtracted a stored median for each camera
(no effect on cameras seen in training, +13 points of mAP on one never seen); a running mean is
the form of it that a live camera can have.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.spec import CameraMeanSpec
from engine.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class CameraMeanState:
    """Everything a camera mean remembers.

    Attributes:
        mean: float64 (D,).
        n_snippets: How many observations ``mean`` stands for, the prior's among them.
    """

    mean: npt.NDArray[np.float64]
    n_snippets: int


class CameraMean:
    """Weighted mean of a camera's features, which slowly forgets.

    With P the prior's observations, M the memory and n the features seen before, a new feature
    x moves the camera mean b by (x - b) / min(P + n + 1, M): the plain mean of prior and features
    while these are fewer than M, then exponential forgetting. The mean is kept in float64 and
    taken in one order, so how a video was cut changes no bit of it.

    Args:
        prior: float32 (D,), the camera mean before anything was seen.
        prior_snippets: P, >= 0: how many observations the prior counts as.
        memory_snippets: M, >= 1.
    """

    def __init__(self, prior: FloatArray, prior_snippets: int, memory_snippets: int) -> None:
        if prior_snippets < 0 or memory_snippets < 1:
            raise ValueError(
                f"a camera mean of {prior_snippets} prior and {memory_snippets} remembered "
                "snippets; wanted >= 0 and >= 1"
            )
        self._memory_snippets = memory_snippets
        self._mean = prior.astype(np.float64)  # (D,)
        self._n_snippets = min(prior_snippets, memory_snippets)

    @classmethod
    def of_camera(cls, spec: CameraMeanSpec, camera: str) -> "CameraMean":
        """The camera mean a camera starts with: its own if training knew it, else the default."""
        known = camera in spec.cameras
        return cls(
            spec.cameras[camera] if known else spec.default,
            spec.prior_snippets_known if known else spec.prior_snippets_new,
            spec.memory_snippets,
        )

    @property
    def vector(self) -> FloatArray:
        """The camera mean as it stands, float32 (D,); the caller's own copy."""
        return self._mean.astype(np.float32)

    def update(self, feature: FloatArray) -> None:
        """Take in one feature, float32 (D,); one that is not finite is left out.

        Raises:
            ValueError: It has another width.
        """
        if feature.shape != self._mean.shape:
            raise ValueError(f"a feature is {feature.shape}, wanted {self._mean.shape}")
        # One overflow of a half-precision device must not spoil a camera for good.
        if not np.isfinite(feature).all():
            return
        self._n_snippets = min(self._n_snippets + 1, self._memory_snippets)
        self._mean += (feature.astype(np.float64) - self._mean) / self._n_snippets

    def state(self) -> CameraMeanState:
        """All there is to keep, for ``restore``."""
        return CameraMeanState(self._mean.copy(), self._n_snippets)

    def restore(self, state: CameraMeanState) -> None:
        """Go on from ``state``.

        Raises:
            ValueError: It is of another width or dtype, not finite, or counts fewer than 0.
        """
        if state.mean.shape != self._mean.shape or state.mean.dtype != np.float64:
            raise ValueError(
                f"a camera mean is {state.mean.dtype} {state.mean.shape}, "
                f"wanted float64 {self._mean.shape}"
            )
        if not np.isfinite(state.mean).all() or state.n_snippets < 0:
            raise ValueError(f"a camera mean of {state.n_snippets} snippets is damaged")
        self._mean = state.mean.copy()
        self._n_snippets = min(state.n_snippets, self._memory_snippets)
