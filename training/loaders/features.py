"""Folders of feature files as ``s2net extract`` writes them, and published arrays of features.

Nothing here unpickles. A folder has one manifest and one ``STEM.npz`` a video; a video is read
and checked when it is asked for.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from engine.errors import DataError
from engine.files.npz import NPZ_DAMAGE
from engine.grid import Grid
from engine.types import FloatArray
from training.feature_files import (
    MANIFEST,
    VideoFeatures,
    checked_matrix,
    read_features,
    refuse_damaged,
)
from training.loaders.files import few, read_json


class FeatureFolder(Mapping[str, VideoFeatures]):
    """The videos of one folder by stem; each is read when it is asked for.

    Attributes:
        folder: The folder.
        manifest: What the manifest says about the extractor.
        grid: Their time grid.
        feature_dim: D of every one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.grid, self.feature_dim = _grid(folder / MANIFEST, self.manifest)
        self._stems = dict.fromkeys(sorted(path.stem for path in folder.glob("*.npz")))
        if not self._stems:
            raise DataError(f"{folder} holds no feature file (*.npz): run s2net extract first")

    @override
    def __getitem__(self, stem: str) -> VideoFeatures:
        if stem not in self._stems:
            raise KeyError(stem)
        return read_features(self.folder / f"{stem}.npz", self.feature_dim)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    @override
    def __len__(self) -> int:
        return len(self._stems)

    def require(self, stems: list[str], asker: Path) -> None:
        """Refuse names that ``asker`` lists and that have no feature file.

        Raises:
            DataError: There are such names; the message gives the first ones.
        """
        if missing := [stem for stem in stems if stem not in self._stems]:
            raise DataError(
                f"{asker} lists {few(missing)}, but {self.folder} has no such .npz: run s2net "
                "extract on them, or remove them from the list"
            )


def load_features(folder: Path) -> FeatureFolder:
    """Open a folder of feature files; the videos themselves are read when asked for.

    Raises:
        DataError: There is no manifest or no feature file. Asking for a video raises it too.
    """
    return FeatureFolder(folder)


def read_manifest(folder: Path) -> dict[str, object]:
    """Read the manifest, which says what made the features of a folder.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder} has no {MANIFEST}, so nobody knows what made its features: "
            "give the folder that s2net extract wrote"
        )
    return read_json(path)


def check_manifest(features_dir: Path, wanted: Mapping[str, object]) -> None:
    """Refuse features that were not made as those of the bundle or folder they shall go with.

    Args:
        features_dir: A folder of feature files.
        wanted: ``manifest_of(bundle)``, or another folder's ``read_manifest``.

    Raises:
        DataError: They differ; the message gives the first key that does, and both values.
    """
    seen = read_manifest(features_dir)
    for key, value in wanted.items():
        if seen.get(key) != value:
            raise DataError(
                f"{features_dir / MANIFEST}: {key} is {seen.get(key)!r}, wanted {value!r}: "
                "features of two extractors do not mix; run s2net extract again into a new folder"
            )


def read_matrix(blob: bytes, what: str) -> FloatArray:
    """Read one published ``.npy`` of features as float32 (T, D), whatever float it is stored as.

    Raises:
        DataError: It is damaged, pickled, no matrix of floats, empty, or not finite.
    """
    try:
        array = np.load(io.BytesIO(blob), allow_pickle=False)
    except NPZ_DAMAGE as error:
        refuse_damaged(what, error)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        seen = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{what} holds {seen}, wanted one array of floats: download it again")
    return checked_matrix(array.astype(np.float32, copy=False), what, None)


def _grid(path: Path, manifest: Mapping[str, object]) -> tuple[Grid, int]:
    numbers = []
    for key in ("fps", "snippet_frames", "stride_frames", "feature_dim"):
        value: Any = manifest.get(key)
        kinds, wanted = ((int, float), "a number") if key == "fps" else ((int,), "a whole number")
        if type(value) not in kinds or not value > 0:
            raise DataError(
                f"{path}: {key} is {value!r}, wanted {wanted} above 0: extract again into a "
                "new folder"
            )
        numbers.append(value)
    try:
        return Grid(*numbers[:3]), numbers[3]
    except ValueError as error:
        raise DataError(f"{path}: {error}; extract again into a new folder") from error
