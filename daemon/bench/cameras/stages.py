"""Times each stage of one camera's straight line, on footage as a camera sends it."""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.errors import ConfigError
from daemon.models.reading import OpenModel
from engine.errors import RefusedChunkError
from engine.session import StreamSession
from engine.types import Snippet, Span, UInt8Array, VideoChunk
from engine.video.containers import DecodeLimits
from engine.video.cutting import CutChunk, cut_video
from engine.video.encoding import encode_video
from engine.video.frames import PyAvDecoder

CAMERA_SIZE = (320, 240)
CAMERA_FPS = 25
# As many as the more generous surveillance cameras send: four of five clips of real fights, 208 in
# all, have fewer.
CAMERA_BITS_PER_PIXEL = 0.15


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds spent in each stage of one camera's straight line.

    Attributes:
        decode_s: Time in the codec and the container.
        preprocess_s: Time in resize, crop, colour conversion and sampling.
        backbone_s: Time in the backbone, I3D.
        rest_s: Time in windows, localizer, proposals and tracker.
        n_snippets: How many snippets the footage gave.
        n_looks: How many of them the backbone looked at.
        video_s: Length of the footage.
    """

    decode_s: float
    preprocess_s: float
    backbone_s: float
    rest_s: float
    n_snippets: int
    n_looks: int
    video_s: float

    @property
    def total_s(self) -> float:
        """Time in all stages, in seconds."""
        return self.decode_s + self.preprocess_s + self.backbone_s + self.rest_s

    def shares(self) -> dict[str, float]:
        """Each stage's share of the time; the shares add up to 1."""
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
        chunks: The chunks, in order; there is at least one.
        durations_us: How long each lasts, up to the first frame of the next, in microseconds.
    """

    chunks: tuple[VideoChunk, ...]
    durations_us: tuple[int, ...]


def parse_size(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``, in pixels.

    Raises:
        ConfigError: The text is not of this form, or H.264 or the daemon does not take the size.
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
    """Make a clip as a camera sends it: H.264, 25 frames a second.

    Args:
        folder: Where the file is put.
        seconds: Length of the clip.
        size: Width and height in pixels, both even.
        key_frame_s: Seconds from one key frame to the next.
    """
    width, height = size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    scene = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    shifts = range(int(seconds * CAMERA_FPS))
    frames = (np.roll(scene, (i, 2 * i), axis=(0, 1)) for i in shifts)
    path = folder / "camera.mp4"
    encode_as_camera(frames, path, size, key_frame_every=CAMERA_FPS * key_frame_s)
    return path


def encode_as_camera(
    pictures: Iterable[UInt8Array], path: Path, size: tuple[int, int], *, key_frame_every: int
) -> None:
    """Write an H.264 MP4 with as many bits as cameras send: 288 kbit/s at 320x240, 25 fps.

    Args:
        pictures: uint8 (H, W, 3) each, ``CAMERA_FPS`` a second.
        path: The file.
        size: Their width and height, both even.
        key_frame_every: Frames from key frame to key frame.
    """
    bits_per_second = round(CAMERA_BITS_PER_PIXEL * size[0] * size[1] * CAMERA_FPS)
    encode_video(
        pictures,
        path,
        fps=CAMERA_FPS,
        key_frame_every=key_frame_every,
        bits_per_second=bits_per_second,
    )


def footage_of(video: Path) -> Footage:
    """A video as the chunks that a producer would make of it.

    Raises:
        UnreadableVideoError: The video cannot be opened or cut.
    """
    pieces: Sequence[CutChunk] = list(cut_video(str(video), chunk_s=1.0, on_note=lambda _: None))
    chunks = tuple(piece.to_chunk("bench", "e", i) for i, piece in enumerate(pieces))
    return Footage(chunks, tuple(piece.duration_us for piece in pieces))


def time_stages(
    chunks: Sequence[VideoChunk], model: OpenModel, decoder: PyAvDecoder
) -> StageTimes:
    """Put one camera's chunks through all stages, and time each; the decoder must be new."""
    session = StreamSession("bench", "e", model.spec, model.class_indices)
    decode_s = sample_s = backbone_s = rest_s = 0.0
    n_snippets, last_us = 0, 0
    for chunk in chunks:
        at = [time.perf_counter()]
        frames = decoder.decode(chunk)
        at.append(time.perf_counter())
        snippets = session.sample(frames)
        at.append(time.perf_counter())
        features = session.look(snippets, model.extractor.extract)
        at.append(time.perf_counter())
        session.track(model.localizer.localize(session.buffer(features)))
        at.append(time.perf_counter())
        spent = np.diff(at)
        decode_s, sample_s = decode_s + spent[0], sample_s + spent[1]
        backbone_s, rest_s = backbone_s + spent[2], rest_s + spent[3]
        n_snippets, last_us = n_snippets + len(snippets), int(frames.pts_us[-1])
    convert_s = decoder.converted_s
    session.release()
    return StageTimes(
        decode_s - convert_s,
        sample_s + convert_s,
        backbone_s,
        rest_s,
        n_snippets,
        n_snippets - session.n_reused - session.n_interpolated,
        last_us / 1e6,
    )


def backbone_rate(model: OpenModel, size: int, seconds: float) -> float:
    """How many snippets a second the backbone alone takes, in calls of ``size`` snippets."""
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
