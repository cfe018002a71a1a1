"""Feature files as ``s2net extract`` writes them, read without trusting them.

Nothing here unpickles. A folder has one manifest and one ``STEM.npz`` a video; a video is read
and checked when it is asked for.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
from typing_extensions import override

from engine.errors import DataError
from engine.files.npz import NPZ_DAMAGE
from engine.grid import Grid
from engine.types import FloatArray, Int64Array
from training.extract import MANIFEST, VideoFeatures
from training.loaders.files import few, read_json

_N_DIMENSIONS = 2  # rows, feature width


class FeatureFolder(Mapping[str, VideoFeatures]):
    """The videos of one folder by stem; each is read when it is asked for.

    Attributes:
        folder: Where they lie.
        manifest: What made them.
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
        return _read_features(self.folder / f"{stem}.npz", self.feature_dim)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    @override
    def __len__(self) -> int:
        return len(self._stems)

    def require(self, stems: list[str], asker: Path) -> None:
        """Refuse names that ``asker`` lists and that have no feature file.

        Raises:
            DataError: Names the first ones.
        """
        if missing := [stem for stem in stems if stem not in self._stems]:
            raise DataError(
                f"{asker} lists {few(missing)}, but {self.folder} has no such .npz: run s2net "
                "extract on them, or remove them from the list"
            )


def load_features(folder: Path) -> FeatureFolder:
    """A folder of feature files; the videos themselves are read when asked for.

    Raises:
        DataError: There is no manifest or no feature file. Asking for a video raises it too.
    """
    return FeatureFolder(folder)


def read_manifest(folder: Path) -> dict[str, object]:
    """What made the features of a folder.

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
    """Refuse features that something else made than the bundle or folder they shall go with.

    Args:
        features_dir: A folder of feature files.
        wanted: ``manifest_of(bundle)``, or another folder's ``read_manifest``.

    Raises:
        DataError: Names the first key that differs and both values.
    """
    seen = read_manifest(features_dir)
    for key, value in wanted.items():
        if seen.get(key) != value:
            raise DataError(
                f"{features_dir / MANIFEST}: {key} is {seen.get(key)!r}, wanted {value!r}: "
                "features of two extractors do not mix; run s2net extract again into a new folder"
            )


def read_matrix(blob: bytes, what: str) -> FloatArray:
    """One published ``.npy`` of features, float32 (T, D), whatever float it was stored as.

    Raises:
        DataError: It is damaged, pickled, no matrix of floats, empty, or not finite.
    """
    try:
        array = np.load(io.BytesIO(blob), allow_pickle=False)
    except NPZ_DAMAGE as error:
        _refuse_damaged(what, error)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        seen = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{what} holds {seen}, wanted one array of floats: download it again")
    return checked_matrix(array.astype(np.float32, copy=False), what, None)


def checked_matrix(features: FloatArray, what: str, width: int | None) -> FloatArray:
    """``features`` if it is a finite (T, D) with T > 0 and D = ``width``.

    Raises:
        DataError: Otherwise.
    """
    if features.ndim != _N_DIMENSIONS or (width is not None and features.shape[1] != width):
        raise DataError(
            f"{what}: features have shape {features.shape}, wanted (T, {width or 'D'}): "
            "they were made by another extractor; extract them again"
        )
    if not len(features):
        raise DataError(
            f"{what} has no snippets: the video is shorter than one snippet; remove it"
        )
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise DataError(
            f"{what}: row {int(np.argmax(broken))} of {int(broken.sum())} holds NaN or "
            "infinity: delete the file and extract that video again"
        )
    return features


def _read_features(path: Path, width: int) -> VideoFeatures:
    try:
        # NumPy leaves a file open that it opened and could not read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            features, indices = archive["features"], archive["indices"]
    except NPZ_DAMAGE as error:
        _refuse_damaged(str(path), error)
    if features.dtype != np.float32:
        raise DataError(
            f"{path}: features are {features.dtype}, wanted float32: extract that video again"
        )
    checked_matrix(features, str(path), width)
    return VideoFeatures(features, _checked_indices(path, indices, len(features)))


def _checked_indices(path: Path, indices: Int64Array, n_rows: int) -> Int64Array:
    if indices.dtype != np.int64 or indices.shape != (n_rows,):
        raise DataError(
            f"{path}: indices are {indices.dtype} {indices.shape}, wanted int64 ({n_rows},): "
            "extract that video again"
        )
    falls = np.flatnonzero(np.diff(indices) <= 0)
    if len(falls) or indices[0] < 0:
        row = int(falls[0]) + 1 if len(falls) else 0
        raise DataError(
            f"{path}: index {int(indices[row])} in row {row} does not rise from the one before: "
            "delete the file and extract that video again"
        )
    return indices


def _grid(path: Path, manifest: Mapping[str, object]) -> tuple[Grid, int]:
    numbers = []
    for key in ("fps", "snippet_frames", "stride_frames", "feature_dim"):
        value = manifest.get(key)
        if type(value) is not int or value <= 0:
            raise DataError(
                f"{path}: {key} is {value!r}, wanted a whole number above 0: extract again into a "
                "new folder"
            )
        numbers.append(value)
    try:
        return Grid(*numbers[:3]), numbers[3]
    except ValueError as error:
        raise DataError(f"{path}: {error}; extract again into a new folder") from error


def _refuse_damaged(what: str, error: BaseException) -> NoReturn:
    reason = " ".join(str(error).split())
    if "pickle" in reason.lower():
        raise DataError(
            f"{what} is no plain array file, or holds pickled objects, which could run code: "
            "refused; store plain arrays"
        ) from error
    raise DataError(
        f"{what} is damaged or no feature file ({type(error).__name__}: {reason:.80}): delete it "
        "and extract that video again"
    ) from error
