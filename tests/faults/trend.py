"""A straight line through samples: how fast a quantity grows, and how sure that is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Slope:
    """Units of the quantity for each unit of time, and the standard error of that."""

    value: float
    error: float


def slope_of(times: Sequence[float], values: Sequence[float]) -> Slope:
    """The least-squares slope of at least 4 samples that are evenly spaced in time.

    Samples of a process's memory resemble the one before, so they tell less than as many
    independent ones. The error is that of ordinary least squares, widened by the correlation r of
    neighbouring residuals: sqrt((1 + r) / (1 - r)), as of an autoregressive process of order 1.

    Source: Santer et al., Statistical significance of trends (2000), the effective sample size.
    """
    x, y = np.array(times, float), np.array(values, float)
    x -= x.mean()
    value = float(x @ y / (x @ x))
    residuals = y - y.mean() - value * x
    square = float(residuals @ residuals)
    if square < 1e-12 * max(1.0, float(y @ y)):  # nothing but rounding
        return Slope(value, 0.0)
    error = (square / (len(x) - 2) / float(x @ x)) ** 0.5
    correlation = min(max(float(residuals[1:] @ residuals[:-1]) / square, 0.0), 0.99)
    return Slope(value, error * ((1 + correlation) / (1 - correlation)) ** 0.5)
