"""The file of one video's features and the manifest of a folder of them, written and read.

A feature file is an npz with ``features`` float32 (T, D) and ``indices`` int64 (T,), the snippets'
places on the grid. Where footage is missing, rows are missing too. Beside the files,
``manifest.json`` names the extractor, so that features of another one are never mixed in. Nothing
here unpickles.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from engine.bundle.model_bundle import ModelBundle
from engine.errors import BundleError, DataError
from engine.files.npz import NPZ_DAMAGE
from engine.types import FloatArray, Int64Array

MANIFEST = "manifest.json"

_N_DIMENSIONS = 2  # rows, feature width


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """One video's features.

    Attributes:
        features: float32 (T, D), one row for each snippet.
        indices: int64 (T,), the snippets' places on the grid, rising.
    """

    features: FloatArray
    indices: Int64Array


def manifest_of(bundle: ModelBundle) -> dict[str, object]:
    """Return the manifest of features: two files can be compared only if theirs are equal."""
    spec = bundle.spec
    return {
        "extractor_sha256": bundle.backbone_sha256,
        "fps": spec.grid.fps,
        "snippet_frames": spec.grid.snippet_frames,
        "stride_frames": spec.grid.stride_frames,
        "resize_px": spec.geometry.resize_px,
        "crop_px": spec.geometry.crop_px,
        "fit": spec.geometry.fit,
        "modalities": ["rgb"],
        "feature_dim": spec.feature_dim,
    }


def claim_folder(folder: Path, manifest: dict[str, object]) -> None:
    """Write the manifest into ``folder``, or hold it to the one that is there.

    Raises:
        BundleError: Something else made the features that are there, or the manifest there is
            damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return
    try:
        seen = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: is damaged ({error}): choose another --out") from error
    for key, wanted in manifest.items():
        if seen.get(key) != wanted:
            raise BundleError(
                f"{path}: {key} is {seen.get(key)!r}, this bundle has {wanted!r}: "
                "features of two extractors do not mix; choose another --out"
            )


def write_features(found: VideoFeatures, target: Path) -> None:
    """Write one video's file; it appears whole or not at all."""
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, features=found.features, indices=found.indices)
    unfinished.replace(target)


def read_features(path: Path, width: int) -> VideoFeatures:
    """Read and check one video's file.

    Args:
        path: The file.
        width: D.

    Raises:
        DataError: The file is damaged or pickled, or its arrays have another type, shape or width
            or are not finite.
    """
    try:
        # NumPy leaves a file open that it opened and could not read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            features, indices = archive["features"], archive["indices"]
    except NPZ_DAMAGE as error:
        refuse_damaged(str(path), error)
    if features.dtype != np.float32:
        raise DataError(
            f"{path}: features are {features.dtype}, wanted float32: extract that video again"
        )
    checked_matrix(features, str(path), width)
    return VideoFeatures(features, _checked_indices(path, indices, len(features)))


def checked_matrix(features: FloatArray, what: str, width: int | None) -> FloatArray:
    """Return ``features`` if it is a finite (T, D) with T > 0 and D = ``width``.

    Raises:
        DataError: It is not; the message calls it ``what``.
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


def refuse_damaged(what: str, error: BaseException) -> NoReturn:
    """Raise DataError for what NumPy could not read, and say so if it is a pickle."""
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


def _checked_indices(path: Path, indices: Int64Array, n_rows: int) -> Int64Array:
    """Return indices int64 (T,) if they rise from 0 or more and T = ``n_rows``."""
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
