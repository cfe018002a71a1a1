"""One camera's straight line, each stage timed, on footage as a small camera sends it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.errors import ConfigError
from daemon.models.reading import OpenModel
from engine.errors import RefusedChunkError
from engine.session import StreamSession
from engine.types import Snippet, Span, VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.cutting import CutChunk, cut_video, encode_video
from engine.video.frames import PyAvDecoder

CAMERA_SIZE = (320, 240)
CAMERA_FPS = 25


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds spent in each stage of one camera's straight line.

    Attributes:
        decode_s: Codec and container.
        preprocess_s: Resize, crop, colour, sampling.
        backbone_s: I3D.
        rest_s: Windows, localizer, proposals, tracker.
        n_snippets: Snippets extracted.
        video_s: Footage processed.
    """

    decode_s: float
    preprocess_s: float
    backbone_s: float
    rest_s: float
    n_snippets: int
    video_s: float

    @property
    def total_s(self) -> float:
        """All stages."""
        return self.decode_s + self.preprocess_s + self.backbone_s + self.rest_s

    def shares(self) -> dict[str, float]:
        """Each stage's share of the whole, adding up to 1."""
        return {
            "decode_share": self.decode_s / self.total_s,
            "preprocess_share": self.preprocess_s / self.total_s,
            "backbone_share": self.backbone_s / self.total_s,
            "rest_share": self.rest_s / self.total_s,
        }


@dataclass(frozen=True, slots=True)
class Footage:
    """A clip as a producer would send it.

    Attributes:
        chunks: In order; at least one.
        durations_us: Of each, up to the first frame of the next.
    """

    chunks: tuple[VideoChunk, ...]
    durations_us: tuple[int, ...]


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` in pixels.

    Raises:
        ConfigError: It is no such text, or no size that H.264 and the daemon take.
    """
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    width, height = (int(side) for side in found.groups()) if found else (0, 0)
    try:
        DecodeLimits().check_size(width, height)
    except RefusedChunkError as error:
        why = str(error) if found else "wanted WIDTHxHEIGHT, such as 1920x1080"
        raise ConfigError(f"--resolution is {text!r}: {why}") from error
    if width % 2 or height % 2:
        raise ConfigError(f"--resolution is {text!r}: wanted even sides, such as 1920x1080")
    return width, height


def camera_footage(
    folder: Path, seconds: float, size: tuple[int, int] = CAMERA_SIZE, *, key_frame_s: int = 1
) -> Path:
    """A clip as a camera sends it: 25 fps, H.264, a key frame a second.

    Args:
        folder: Where to.
        seconds: How long.
        size: Width and height in pixels, both even.
        key_frame_s: Seconds from key frame to key frame.
    """
    width, height = size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    scene = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    shifts = range(int(seconds * CAMERA_FPS))
    frames = (np.roll(scene, (i, 2 * i), axis=(0, 1)) for i in shifts)
    path = folder / "camera.mp4"
    encode_video(frames, path, fps=CAMERA_FPS, key_frame_every=CAMERA_FPS * key_frame_s)
    return path


def footage_of(video: Path) -> Footage:
    """The clip as a producer would send it.

    Raises:
        UnreadableVideoError: It cannot be opened or cut.
    """
    pieces: Sequence[CutChunk] = list(cut_video(str(video), chunk_s=1.0, on_note=lambda _: None))
    chunks = tuple(piece.to_chunk("bench", "e", i) for i, piece in enumerate(pieces))
    return Footage(chunks, tuple(piece.duration_us for piece in pieces))


def time_stages(
    chunks: Sequence[VideoChunk], model: OpenModel, decoder: PyAvDecoder
) -> StageTimes:
    """One camera, stage after stage, each timed; the decoder is new."""
    session = StreamSession("bench", "e", model.spec, model.class_indices)
    decode_s = sample_s = backbone_s = rest_s = 0.0
    n_snippets, last_us = 0, 0
    for chunk in chunks:
        at = [time.perf_counter()]
        frames = decoder.decode(chunk)
        at.append(time.perf_counter())
        snippets = session.sample(frames)
        at.append(time.perf_counter())
        features = model.extractor.extract(snippets)
        at.append(time.perf_counter())
        session.track(model.localizer.localize(session.buffer(features)))
        at.append(time.perf_counter())
        spent = np.diff(at)
        decode_s, sample_s = decode_s + spent[0], sample_s + spent[1]
        backbone_s, rest_s = backbone_s + spent[2], rest_s + spent[3]
        n_snippets, last_us = n_snippets + len(snippets), int(frames.pts_us[-1])
    convert_s = decoder.converted_s
    return StageTimes(
        decode_s - convert_s, sample_s + convert_s, backbone_s, rest_s, n_snippets, last_us / 1e6
    )


def backbone_rate(model: OpenModel, size: int, seconds: float) -> float:
    """Snippets a second of the backbone alone, in calls of ``size``."""
    grid, side = model.spec.grid, model.spec.geometry.crop_px
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (grid.snippet_frames, side, side, 3), np.uint8)
    batch = [Snippet(i, 0, Span(i, i + 1), rgb) for i in range(size)]
    model.extractor.extract(batch)
    n, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        model.extractor.extract(batch)
        n += size
    return n / (time.perf_counter() - started_s)
