"""What the daemon and a decoder's process say to each other, without pickles.

A message is the length of its head, the head (JSON), and a body whose length the head tells. The
frames of an answer lie in memory that both share.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from engine.errors import CorruptChunkError, DecoderLostError, RefusedChunkError
from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.types import VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.headers import Header

LENGTH_BYTES = 4
MOST_HEAD_BYTES = 65536

_ERRORS = {kind.__name__: kind for kind in (CorruptChunkError, RefusedChunkError)}


@dataclass(frozen=True, slots=True)
class Task:
    """What a chunk is to be decoded for.

    Attributes:
        geometry: Frame size and fit.
        grid: The grid, to leave out frames that it would not show.
        limits: What a chunk may cost.
    """

    geometry: FrameGeometry
    grid: Grid
    limits: DecodeLimits


def packed(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A message."""
    text = json.dumps({**head, "body": len(body)}).encode()
    return len(text).to_bytes(LENGTH_BYTES, "big") + text + body


def request(
    task: dict[str, Any], chunk: VideoChunk, most_s: float, header: Header | None = None
) -> bytes:
    """The message that asks for a chunk's frames.

    Args:
        task: What they are for, as ``asdict`` gives it.
        chunk: The chunk.
        most_s: Seconds of computing that it may take.
        header: Of its camera, in case that it lacks its own.
    """
    base = chunk.time_base
    head = {
        "task": task,
        "most_s": most_s,
        "camera": chunk.camera,
        "run": chunk.run,
        "sequence": chunk.sequence,
        "start_us": chunk.start_us,
        "start_ticks": chunk.start_ticks,
        "time_base": None if base is None else [base.numerator, base.denominator],
        "header": plain_header(header),
    }
    return packed(head, chunk.payload)


def read_task(head: dict[str, Any]) -> Task:
    """The task of a request."""
    plain = head["task"]
    geometry, limits = FrameGeometry(**plain["geometry"]), DecodeLimits(**plain["limits"])
    return Task(geometry, Grid(**plain["grid"]), limits)


def read_chunk(head: dict[str, Any], payload: bytes) -> VideoChunk:
    """The chunk of a request."""
    base = head["time_base"]
    return VideoChunk(
        camera=head["camera"],
        run=head["run"],
        sequence=head["sequence"],
        start_us=head["start_us"],
        payload=payload,
        start_ticks=head["start_ticks"],
        time_base=None if base is None else Fraction(*base),
    )


def plain_header(header: Header | None) -> list[str] | None:
    """A camera's header as it stands in a message."""
    return None if header is None else [header.kind, b64encode(header.payload).decode()]


def read_header(head: dict[str, Any]) -> Header | None:
    """The camera's header of a request or an answer."""
    plain = head.get("header")
    return None if plain is None else Header(str(plain[0]), b64decode(plain[1]))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a chunk: an error, or frames that lie in the shared memory.

    Attributes:
        shape: Shape of the frames, uint8 (N, H, W, 3).
        pts_us: Their stream times (N,).
        n_decoded: As in ``FrameBatch``.
        n_late: As in ``FrameBatch``.
        spent_s: Seconds of computing.
        header: The camera's, for its next chunks.
    """

    shape: tuple[int, int, int, int]
    pts_us: Sequence[int]
    n_decoded: int
    n_late: int
    spent_s: float
    header: Header | None = None


def read_answer(head: dict[str, Any]) -> Answer:
    """An answer.

    Raises:
        StreamError: The one that the decoder raised.
        DecoderLostError: It makes no sense.
    """
    if "error" in head:
        raise _ERRORS.get(head["error"], CorruptChunkError)(str(head.get("reason")))
    try:
        answer = Answer(
            tuple(head["shape"]),
            head["pts_us"],
            head["n_decoded"],
            head["n_late"],
            head["spent_s"],
            read_header(head),
        )
        n_frames, _height, _width, n_channels = answer.shape
    except (LookupError, TypeError, ValueError) as error:
        raise DecoderLostError(f"the decoder answers nonsense: {error!r}") from error
    if n_frames != len(answer.pts_us) or n_channels != 3:  # noqa: PLR2004 - RGB
        raise DecoderLostError(f"the decoder answers frames of shape {answer.shape}")
    return answer
