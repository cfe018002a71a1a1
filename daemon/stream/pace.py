"""A camera's chunks, one by one → how dense its footage is, and how many snippets come. Pure."""

from collections import deque

from engine.grid import US_PER_S, Grid

# Sampling repeats frames where there are fewer than the grid has points. A tenth less does no
# harm: 24 frames a second, or a few that were lost.
_LEAST_SHARE = 0.9
_LEAST_S = 2.0  # of footage, before it is judged
_MOST_CHUNKS = 64
_MINUTE_S = 60


class Pace:
    """What was seen of a camera lately.

    Args:
        grid: The model's.
    """

    def __init__(self, grid: Grid) -> None:
        self._least_fps = _LEAST_SHARE * grid.fps
        self._chunks: deque[tuple[int, int]] = deque(maxlen=_MOST_CHUNKS)  # start in us, frames
        self._snippets: deque[tuple[int, int]] = deque()  # second, snippets in it

    def saw(self, start_us: int, n_frames: int, n_snippets: int, now_s: float) -> None:
        """Take note of a chunk.

        Args:
            start_us: Stream time of its first frame.
            n_frames: Its frames.
            n_snippets: The snippets that it completed.
            now_s: Seconds of a clock that never goes back.
        """
        self._chunks.append((start_us, n_frames))
        second = int(now_s)
        if self._snippets and self._snippets[-1][0] == second:
            n_snippets += self._snippets.pop()[1]
        self._snippets.append((second, n_snippets))
        self.snippets_a_minute(now_s)

    def broke(self) -> None:
        """Footage is missing here, or another run begins, of which nothing is known."""
        self._chunks.clear()

    @property
    def fps(self) -> float | None:
        """Frames in a second of footage; None before there were two chunks."""
        span_us = self._span_us
        if not span_us:
            return None
        return sum(n for _, n in list(self._chunks)[:-1]) * US_PER_S / span_us

    @property
    def is_sparse(self) -> bool:
        """True if the footage has clearly fewer frames than the model's grid has points."""
        fps = self.fps
        return fps is not None and self._span_us >= _LEAST_S * US_PER_S and fps < self._least_fps

    def snippets_a_minute(self, now_s: float) -> int:
        """Snippets in the last minute."""
        while self._snippets and self._snippets[0][0] <= now_s - _MINUTE_S:
            self._snippets.popleft()
        return sum(n for _, n in self._snippets)

    @property
    def _span_us(self) -> int:
        """From the first chunk's start to the last one's."""
        return self._chunks[-1][0] - self._chunks[0][0] if len(self._chunks) > 1 else 0
