"""Builders for chunks and events, and strategies that make every kind of them."""

from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from engine.spec import Rung
from engine.types import ActionEvent, Evidence, Phase, Reason, Span, VideoChunk

TIME_BASE = Fraction(1, 90_000)
ANCHOR_US = 1_780_000_000_123_456


def a_chunk(camera: str = "door", sequence: int = 0, **other: Any) -> VideoChunk:
    """Chunk number ``sequence`` of one-second chunks."""
    fields: dict[str, Any] = {
        "camera": camera,
        "run": "run-1",
        "sequence": sequence,
        "start_us": sequence * 1_000_000,
        "payload": f"payload {sequence} of {camera}".encode(),
        "start_ticks": sequence * 90_000,
        "time_base": TIME_BASE,
        "anchor_us": ANCHOR_US,
    }
    return VideoChunk(**(fields | other))


def an_end(camera: str = "door", sequence: int = 0) -> VideoChunk:
    return a_chunk(camera, sequence, payload=b"", is_end=True)


def an_event(event_id: str = "e1", revision: int = 0, **other: Any) -> ActionEvent:
    """An event of one camera that opens, is updated, and closes at revision 2."""
    phases = (Phase.OPENED, Phase.UPDATED, Phase.CLOSED)
    fields: dict[str, Any] = {
        "event_id": event_id,
        "camera": "door",
        "run": "run-1",
        "revision": revision,
        "phase": phases[min(revision, 2)],
        "reason": Reason.SCORE,
        "class_index": 4,
        "class_name": "opening bottle",
        "span": Span(1_000_000, 3_000_000 + revision),
        "score": 0.75,
        "decided_us": 4_000_000,
        "anchor_us": ANCHOR_US,
        "model_id": "kinetics400@0123456789ab",
    }
    return ActionEvent(**(fields | other))


def names() -> st.SearchStrategy[str]:
    """What may name a camera or a run."""
    alphabet = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
    return st.text(alphabet, min_size=1, max_size=40)


def anchors() -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, 4_000_000_000_000_000)


@st.composite
def chunks(draw: st.DrawFn) -> VideoChunk:
    """Every chunk a producer with a clock of its own may send."""
    is_end = draw(st.booleans())
    ticks = draw(st.integers(0, 2**40))
    time_base = draw(st.sampled_from([TIME_BASE, Fraction(1, 12_800), Fraction(1001, 30_000)]))
    exact = ticks * time_base * 1_000_000
    return VideoChunk(
        camera=draw(names()),
        run=draw(names()),
        sequence=draw(st.integers(0, 2**50)),
        start_us=(2 * exact.numerator + exact.denominator) // (2 * exact.denominator),
        payload=b"" if is_end else draw(st.binary(min_size=1, max_size=64)),
        start_ticks=ticks,
        time_base=time_base,
        anchor_us=draw(anchors()),
        is_end=is_end,
        discontinuity=draw(st.booleans()),
    )


@st.composite
def events(draw: st.DrawFn) -> ActionEvent:
    """Every event a tracker may make."""
    start_us = draw(st.integers(0, 10**12))
    phase = draw(st.sampled_from(Phase))
    later = st.integers(1, 1000)
    return ActionEvent(
        event_id=draw(st.uuids()).hex,
        camera=draw(names()),
        run=draw(names()),
        revision=0 if phase is Phase.OPENED else draw(later),
        phase=phase,
        reason=draw(st.sampled_from(Reason)),
        class_index=draw(st.integers(0, 400)),
        class_name=draw(st.text(max_size=30)),
        span=Span(start_us, start_us + draw(st.integers(1, 10**10))),
        score=draw(st.floats(-2, 2)),
        decided_us=draw(st.integers(0, 10**12)),
        anchor_us=draw(anchors()),
        model_id=draw(names()),
        peak_us=draw(st.none() | st.integers(0, 10**12)),
        evidence=draw(st.none() | evidences()),
        watermark_us=draw(st.none() | st.integers(0, 10**12)),
        rung=draw(st.none() | st.sampled_from([rung.value for rung in Rung])),
    )


def evidences() -> st.SearchStrategy[Evidence]:
    """Of a topic, or of a folder of chunk files."""
    offsets = st.integers(0, 2**50)
    partitions = st.sampled_from(["chunks/0", "a.b-c/17", "door", "17"])
    return st.builds(Evidence, partitions, offsets, offsets)
