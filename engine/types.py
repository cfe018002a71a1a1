"""The vocabulary: every value that passes between stages.

Shapes: B rows in a call, T snippets in a window, L frames in a snippet, H x W pixels, C classes,
D numbers in a feature, N of anything else. All times are whole microseconds of *stream time*:
media time since the start of the producer's run. Wall-clock time is stream time plus
``anchor_us``.

Arrays inside these values are read-only by convention: a stage that wants to change one copies it.
"""

from dataclasses import astuple, dataclass, field
from enum import StrEnum
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open interval ``[start_us, end_us)`` of stream time."""

    start_us: int
    end_us: int

    def __post_init__(self) -> None:
        if self.end_us <= self.start_us:
            raise ValueError(f"a span must end after it starts: {self.start_us}..{self.end_us}")

    @property
    def duration_us(self) -> int:
        """Length in microseconds, > 0."""
        return self.end_us - self.start_us


FOREIGN_RUN = "0"  # the run of all chunks that name none


@dataclass(frozen=True, slots=True)
class VideoChunk:
    """What a transport carried, parsed but not decoded: one closed GOP of one camera.

    Attributes:
        camera: The camera.
        run: The producer's run; media time starts anew with each.
        sequence: Number of the chunk in its run, rising by one.
        start_us: Stream time of the first frame.
        payload: Container bytes; empty only when ``is_end``.
        start_ticks: The first frame's pts in ``time_base`` units, where the producer gave it:
            frame times then follow from the source's own exact ticks.
        time_base: Seconds in a tick.
        anchor_us: Unix time of stream time 0 in microseconds, or None when nobody knows.
        is_end: The run ends here and nothing follows.
        discontinuity: Frames before this chunk were lost, or its clock jumped.
    """

    camera: str
    run: str
    sequence: int
    start_us: int
    payload: bytes
    start_ticks: int | None = None
    time_base: Fraction | None = None
    anchor_us: int | None = None
    is_end: bool = False
    discontinuity: bool = False


@dataclass(frozen=True, slots=True)
class Rival:
    """A run of a camera whose chunks are left out, for another run goes on.

    Attributes:
        run: The run, as its producer names it.
        newest_us: Stream time at which the last of them begins.
        n_in_a_row: How many have come since a chunk of the run that goes on.
        n_all: How many have come.
    """

    run: str
    newest_us: int
    n_in_a_row: int = 1
    n_all: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a camera stands in its transport; a session keeps it and never looks at it.

    Attributes:
        partition: The partition of the last finished delivery; None before there was one.
        offset: That delivery's offset; None if ``partition`` is.
        low_offset: Offset of the first delivery that a restart must read again; None: it needs
            none.
        sequence: Number of the last chunk in its run; None before there was one.
        producer_run: The run as its producer names it, where the session's has another name, for
            it is not the first one of that name.
        is_over: The producer ended the run, or fell silent.
        ended_runs: Runs that others took the place of, as their producers name them, oldest first.
        ended_us: Up to which stream time each of the last of ``ended_runs`` was seen.
        rival: A run whose chunks are left out, if there is one.
        chunks: Recent chunks of the run, oldest first: offset, and stream time of the first frame.
        stamp_us: The newest time of a record without headers, Unix microseconds.
        ahead_since_us: Since the record of this time footage has been ahead of records' times.
        apart_us: How far pictures are apart of a stream that does not say so.
    """

    partition: str | None = None
    offset: int | None = None
    low_offset: int | None = None
    sequence: int | None = None
    producer_run: str | None = None
    is_over: bool = False
    ended_runs: tuple[str, ...] = ()
    ended_us: tuple[int, ...] = ()
    rival: Rival | None = None
    chunks: tuple[tuple[int, int], ...] = ()
    stamp_us: int | None = None
    ahead_since_us: int | None = None
    apart_us: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a snapshot; what is None is left out."""
        plain: dict[str, Any] = {
            "partition": self.partition,
            "offset": self.offset,
            "low": self.low_offset,
            "sequence": self.sequence,
            "run": self.producer_run,
            "over": self.is_over or None,
            "ended": "\n".join(self.ended_runs) or None,  # names of runs hold no line ends
            "ended_us": list(self.ended_us) or None,
            "rival": None if self.rival is None else list(astuple(self.rival)),
            "chunks": _differences(self.chunks) or None,
            "stamp_us": self.stamp_us,
            "ahead_since_us": self.ahead_since_us,
            "apart_us": self.apart_us,
        }
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls, plain: object) -> "Place":
        """The inverse of ``to_json``.

        Raises:
            TypeError, ValueError: It is no place.
        """
        if not isinstance(plain, dict):
            raise TypeError(f"a place is {plain!r}, wanted keys and values")
        low_offset = _number(plain, "low")
        return cls(
            partition=_text(plain, "partition"),
            offset=_number(plain, "offset"),
            # Older snapshots say -1 where no delivery is needed again.
            low_offset=None if low_offset == -1 else low_offset,
            sequence=_number(plain, "sequence"),
            producer_run=_text(plain, "run"),
            is_over=plain.get("over") is True,
            ended_us=_numbers(plain.get("ended_us", [])),
            rival=_rival(plain.get("rival")),
            ended_runs=tuple(run for run in (_text(plain, "ended") or "").split("\n") if run),
            chunks=_sums(plain.get("chunks", [])),
            stamp_us=_number(plain, "stamp_us"),
            ahead_since_us=_number(plain, "ahead_since_us"),
            apart_us=_number(plain, "apart_us"),
        )


def _differences(chunks: tuple[tuple[int, int], ...]) -> list[int]:
    """Pairs, each less the one before, in a row: short where they are many."""
    flat: list[int] = []
    before = (0, 0)
    for offset, start_us in chunks:
        flat += [offset - before[0], start_us - before[1]]
        before = (offset, start_us)
    return flat


def _sums(flat: object) -> tuple[tuple[int, int], ...]:
    """The inverse of ``_differences``."""
    numbers = _numbers(flat)
    if len(numbers) % 2:
        raise ValueError(f"a place's chunks are {flat!r}, wanted pairs of whole numbers")
    offsets, starts_us = accumulate(numbers[::2]), accumulate(numbers[1::2])
    return tuple(zip(offsets, starts_us, strict=True))


def _numbers(plain: object) -> tuple[int, ...]:
    if not isinstance(plain, list) or any(type(value) is not int for value in plain):
        raise ValueError(f"a place holds {plain!r}, wanted whole numbers")
    return tuple(plain)


def _rival(plain: object) -> Rival | None:
    if plain is None:
        return None
    if not isinstance(plain, list) or not plain or not isinstance(plain[0], str):
        raise ValueError(f"a place's rival is {plain!r}, wanted a run and three whole numbers")
    return Rival(plain[0], *_numbers(plain[1:]))


def _number(plain: dict[str, object], key: str) -> int | None:
    value = plain.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"a place's {key} is {value!r}, wanted a whole number")
    return value


def _text(plain: dict[str, object], key: str) -> str | None:
    value = plain.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"a place's {key} is {value!r}, wanted text")
    return value


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Decoded frames at the size the model wants.

    Attributes:
        pts_us: int64 (N,), strictly increasing stream time.
        rgb: uint8 (N, H, W, 3).
        n_decoded: Frames the codec gave; those that no grid point could show are not in ``rgb``.
        n_late: Those of them that were left out because their time did not rise.
    """

    pts_us: Int64Array
    rgb: UInt8Array
    n_decoded: int
    n_late: int = 0


@dataclass(frozen=True, slots=True)
class Snippet:
    """L frames on the fixed-rate grid.

    Attributes:
        index: Counts from stream time 0; it only rises within a run, and jumps over gaps.
        segment: Rises by one at every gap; snippets of two segments are never neighbours.
        span: Stream time covered.
        rgb: uint8 (L, H, W, 3).
    """

    index: int
    segment: int
    span: Span
    rgb: UInt8Array


@dataclass(frozen=True, slots=True)
class SnippetFeature:
    """The backbone's answer for one snippet; ``vector`` is float32 (D,)."""

    index: int
    segment: int
    vector: FloatArray


@dataclass(frozen=True, slots=True)
class FeatureWindow:
    """The newest T snippet features of one segment, oldest first.

    Attributes:
        first_index: Snippet index of row 0; may be negative or lie before the segment's start.
        segment: The segment all valid rows belong to.
        features: float32 (T, D); rows that are not valid are zero.
        valid: bool (T,), False before the segment began.
        camera_mean: float32 (D,), the camera's mean after the newest row; zero where the
            model has none.
    """

    first_index: int
    segment: int
    features: FloatArray
    valid: BoolArray
    camera_mean: FloatArray


@dataclass(frozen=True, slots=True)
class CasWindow:
    """A localizer's answer for one window.

    Attributes:
        first_index: Snippet index of row 0.
        segment: As in the feature window.
        cas: float32 (T, C), class activation sequence, probabilities in [0, 1].
        attention: float32 (T,), foreground actionness in [0, 1].
        video_scores: float32 (C,), scores of the window as a whole.
        valid: bool (T,), as in the feature window.
    """

    first_index: int
    segment: int
    cas: FloatArray
    attention: FloatArray
    video_scores: FloatArray
    valid: BoolArray


@dataclass(frozen=True, slots=True)
class Proposal:
    """A scored candidate interval of one class; ``score`` is the OIC score."""

    class_index: int
    span: Span
    score: float


class Phase(StrEnum):
    """Where an event stands in its life: OPENED, UPDATED*, then CLOSED or RETRACTED."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"
    RETRACTED = "retracted"


class Reason(StrEnum):
    """Why a revision was written."""

    SCORE = "score"  # what the scores say now
    FROZEN = "frozen"  # the end lies far enough back to be final
    GAP = "gap"  # frames are missing: the segment ended
    END = "end"  # the run ended
    VANISHED = "vanished"  # later scores no longer support the event
    MODEL = "model"  # another model took over, which opens events of its own
    SILENT = "silent"  # the camera has sent nothing for a while


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the chunks lie that show an event.

    Attributes:
        partition: Their partition, as in ``Place``.
        first_offset: Offset of the first one.
        last_offset: Offset of the last one.
    """

    partition: str
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """One revision of one event; every revision carries the whole state.

    Attributes:
        event_id: Made once, at OPENED, from camera, run, model, class, onset and decision time.
        camera: The camera.
        run: The producer's run that the times belong to.
        revision: 0 at OPENED, then rising by one.
        phase: What this revision is.
        reason: Why it was written.
        class_index: Class index in the bundle.
        class_name: Class name.
        span: Stream time; the end is provisional until ``final``.
        score: OIC score.
        decided_us: Stream time up to which footage was seen when this was decided.
        anchor_us: Unix time of stream time 0, as known when the event opened; None if unknown.
        model_id: Bundle name and digest.
        peak_us: Stream time at which the class's score was highest; None if unknown.
        evidence: Where its footage lies; None if that is unknown. This, the watermark and the
            rung say how a revision came to be, so they make no other revision of it.
        watermark_us: No event of the run that starts before this stream time will appear after
            this revision; None if unknown.
        rung: How much of the footage was looked at when this was decided, as ``Rung`` names it;
            None if unknown.
    """

    event_id: str
    camera: str
    run: str
    revision: int
    phase: Phase
    reason: Reason
    class_index: int
    class_name: str
    span: Span
    score: float
    decided_us: int
    anchor_us: int | None
    model_id: str
    peak_us: int | None = None
    evidence: Evidence | None = field(default=None, compare=False)
    watermark_us: int | None = field(default=None, compare=False)
    rung: str | None = field(default=None, compare=False)

    @property
    def final(self) -> bool:
        """True for the one revision after which nothing about this event changes."""
        return self.phase in (Phase.CLOSED, Phase.RETRACTED)
