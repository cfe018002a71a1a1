"""Invariant: the daemon over memory adapters gives what the straight line gives."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.journal.memory import MemoryJournal
from daemon.sources.memory import MemoryChunkSource
from engine.types import ActionEvent
from tests.support.daemons import TestDaemon, a_log, straight_line
from tests.support.footage import chunks_of, colour_clip

strengths = st.sampled_from([0, 0, 60, 140, 230])
footage = st.lists(st.tuples(st.floats(0.2, 3), strengths, strengths), min_size=1, max_size=8)


@pytest.mark.slow
@settings(max_examples=25)
@given(footage, st.integers(5, 40), st.sampled_from([0.3, 1.0, 4.0]), st.integers(1, 3))
def test_the_daemon_and_the_straight_line_agree(blocks, gop, chunk_s, n_cameras):
    names = [f"cam-{number}" for number in range(n_cameras)]
    with tempfile.TemporaryDirectory() as folder:
        clip = colour_clip(Path(folder) / "clip.mp4", blocks, gop=gop)
        # A transcoded chunk would not show the file's own pixels.
        chunks = [chunks_of(clip, name, chunk_s=max(chunk_s, gop / 25)) for name in names]
        wanted = {name: straight_line(clip, name) for name in names}

    records = asyncio.run(_serve([chunk for turn in zip(*chunks, strict=True) for chunk in turn]))

    assert wanted == {name: [r for r in records if r.camera == name] for name in names}


async def _serve(chunks) -> list[ActionEvent]:
    journal = MemoryJournal()
    await TestDaemon(MemoryChunkSource(a_log(*chunks)), journal).serve()
    return journal.records.events
