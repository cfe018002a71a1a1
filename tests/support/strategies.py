"""Hypothesis strategies for the pure core."""

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from engine.types import FrameBatch, Span
from tests.support.scripted import frames_of


@st.composite
def spans(draw: st.DrawFn, max_us: int = 10_000) -> Span:
    start = draw(st.integers(0, max_us))
    return Span(start, start + draw(st.integers(1, max_us)))


@st.composite
def videos(draw: st.DrawFn, max_frames: int = 400) -> FrameBatch:
    """Footage at any frame rate, fixed or not, with gaps, and actions of any strength."""
    n = draw(st.integers(1, max_frames))
    seed = draw(st.integers(0, 2**32 - 1))
    period_us = draw(st.sampled_from([16_667, 20_000, 33_333, 33_367, 40_000, 66_667, 100_000]))
    jitter_us = draw(st.sampled_from([0, 0, 7_000]))
    n_gaps = draw(st.integers(0, 2))
    rng = np.random.default_rng(seed)
    steps = np.full(n, period_us) + rng.integers(-jitter_us, jitter_us + 1, n)
    steps[rng.integers(0, n, n_gaps)] += rng.integers(400_000, 3_000_000, n_gaps)
    pts_us = np.cumsum(steps) - steps[0] + draw(st.integers(0, 200_000))
    return frames_of(pts_us.tolist(), _colour(rng, n), _colour(rng, n))


def _colour(rng: np.random.Generator, n: int) -> list[int]:
    """Blocks of steady strength, some of them actions."""
    values = np.zeros(n)
    at = 0
    while at < n:
        length = int(rng.integers(3, 60))
        values[at : at + length] = rng.choice([0, 10, 60, 130, 200, 255])
        at += length
    return values.astype(int).tolist()


@dataclass(frozen=True, slots=True)
class Cutting:
    """Where to cut a video: shares of its frames."""

    shares: tuple[float, ...]

    def cut(self, video: FrameBatch) -> list[FrameBatch]:
        n = len(video.pts_us)
        at = sorted({0, n, *(int(share * n) for share in self.shares)})
        return [
            FrameBatch(video.pts_us[a:b], video.rgb[a:b], b - a) for a, b in itertools.pairwise(at)
        ]


def cuttings() -> st.SearchStrategy[Cutting]:
    """From one piece to one frame a piece."""
    shares = st.floats(0, 1, allow_nan=False)
    return st.builds(Cutting, st.lists(shares, max_size=30).map(tuple))
