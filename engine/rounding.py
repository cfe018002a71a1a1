"""Features in half precision, as the feature log keeps them. Pure."""

import numpy as np

from engine.types import FloatArray

_LARGEST = float(np.finfo(np.float16).max)  # 65504


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
