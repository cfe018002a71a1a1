"""Frames at any rate → snippets on the model's fixed-rate grid. Pure.

Sampling is a zero-order hold: grid point ``g`` shows the latest frame with ``pts <= g``. That is
causal, needs no interpolation, and gives the same snippets however the video was cut into batches.
Frames further apart than ``max_gap_us`` are a gap: no frame is shown across it, the unfinished
snippet is dropped, and the next one belongs to a new segment. A slow camera has no gaps: where
frames were further apart lately, one is shown for up to twice as long, and ``LONGEST_HOLD_US`` at
most. So a camera that slows down has one gap.

How far frames were apart fades with each long step, and by time and not by frames where steps are
short: those that leaving frames out (``engine.video.thinning``) could make or hide do not count.
So the same gaps are found with and without it.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from engine.grid import Grid
from engine.types import FrameBatch, Snippet, Span, UInt8Array

# A frame shows what happens for no longer, however slow the camera.
LONGEST_HOLD_US = 2_500_000


@dataclass(frozen=True, slots=True)
class SamplerState:
    """What a sampler needs to go on, apart from frames.

    Attributes:
        next_index: Snippets below this index were already given out.
        segment: Current segment number.
        seen_us: Stream time of the newest frame, or None.
        resume_us: Frames from this stream time on must be pushed again after a restore; None when
            no earlier frame is needed.
        apart_us: How far frames were apart before the one at ``resume_us``; None: nobody knows.
        apart_until_us: Stream time up to which that counts while no long step follows; None in
            older states.
    """

    next_index: int
    segment: int
    seen_us: int | None
    resume_us: int | None
    apart_us: int | None = None
    apart_until_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Apart:
    """How far frames were apart, and up to which stream time that counts."""

    us: int
    until_us: int


_NEVER_APART = _Apart(0, 0)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame on the grid: when it was captured, and how far frames were apart till then."""

    pts_us: int
    apart: _Apart | None
    rgb: UInt8Array  # (H, W, 3)


class SnippetSampler:
    """Cuts one camera's frames into snippets.

    Args:
        grid: The model's grid.
        max_gap_us: Longest time one frame is shown, but for slow cameras.
        state: Where an earlier sampler stopped. Push the frames from ``resume_us`` on again: what
            was given out before is not given out twice.
    """

    def __init__(self, grid: Grid, max_gap_us: int, state: SamplerState | None = None) -> None:
        self._grid = grid
        self._frame_us = grid.frame_us  # which is asked for with each frame
        self._max_gap_us = max_gap_us
        self._held: _Shown | None = None
        # Leaving frames out makes steps of up to two grid periods, and those shorter than half of
        # the gap that is admitted anyway change nothing.
        self._least_apart_us = max(max_gap_us // 2, 2 * grid.frame_us)
        self._apart = _apart_of(state)
        self._shown: deque[_Shown] = deque()  # the frames of grid points [_first_grid, _next_grid)
        self._next_grid = 0
        self._next_index = state.next_index if state else 0
        self._segment = state.segment if state else 0
        # Gaps inside replayed footage were counted before the snapshot.
        self._replay_until_us = state.seen_us if state else None
        # A successor's footage begins after its predecessor's: nothing is read again.
        self._ended_us = state.seen_us if state and state.resume_us is None else None
        # What is read again begins with a chunk, and so with frames that are not needed. They came
        # before what is known of how far frames are apart.
        self._from_us = state.resume_us if state else None
        self._awaited = state if state and state.resume_us is not None else None
        self._may_lack_footage = self._awaited is not None
        self.n_gaps = 0
        self.n_late_frames = 0

    @property
    def state(self) -> SamplerState:
        """What must be kept to go on later; the frames themselves are read again.

        Until all of them have been, it is what it was.
        """
        if self._awaited is not None:
            return self._awaited
        oldest = self._shown[0] if self._shown else self._held
        seen_us = self._held.pts_us if self._held else self._replay_until_us
        resume_us = oldest.pts_us if oldest else None
        apart = oldest.apart if oldest else self._apart
        return SamplerState(
            self._next_index,
            self._segment,
            seen_us,
            resume_us,
            apart.us if apart else None,
            apart.until_us if apart else None,
        )

    def push(self, batch: FrameBatch) -> list[Snippet]:
        """Take the next frames; give the snippets they complete, in order."""
        snippets: list[Snippet] = []
        for pts_us, rgb in zip(batch.pts_us.tolist(), batch.rgb, strict=True):
            snippets.extend(self._push_frame(pts_us, rgb))
        return snippets

    def break_segment(self) -> None:
        """Frames are missing here: drop the unfinished snippet and start a new segment."""
        self._awaited = None  # whatever is not there yet is not needed any more
        self._break()

    def _break(self) -> None:
        if self._held is None:
            return
        is_replay = self._replay_until_us is not None and self._held.pts_us < self._replay_until_us
        if not is_replay:
            self._segment += 1
            self.n_gaps += 1
        self._held = None
        self._shown.clear()

    def _push_frame(self, pts_us: int, rgb: UInt8Array) -> list[Snippet]:
        if self._from_us is not None and pts_us < self._from_us:
            return []
        seen_us = self._ended_us if self._held is None else self._held.pts_us
        if seen_us is not None and pts_us <= seen_us:
            self.n_late_frames += 1
            return []
        if self._held is not None:
            apart_us = pts_us - self._held.pts_us
            if apart_us > self._longest_hold_us(self._held.pts_us):
                self._break()
            if apart_us <= LONGEST_HOLD_US:
                self._note_apart(pts_us, apart_us)
        frame = _Shown(pts_us, self._apart, rgb)
        snippets = []
        if self._held is None:
            self._start_segment(frame.pts_us)
        else:
            snippets = self._show_until(frame.pts_us - 1, self._held)
        self._held = frame
        if self._replay_until_us is not None and pts_us >= self._replay_until_us:
            self._awaited = None
        # No later frame can be shown at this frame's own instant, so none need be waited for.
        return snippets + self._show_until(frame.pts_us, frame)

    def _note_apart(self, pts_us: int, apart_us: int) -> None:
        """A frame came at ``pts_us``, so long after the one before it."""
        known = self._apart or _NEVER_APART
        if apart_us > self._least_apart_us:
            is_late = pts_us - apart_us > known.until_us
            us = max(apart_us, 0 if is_late else known.us * 3 // 4)
            known = _Apart(us, _until_us(pts_us, us))
        self._apart = known

    def _longest_hold_us(self, at_us: int) -> int:
        """How long the frame at ``at_us`` may be shown, by how far frames were apart lately."""
        if self._apart is None:
            return max(self._max_gap_us, LONGEST_HOLD_US)
        slow_us = 2 * self._apart.us if at_us <= self._apart.until_us else 0
        return max(self._max_gap_us, min(slow_us, LONGEST_HOLD_US))

    def _start_segment(self, pts_us: int) -> None:
        first_index = self._grid.snippet_at_or_after(pts_us)
        self._next_grid = first_index * self._grid.stride_frames
        # After a restore, has not all the footage that was needed again been pushed?
        is_lacking = self._from_us is not None and pts_us > self._from_us
        if self._may_lack_footage and is_lacking and first_index > self._next_index:
            self._segment += 1
            self.n_gaps += 1
            self._may_lack_footage = False

    def _show_until(self, last_us: int, shown: _Shown) -> list[Snippet]:
        """Show one frame at every grid point up to and including ``last_us``."""
        snippets = []
        while self._next_grid * self._frame_us <= last_us:
            self._shown.append(shown)
            self._next_grid += 1
            if len(self._shown) == self._grid.snippet_frames:
                snippets.extend(self._take())
        return snippets

    def _take(self) -> list[Snippet]:
        grid = self._grid
        index = (self._next_grid - grid.snippet_frames) // grid.stride_frames
        snippets = []
        if index >= self._next_index:
            span = Span(grid.snippet_start_us(index), grid.snippet_end_us(index))
            rgb = np.stack([shown.rgb for shown in self._shown])  # (L, H, W, 3)
            snippets.append(Snippet(index, self._segment, span, rgb))
            self._next_index = index + 1
            self._may_lack_footage = False
        for _ in range(grid.stride_frames):
            self._shown.popleft()
        return snippets


def _apart_of(state: SamplerState | None) -> _Apart | None:
    if state is None or state.apart_us is None:
        return None
    until_us = state.apart_until_us
    if until_us is None:
        until_us = _until_us(state.resume_us or state.seen_us or 0, state.apart_us)
    return _Apart(state.apart_us, until_us)


def _until_us(pts_us: int, apart_us: int) -> int:
    """How long a step counts that ended at ``pts_us``, while no long one follows."""
    return pts_us + apart_us // 2
