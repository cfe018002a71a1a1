"""Which decoded frames are worth converting. Pure: a frame here is whatever the caller decodes.

Sampling is a zero-order hold on the model's grid (``engine.snippets``). A frame that no grid point
can show is decoded but not converted: conversion costs as much as decoding.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from engine.errors import RefusedChunkError
from engine.grid import US_PER_S, Grid

FrameT = TypeVar("FrameT")
Timed = tuple[int, FrameT]  # stream time in microseconds, and the frame


class Thinner:
    """Leaves out frames that the grid would not show, and those whose time did not rise.

    The first and the last frame are always kept, and so is one that follows its predecessor by
    more than a grid period: then no gap between kept frames is longer than the real one by more
    than two grid periods, and a sampler finds the same gaps with and without thinning.
    """

    def __init__(self, grid: Grid) -> None:
        self.n_decoded = 0
        self.n_late = 0
        self._grid = grid

    def thin(self, frames: Iterable[Timed[FrameT]]) -> Iterator[Timed[FrameT]]:
        """The frames to convert; one is held back until its successor's time is known."""
        held: Timed[FrameT] | None = None
        is_kept = True
        for timed in frames:
            self.n_decoded += 1
            if held is not None and timed[0] <= held[0]:
                self.n_late += 1
                continue
            if held is not None:
                if is_kept or self._grid.holds_grid_point(held[0], timed[0]):
                    yield held
                is_kept = timed[0] - held[0] > self._grid.frame_us
            held = timed
        if held is not None:
            yield held


def within_span(frames: Iterable[Timed[FrameT]], max_span_us: int) -> Iterator[Timed[FrameT]]:
    """The same frames; one that is too far from the first raises ``RefusedChunkError``."""
    first_us: int | None = None
    for pts_us, frame in frames:
        first_us = pts_us if first_us is None else first_us
        if pts_us - first_us > max_span_us:
            raise RefusedChunkError(
                f"frames span more than {max_span_us / US_PER_S:g} s: cut shorter chunks"
            )
        yield pts_us, frame
