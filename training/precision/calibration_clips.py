"""Videos → the snippets that int8 is calibrated on, and a few that are kept back to check it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import DataError, UnreadableVideoError
from engine.grid import US_PER_S
from engine.snippets import SnippetSampler
from engine.spec import ModelSpec
from engine.types import UInt8Array
from engine.video.frames import probe_video, read_video

VIDEO_ENDINGS = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg"})

_LONGEST_US = 600 * US_PER_S  # of a long recording, its beginning is enough
_KEPT_BACK = 8  # every eighth video, or snippet


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """What a network is calibrated on, and what the result is checked on.

    Attributes:
        calibration: Snippets, uint8 (L, H, W, 3) each.
        check: Snippets, uint8 (L, H, W, 3) each, of other videos if there are enough of them; may
            be empty.
        n_videos: Number of videos that were read.
        failed: Why videos could not be read, a line for each.
    """

    calibration: tuple[UInt8Array, ...]
    check: tuple[UInt8Array, ...]
    n_videos: int
    failed: tuple[str, ...]


def videos_in(given: Sequence[Path]) -> list[Path]:
    """List video files, and those inside folders at any depth, in order.

    Raises:
        DataError: A path is not there, or a folder holds no video.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_ENDINGS)
            if not inside:
                endings = " ".join(sorted(VIDEO_ENDINGS))
                raise DataError(f"{path}: holds no video; wanted files ending in {endings}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"--calibrate {path}: there is no such file or folder")
    return list(dict.fromkeys(found))


def read_clips(
    given: Sequence[Path],
    spec: ModelSpec,
    n_snippets: int,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Clips:
    """Read snippets spread evenly over all videos, and over each video.

    Args:
        given: Video files, or folders of them.
        spec: The model whose grid and picture size the snippets have.
        n_snippets: Number of snippets wanted in all; short videos may give fewer.
        on_progress: Gets how many videos are read, and how many there are.

    Raises:
        DataError: There are no videos, or none that can be read, or they are shorter than a
            snippet.
    """
    videos = videos_in(given)
    if not videos:
        raise DataError("there is no video to calibrate on: name some with --calibrate CLIPS")
    if len(videos) > n_snippets:
        videos = [videos[i] for i in _spread(len(videos), n_snippets)]
    each = -(-n_snippets // len(videos))
    read: list[list[UInt8Array]] = []
    failed: list[str] = []
    for number, path in enumerate(videos, 1):
        try:
            read.append(_snippets_of(path, spec, each))
        except UnreadableVideoError as error:
            failed.append(str(error))
        on_progress(number, len(videos))
    if not read:
        raise DataError(failed[0])
    read = [snippets for snippets in read if snippets]
    if not read:
        seconds = spec.grid.snippet_frames / spec.grid.fps
        raise DataError(f"no video is as long as a snippet, {seconds:.2f} s: take longer ones")
    calibration, check = _divided(read)
    return Clips(tuple(calibration), tuple(check), len(read), tuple(failed))


def _divided(read: list[list[UInt8Array]]) -> tuple[list[UInt8Array], list[UInt8Array]]:
    """Keep back every eighth video for the check or, if there are too few, every eighth snippet.

    Args:
        read: Each video's snippets, uint8 (L, H, W, 3) each.

    Returns:
        The snippets to calibrate on, and those to check on.
    """
    if len(read) < _KEPT_BACK:
        read = [[snippet] for snippets in read for snippet in snippets]
    check = read[_KEPT_BACK // 2 :: _KEPT_BACK]
    rest = [video for i, video in enumerate(read) if i % _KEPT_BACK != _KEPT_BACK // 2]
    return [s for video in rest for s in video], [s for video in check for s in video]


def _spread(count: int, wanted: int) -> list[int]:
    """Choose ``wanted`` of ``count`` indices evenly, without repeats."""
    places = np.linspace(0, count - 1, min(count, wanted)) if count > 1 else np.zeros(count)
    return [int(place) for place in np.unique(places.round())]


def _snippets_of(path: Path, spec: ModelSpec, wanted: int) -> list[UInt8Array]:
    """Read up to ``wanted`` snippets of a video, uint8 (L, H, W, 3) each."""
    duration_us = min(probe_video(path).duration_us or 0, _LONGEST_US)
    grid = spec.grid
    n_whole = (duration_us - grid.snippet_end_us(0)) // grid.stride_us + 1
    # A video that does not say how long it is gives its first snippets, a second apart.
    step = -(-US_PER_S // grid.stride_us)
    chosen = _spread(n_whole, wanted) if n_whole > 0 else [step * i for i in range(wanted)]
    found: list[UInt8Array] = []
    sampler = SnippetSampler(grid, spec.window.max_gap_us)
    for batch in read_video(path, spec.geometry, grid):
        snippets = sampler.push(batch)
        found += [snippet.rgb for snippet in snippets if snippet.index in chosen]
        if batch.pts_us[-1] > grid.snippet_end_us(chosen[-1]):
            break
    return found
