"""What a producer says of a chunk besides the chunk itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """What a producer knows about a chunk besides the chunk itself; None is left out.

    Attributes:
        content_type: MIME type of the payload.
        duration_us: Time its frames cover.
        n_frames: Frames in it.
        width: Of the coded picture, pixels.
        height: Of the coded picture, pixels.
        clock: How far to trust the capture time: ``ntp``, ``rtcp`` or ``arrival``.
    """

    content_type: str = "video/mp4"
    duration_us: int | None = None
    n_frames: int | None = None
    width: int | None = None
    height: int | None = None
    clock: str = "arrival"
