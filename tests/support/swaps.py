"""Models to swap between two chunks, footage to swap in, and what must hold of the events."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from daemon.models.slot import OpenModel
from engine.grid import Grid
from engine.types import ActionEvent, Phase, Snippet, SnippetFeature, VideoChunk
from tests.support.footage import BUSY, chunks_of, colour_clip
from tests.support.scripted import MeanColourExtractor, SmoothingLocalizer, a_spec

NAMES = ("a", "b", "coarse")
N_CHUNKS = 13  # of the clip, the end marker among them


class WatchedExtractor(MeanColourExtractor):
    """Remembers which footage it was shown."""

    def __init__(self) -> None:
        self.seen: list[Snippet] = []

    def extract(self, snippets: Sequence[Snippet]) -> list[SnippetFeature]:
        self.seen += snippets
        return super().extract(snippets)


def a_model(name: str, *, open_score: float = 0.4, hop_snippets: int = 1) -> OpenModel:
    """``a`` and ``b`` differ in name alone, ``coarse`` in its time grid and picture too."""
    spec = replace(a_spec(hop_snippets=hop_snippets), model_id=f"{name}@0")
    if name == "coarse":
        spec = replace(
            spec,
            grid=Grid(fps=25, snippet_frames=8, stride_frames=8),
            geometry=replace(spec.geometry, resize_px=4, crop_px=4),
        )
    return OpenModel(
        spec.with_open_score(open_score),
        None,
        WatchedExtractor(),
        SmoothingLocalizer(),
        feature_id=name,
    )


@cache
def busy_chunks() -> tuple[VideoChunk, ...]:
    with tempfile.TemporaryDirectory() as folder:
        clip = colour_clip(Path(folder) / "busy.mp4", BUSY, gop=13)
        # Chunks of 26 frames end amid a snippet, so that a restart must read frames again.
        chunks = chunks_of(clip, "cam", chunk_s=0.9)
    assert N_CHUNKS == len(chunks)
    return tuple(chunks)


def check_grammar(records: Sequence[ActionEvent]) -> None:
    """One life an event: opened, updated, and one last word; all of one model."""
    lives: dict[str, list[ActionEvent]] = defaultdict(list)
    for record in records:
        lives[record.event_id].append(record)
    for life in lives.values():
        assert list(range(len(life))) == [record.revision for record in life]
        assert Phase.OPENED == life[0].phase
        assert [False] * (len(life) - 1) + [True] == [record.final for record in life]
        assert 1 == len({record.model_id for record in life})
