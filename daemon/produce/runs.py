"""Pieces of a source → chunks of runs, each with its number and its date, and end marks."""

import secrets
from datetime import UTC, datetime

from daemon.wire.facts import ChunkFacts
from engine.types import VideoChunk
from engine.video.cutting import CutChunk


class SourceRuns:
    """The runs of one opened source: one, or more where a camera's dates were too far off.

    Args:
        camera: The camera.
        anchor_us: Unix time of the first picture, for sources that do not date themselves; None:
            nobody knows it.

    Attributes:
        n_chunks: Chunks so far.
    """

    def __init__(self, camera: str, anchor_us: int | None) -> None:
        self.n_chunks = 0
        self._end_us = 0
        self._camera = camera
        self._anchor_us = anchor_us
        self._run = ""
        self._sequence = 0

    def taken(self, piece: CutChunk) -> list[tuple[VideoChunk, ChunkFacts]]:
        """A piece as a chunk; an end mark before it, where it begins another run."""
        ended = self.ended() if piece.begins_run else []
        if not self._run:
            self._run = new_run()
        self._end_us = piece.start_us + piece.duration_us
        anchor_us = self._anchor_us if piece.anchor_us is None else piece.anchor_us
        chunk = piece.to_chunk(self._camera, self._run, self._sequence, anchor_us)
        self.n_chunks += 1
        self._sequence += 1
        return [*ended, (chunk, _facts_of(piece))]

    def ended(self) -> list[tuple[VideoChunk, ChunkFacts]]:
        """The end mark of the run, if one has begun."""
        if not self._run:
            return []
        end = VideoChunk(self._camera, self._run, self._sequence, self._end_us, b"", is_end=True)
        self._run, self._sequence, self._end_us = "", 0, 0
        return [(end, ChunkFacts())]


def new_run() -> str:
    """A run's name, which no other run has; names sort by time, for people."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def _facts_of(piece: CutChunk) -> ChunkFacts:
    return ChunkFacts(
        content_type=piece.content_type,
        duration_us=piece.duration_us,
        n_frames=piece.n_frames,
        width=piece.width,
        height=piece.height,
        clock=piece.clock.value,
    )
