"""Exact grid arithmetic: pts ↔ microseconds ↔ grid frames ↔ snippet indices.

The model sees video on a fixed grid of ``fps`` frames a second that starts at stream time 0.
Every time is a whole number of microseconds, and a frame rate whose period is not is refused, so
no time ever has to be compared with a tolerance for rounding.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

US_PER_S = 1_000_000
LEAST_FPS = 1e-3  # a rarer look is none


def exact_div(dividend: int, divisor: int, what: str) -> int:
    """``dividend / divisor``, refusing a remainder (after whisper's ``exact_div``).

    Raises:
        ValueError: The division is inexact; the message names ``what``.
    """
    if divisor <= 0 or dividend % divisor:
        raise ValueError(f"{what}: {dividend} is not a whole multiple of {divisor}")
    return dividend // divisor


def ticks_to_us(ticks: int, time_base: Fraction) -> int:
    """Stream time of ``ticks``, rounded half up to the microsecond.

    It is rounded once, from the source's own exact ticks, so a frame has the same time however
    its video was cut.
    """
    # For each frame, and so without fractions, which take ten times as long.
    dividend, divisor = ticks * time_base.numerator * US_PER_S, time_base.denominator
    return (2 * dividend + divisor) // (2 * divisor)


@dataclass(frozen=True, slots=True)
class Grid:
    """The model's time grid.

    Attributes:
        fps: Grid frames a second, such as 25 or 12.5; 1 000 000 must be a multiple of it.
        snippet_frames: L, grid frames in a snippet.
        stride_frames: Grid frames from one snippet's start to the next.
    """

    fps: float
    snippet_frames: int
    stride_frames: int

    def __post_init__(self) -> None:
        is_rate = LEAST_FPS <= self.fps <= US_PER_S
        if is_rate and self.fps == int(self.fps):
            # What is whole is told as an int, on which digests of grids stand.
            object.__setattr__(self, "fps", int(self.fps))
        # Both the rate and the product are rounded, by half of 2^-52 at most.
        if not is_rate or not math.isclose(self.frame_us * self.fps, US_PER_S, rel_tol=2**-51):
            raise ValueError(
                f"fps is {self.fps}, wanted a rate whose period is a whole number of "
                "microseconds, such as 25 or 12.5"
            )
        if not 0 < self.stride_frames <= self.snippet_frames:
            raise ValueError(
                f"stride_frames is {self.stride_frames}, wanted 1..{self.snippet_frames}: "
                "snippets must not leave frames out"
            )

    @property
    def frame_us(self) -> int:
        """Microseconds from one grid point to the next."""
        return round(US_PER_S / self.fps)

    @property
    def stride_us(self) -> int:
        """Microseconds from one snippet's start to the next."""
        return self.stride_frames * self.frame_us

    @property
    def snippet_us(self) -> int:
        """Microseconds a snippet covers."""
        return self.snippet_frames * self.frame_us

    def grid_at_or_after(self, time_us: int) -> int:
        """Number of the first grid point at or after ``time_us``."""
        return -(-time_us // self.frame_us)

    def holds_grid_point(self, from_us: int, until_us: int) -> bool:
        """Does a frame shown over ``[from_us, until_us)`` cover any grid point?"""
        return self.grid_at_or_after(from_us) < self.grid_at_or_after(until_us)

    def snippet_at_or_after(self, time_us: int) -> int:
        """Index of the first snippet that starts at or after ``time_us``."""
        return -(-self.grid_at_or_after(time_us) // self.stride_frames)

    def snippet_start_us(self, index: int) -> int:
        """Stream time of the first grid point of snippet ``index``."""
        return index * self.stride_us

    def snippet_end_us(self, index: int) -> int:
        """Stream time one grid period after the last grid point of snippet ``index``."""
        return index * self.stride_us + self.snippet_us
