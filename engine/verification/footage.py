"""What two models are compared on: snippets as a camera would give them, always the same.

``procedural`` footage is drawn from a seed with integer arithmetic alone, so it has the same bytes
on every machine and needs neither a file nor OpenCV. It holds what upsets low precision: motion,
flicker, black, noise, saturation. Footage of one's own (``of_videos``) says more: only there do
the events occur that the model is for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from engine.grid import US_PER_S
from engine.snippets import SnippetSampler
from engine.spec import ModelSpec
from engine.types import FrameBatch, Snippet
from engine.verification.drawn_footage import SCENES, Stage
from engine.video.frames import probe_video, read_video

PROCEDURAL_SNIPPETS = 36  # six of each scene
_SEED = 5


@dataclass(frozen=True, slots=True)
class GoldenClip:
    """One camera's footage.

    Attributes:
        camera: The camera's name; a model that knows the camera starts from its stored mean.
        n_snippets: About how many there will be, for progress.
        snippets: Called anew for each verification; gives the same snippets in order each time.
    """

    camera: str
    n_snippets: int
    snippets: Callable[[], Iterator[Snippet]]


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """What is compared on.

    Attributes:
        about: What it is, for the report.
        clips: One or more.
    """

    about: str
    clips: tuple[GoldenClip, ...]

    @property
    def n_snippets(self) -> int:
        """About how many snippets all clips have."""
        return sum(clip.n_snippets for clip in self.clips)


def procedural(
    spec: ModelSpec, n_snippets: int = PROCEDURAL_SNIPPETS, seed: int = _SEED
) -> GoldenSet:
    """Footage drawn with numpy at the model's geometry: ``n_snippets`` of one camera.

    The same arguments give the same bytes on every machine.

    Args:
        spec: Geometry and time grid.
        n_snippets: How many, >= 1.
        seed: Seed of its textures.
    """
    if n_snippets < 1:
        raise ValueError(f"n_snippets is {n_snippets}, wanted >= 1")
    clip = GoldenClip("golden", n_snippets, partial(_drawn, spec, n_snippets, seed))
    return GoldenSet("procedural footage (motion, people, flicker, black, noise, glare)", (clip,))


def of_videos(
    paths: Sequence[Path],
    spec: ModelSpec,
    *,
    seconds: float | None = None,
    on_note: Callable[[str], None] = lambda _note: None,
) -> GoldenSet:
    """The user's own footage, one clip for each file, decoded anew each time, never held whole.

    Args:
        paths: Video files.
        spec: Geometry and time grid.
        seconds: Most of each file that is shown; None: all of it.
        on_note: Told about damaged parts.

    Raises:
        UnreadableVideoError: A file cannot be opened or holds no video.
    """
    limit = None if seconds is None else _whole_snippets(round(seconds * US_PER_S), spec)
    clips = []
    for path in paths:
        n_whole = _whole_snippets(probe_video(path).duration_us or 0, spec)
        n_snippets = n_whole if limit is None else min(n_whole, limit)
        clips.append(
            GoldenClip(path.stem, n_snippets, partial(_decoded, path, spec, limit, on_note))
        )
    return GoldenSet(", ".join(path.name for path in paths), tuple(clips))


def _drawn(spec: ModelSpec, n_snippets: int, seed: int) -> Iterator[Snippet]:
    grid = spec.grid
    n_frames = (n_snippets - 1) * grid.stride_frames + grid.snippet_frames
    stage = Stage(spec.geometry.crop_px, seed)

    def frames() -> Iterator[FrameBatch]:
        for number in range(n_frames):
            scene = SCENES[number * len(SCENES) // n_frames]
            pts_us = np.array([number * grid.frame_us], np.int64)
            yield FrameBatch(pts_us, scene(stage, number)[None], 1)

    return _sampled(frames(), spec)


def _decoded(
    path: Path, spec: ModelSpec, limit: int | None, on_note: Callable[[str], None]
) -> Iterator[Snippet]:
    frames = read_video(path, spec.geometry, spec.grid, on_note=on_note)
    return islice(_sampled(frames, spec), limit)


def _sampled(frames: Iterable[FrameBatch], spec: ModelSpec) -> Iterator[Snippet]:
    sampler = SnippetSampler(spec.grid, spec.window.max_gap_us)
    for batch in frames:
        yield from sampler.push(batch)


def _whole_snippets(duration_us: int, spec: ModelSpec) -> int:
    grid = spec.grid
    return max((duration_us - grid.snippet_us) // grid.stride_us + 1, 0)
