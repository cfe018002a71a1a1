"""What a camera's worker asks to have its chunks decoded."""

from dataclasses import dataclass
from typing import Protocol

from engine.types import FrameBatch, VideoChunk
from engine.video.headers import Header


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded chunk.

    Attributes:
        frames: Its frames.
        spent_s: Seconds of computing that it took.
        header: What the camera has said of how its chunks are decoded, for those that do not.
    """

    frames: FrameBatch
    spent_s: float
    header: Header | None = None


class ChunkDecoder(Protocol):
    """Decodes the chunks of one camera, one after the other."""

    async def decode(self, chunk: VideoChunk) -> Decoded:
        """All frames of a closed-GOP chunk.

        Raises:
            CorruptChunkError: The chunk cannot be decoded whole.
            RefusedChunkError: It was not opened, or went over a limit.
            DecoderLostError: It ended its decoder, which was made anew.
        """

    def close(self) -> None:
        """Free what the decoder holds."""
