"""Published feature files: one ``.npy`` a video, in the folders that public code uses.

Under the root, or its folder ``features``, lie either ``SUBSET/rgb/VID.npy`` and
``SUBSET/flow/VID.npy``, or ``SUBSET/VID.npy``, or just ``VID.npy``. The latter two hold RGB and
flow side by side, RGB first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from typing_extensions import override

from engine.errors import DataError
from engine.grid import US_PER_S, Grid
from engine.types import FloatArray
from training.feature_files import checked_matrix
from training.loaders.annotations import AnnotatedVideo, OnNote
from training.loaders.features import read_matrix
from training.loaders.files import few
from training.records import FeatureSet, VideoRecord

Modality = Literal["rgb", "flow", "joint"]
STREAM_WIDTH = 1024  # D of I3D's pooled features of either modality
WIDTHS: Mapping[Modality, int] = {"rgb": 1024, "flow": 1024, "joint": 2048}
# 25 frames a second, 16 frames a snippet, none of them shared: all public extractors do it so.
PUBLISHED_GRID = Grid(fps=25, snippet_frames=16, stride_frames=16)
_LENGTH_TOLERANCE = 0.1  # published T differs from duration / 0.64 s by one row or two

Rows = Callable[[], FloatArray]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which of the listed videos have features, and which have none."""

    found: tuple[str, ...]
    missing: tuple[str, ...]

    @override
    def __str__(self) -> str:
        listed = len(self.found) + len(self.missing)
        line = f"{len(self.found)} of {listed} listed videos have features"
        return f"{line}; missing: {few(self.missing)}" if self.missing else line


def find_features(
    root: Path, names: Iterable[str], folders: Sequence[str], modality: Modality
) -> dict[str, Rows]:
    """Find a reader for every video that has its files.

    Args:
        root: The folder that the features were unpacked into.
        names: The videos.
        folders: What the subset's folder may be called, such as ``train``.
        modality: Which features to read.

    Returns:
        Video → function that reads its features, float32 (T, D).
    """
    bases = [
        base / folder
        for base in (root, root / "features")
        for folder in (*folders, "")
        if (base / folder).is_dir()
    ]
    return {name: rows for name in names if (rows := _rows(bases, name, modality)) is not None}


def select(joint: FloatArray, modality: Modality, what: str) -> FloatArray:
    """Take a modality's columns of ``[rgb | flow]``, float32 (T, 2048) → (T, 1024) or (T, 2048).

    If ``rgb`` is wanted, an array of RGB alone, (T, 1024), will do as well.

    Raises:
        DataError: The array has another width, holds a number that is not finite, or is empty.
    """
    if modality == "rgb" and joint.ndim == 2 and joint.shape[1] == STREAM_WIDTH:  # noqa: PLR2004 - rows, width
        return checked_matrix(joint, what, STREAM_WIDTH)
    checked_matrix(joint, what, WIDTHS["joint"])
    columns = {
        "rgb": slice(None, STREAM_WIDTH),
        "flow": slice(STREAM_WIDTH, None),
        "joint": slice(None),
    }[modality]
    return np.ascontiguousarray(joint[:, columns])


def assemble(
    videos: Sequence[AnnotatedVideo],
    readers: Mapping[str, Rows],
    class_names: tuple[str, ...],
    modality: Modality,
    where: Path,
    on_note: OnNote,
) -> FeatureSet:
    """Read the videos that have features, and say which have none.

    Raises:
        DataError: None has features, or their lengths say that they lie on another grid.
    """
    coverage = coverage_of(videos, readers)
    if not coverage.found:
        wanted = "rgb and flow" if modality == "joint" else modality
        raise DataError(
            f"{where}: {coverage}: give the folder that holds train/ and test/ with {wanted} in"
            " them, or VID.npy files"
        )
    on_note(f"{where}: {coverage}")
    records = tuple(
        _record(video, readers[video.name]()) for video in videos if video.name in readers
    )
    _check_lengths(records, {video.name: video.duration_us for video in videos}, where)
    return FeatureSet(class_names, records, PUBLISHED_GRID, WIDTHS[modality])


def coverage_of(videos: Sequence[AnnotatedVideo], readers: Mapping[str, Rows]) -> Coverage:
    """Say which of the videos have a reader, and which have none."""
    names = [video.name for video in videos]
    return Coverage(
        tuple(name for name in names if name in readers),
        tuple(name for name in names if name not in readers),
    )


def _rows(bases: Sequence[Path], name: str, modality: Modality) -> Rows | None:
    for base in bases:
        streams = ("rgb", "flow") if modality == "joint" else (modality,)
        paths = [base / stream / f"{name}.npy" for stream in streams]
        if all(path.is_file() for path in paths):
            return lambda: _side_by_side(paths)
        joint = base / f"{name}.npy"
        if joint.is_file():
            return lambda: select(
                read_matrix(joint.read_bytes(), str(joint)), modality, str(joint)
            )
    return None


def _side_by_side(paths: Sequence[Path]) -> FloatArray:
    """Read one file (T, 1024) for each modality, and join them to float32 (T, D)."""
    streams = [
        checked_matrix(read_matrix(path.read_bytes(), str(path)), str(path), STREAM_WIDTH)
        for path in paths
    ]
    lengths = [len(stream) for stream in streams]
    if max(lengths) - min(lengths) > 1:  # flow has one frame less than RGB
        raise DataError(
            f"{paths[0]} has {lengths[0]} rows and {paths[-1]} has {lengths[-1]}: "
            "they belong to different videos or strides; download both again"
        )
    return np.concatenate([stream[: min(lengths)] for stream in streams], axis=1)


def _record(video: AnnotatedVideo, features: FloatArray) -> VideoRecord:
    """Make a record of a video and its features float32 (T, D)."""
    # An unknown length is put at the end of the snippet after the last one, because up to a
    # snippet of footage may follow the last whole one.
    end_us = PUBLISHED_GRID.snippet_end_us(len(features))
    return VideoRecord(
        name=video.name,
        camera=video.camera,
        features=features,
        indices=np.arange(len(features), dtype=np.int64),
        duration_us=end_us if video.duration_us is None else video.duration_us,
        tags=video.tags,
        truth=video.truth,
    )


def _check_lengths(
    records: Sequence[VideoRecord], durations_us: Mapping[str, int | None], where: Path
) -> None:
    """Refuse features of another frame rate or stride, the commonest silent mistake.

    The median video decides, because a few videos of the published annotations have a wrong
    duration.

    Raises:
        DataError: The median video has too few or too many rows for its duration.
    """
    ratios = [
        len(record.features) * PUBLISHED_GRID.stride_us / duration_us
        for record in records
        if (duration_us := durations_us[record.name]) is not None
        and duration_us > 10 * PUBLISHED_GRID.stride_us
    ]
    if ratios and abs(median(ratios) - 1) > _LENGTH_TOLERANCE:
        hop_s = PUBLISHED_GRID.stride_us / US_PER_S
        raise DataError(
            f"{where}: features of the median video have {median(ratios):.2f} times the rows that "
            f"a hop of {hop_s} s gives: extract them at 25 frames a second with a stride of 16"
        )
