"""What a producer tells about a chunk besides the chunk itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """What a producer knows about a chunk; what is None is not written down.

    Attributes:
        content_type: MIME type of the payload.
        duration_us: Time that its frames cover, in microseconds.
        n_frames: How many frames it has.
        width: Width of the coded picture, in pixels.
        height: Height of the coded picture, in pixels.
        clock: How far to trust the capture time: ``ntp``, ``rtcp`` or ``arrival``.
    """

    content_type: str = "video/mp4"
    duration_us: int | None = None
    n_frames: int | None = None
    width: int | None = None
    height: int | None = None
    clock: str = "arrival"
