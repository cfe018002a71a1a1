"""Overlapping CAS windows → one track of class scores for each camera. Pure.

Each window re-reads footage that earlier windows read with less right context. Its newest
``rescore_snippets`` positions replace what was known; older positions had all the context the
localizer needs and keep their scores.
"""

from dataclasses import dataclass

import numpy as np

from engine.spec import WindowSpec
from engine.types import CasWindow, FloatArray


@dataclass(frozen=True, slots=True)
class ScoredSnippets:
    """Class scores of consecutive snippets.

    Attributes:
        first_index: Snippet index of row 0.
        segment: Their segment.
        scores: float32 (N, C), class activation times attention, in [0, 1].
    """

    first_index: int
    segment: int
    scores: FloatArray

    @property
    def end_index(self) -> int:
        """One past the last snippet index."""
        return self.first_index + len(self.scores)


class ScoreTrack:
    """The newest scores of one camera's current segment.

    Args:
        spec: Window sizes.
        kept: Where an earlier track stopped; None: nothing is known yet.
    """

    def __init__(self, spec: WindowSpec, kept: ScoredSnippets | None = None) -> None:
        self._spec = spec
        self.current = kept

    @property
    def known(self) -> ScoredSnippets:
        """The scores that ``update`` keeps: the newest positions of the current segment."""
        if self.current is None:
            raise AssertionError("asked for scores before any window")
        return self.current

    def update(self, window: CasWindow) -> ScoredSnippets:
        """Merge one window in; give the positions that are new or scored anew."""
        scored = self._rescored(window)
        kept = self._kept_before(scored)
        scores = np.concatenate([kept, scored.scores])[-self._spec.track_snippets :]
        self.current = ScoredSnippets(scored.end_index - len(scores), window.segment, scores)
        return scored

    def _rescored(self, window: CasWindow) -> ScoredSnippets:
        n_valid = int(window.valid.sum())
        n_fresh = min(n_valid, self._spec.rescore_snippets)
        scores = window.cas[-n_fresh:] * window.attention[-n_fresh:, None]  # (n_fresh, C)
        end_index = window.first_index + len(window.cas)
        return ScoredSnippets(end_index - n_fresh, window.segment, scores)

    def _kept_before(self, scored: ScoredSnippets) -> FloatArray:
        """Earlier scores of the segment, (N, C), up to the first position scored anew."""
        current = self.current
        if current is None or current.segment != scored.segment:
            return scored.scores[:0]
        return current.scores[: max(scored.first_index - current.first_index, 0)]
