"""How times are spread: what a table of delays says of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, median, percentiles and maximum of ``n`` values in seconds; NaN if there are none."""

    n: int
    mean: float
    median: float
    p90: float
    p95: float
    longest: float

    @classmethod
    def of_us(cls, values_us: Sequence[int]) -> Self:
        """Of values in microseconds."""
        if not values_us:
            return cls(0, *[math.nan] * 5)
        values = np.array(values_us, np.int64) / 1e6
        middle, p90, p95, longest = np.percentile(values, (50, 90, 95, 100)).tolist()
        return cls(len(values), float(values.mean()), middle, p90, p95, longest)

    def text(self) -> str:
        """Write one line for people."""
        if not self.n:
            return "-"
        middle = f"{self.median:.2f} s median, {self.mean:.2f} s mean"
        high = f"{self.p90:.2f} s p90, {self.p95:.2f} s p95, {self.longest:.2f} s at most"
        return f"{middle}, {high} ({self.n})"
