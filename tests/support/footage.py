"""Footage whose colour says what happens in it, cut into chunks by the real producer code."""

from pathlib import Path

import numpy as np

from engine.types import VideoChunk
from engine.video.cutting import cut_video
from tests.support.videos import make_video

FPS = 25


def colour_clip(
    path: Path, blocks: list[tuple[float, int, int]], *, gop: int = 12, fps: int = FPS
) -> Path:
    """An H.264 file.

    Args:
        path: Where to.
        blocks: (seconds, red, green) one after the other.
        gop: Frames between key frames.
        fps: Frames a second.
    """
    pictures = []
    for seconds, red, green in blocks:
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 0], picture[..., 1] = red, green
        pictures += [picture] * round(seconds * fps)
    path.write_bytes(make_video(pictures=pictures, n_frames=len(pictures), fps=fps, gop=gop))
    return path


# Something happens twice, and once in both classes at the same time.
BUSY = [
    (1.2, 0, 0),
    (2.0, 220, 0),
    (1.6, 0, 0),
    (1.5, 0, 230),
    (1.0, 200, 230),
    (2.4, 0, 0),
    (1.3, 210, 0),
    (1.0, 0, 0),
]


def chunks_of(
    path: Path, camera: str, *, chunk_s: float = 1.0, run: str = "file"
) -> list[VideoChunk]:
    """The clip as a producer sends it, end marker included."""
    pieces = list(cut_video(path, chunk_s=chunk_s, on_note=lambda _note: None))
    chunks = [piece.to_chunk(camera, run, number) for number, piece in enumerate(pieces)]
    end_us = pieces[-1].start_us + pieces[-1].duration_us
    end = VideoChunk(camera, run, len(chunks), end_us, b"", is_end=True)
    return [*chunks, end]
